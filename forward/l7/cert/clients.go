package cert

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ocsp"
)

// A Check says whether the issuers' OCSP responders are asked about clients.
type Check uint8

// The checks.
const (
	CheckNone    Check = iota // nobody is asked
	CheckTry                  // a responder that does not answer is no reason to refuse
	CheckRequire              // without a good answer the client is refused
)

// maxAnswers is how many answers of responders are kept.
const maxAnswers = 10_000

// silentFor is how long a responder that did not answer is not asked again.
const silentFor = 30 * time.Second

// askWithin bounds how long a handshake waits for a responder.
const askWithin = 3 * time.Second

// ClientFiles say which client certificates are taken.
type ClientFiles struct {
	// CA is a PEM file with the authorities.
	CA string
	// CRL are files with revocation lists, PEM or DER. A certificate whose issuer
	// has a list there that has run out is checked against it all the same.
	CRL []string
	// OCSP asks the issuers' responders.
	OCSP Check
}

// A Clients checks client certificates. Any number of goroutines may use it.
type Clients struct {
	// Immutable.
	files  ClientFiles
	client *http.Client

	rules atomic.Pointer[rules]

	mu      sync.Mutex // guards the rest
	seen    string
	answers map[fingerprint]verdict
}

// rules are what is in force. Immutable.
type rules struct {
	pool    *x509.CertPool
	digest  [sha256.Size]byte
	revoked map[string]map[string]bool // issuer → serial
}

// A verdict is what a responder said, or why it said nothing.
type verdict struct {
	good  bool
	err   error
	until time.Time
}

// OpenClients reads the files.
func OpenClients(files ClientFiles) (*Clients, error) {
	c := &Clients{
		files:   files,
		client:  &http.Client{Timeout: askWithin, Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil}},
		answers: make(map[fingerprint]verdict),
	}
	c.seen = c.look()
	r, err := files.load()
	if err != nil {
		return nil, err
	}
	c.rules.Store(r)
	return c, nil
}

func (c *Clients) look() string {
	var b bytes.Buffer
	for _, name := range append([]string{c.files.CA}, c.files.CRL...) {
		b.WriteString(File{Certificate: name}.look())
	}
	return b.String()
}

func (f ClientFiles) load() (*rules, error) {
	data, err := read(f.CA)
	if err != nil {
		return nil, fmt.Errorf("client CA: %w", err)
	}
	r := &rules{pool: x509.NewCertPool(), digest: sha256.Sum256(data), revoked: make(map[string]map[string]bool)}
	var authorities []*x509.Certificate
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("client CA %s: %w", f.CA, err)
		}
		authorities = append(authorities, ca)
		r.pool.AddCert(ca)
	}
	if len(authorities) == 0 {
		return nil, fmt.Errorf("client CA %s: no certificate in it", f.CA)
	}
	for _, name := range f.CRL {
		if err := r.revoke(name, authorities); err != nil {
			return nil, fmt.Errorf("revocation list %s: %w", name, err)
		}
	}
	return r, nil
}

// revoke reads one file of lists.
func (r *rules) revoke(name string, authorities []*x509.Certificate) error {
	data, err := read(name)
	if err != nil {
		return err
	}
	var lists [][]byte
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		lists = append(lists, block.Bytes)
	}
	if len(lists) == 0 {
		lists = [][]byte{data}
	}
	for _, der := range lists {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return err
		}
		signed := false
		for _, ca := range authorities {
			signed = signed || list.CheckSignatureFrom(ca) == nil
		}
		if !signed {
			return errors.New("it is not signed by an authority of the client CA file")
		}
		serials := r.revoked[string(list.RawIssuer)]
		if serials == nil {
			serials = make(map[string]bool)
			r.revoked[string(list.RawIssuer)] = serials
		}
		for _, entry := range list.RevokedCertificateEntries {
			serials[entry.SerialNumber.String()] = true
		}
	}
	return nil
}

// Tend looks at the files and swaps what has changed; on an error the old goes on.
func (c *Clients) Tend() (swapped bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	look := c.look()
	if look == c.seen {
		return false, nil
	}
	c.seen = look
	r, err := c.files.load()
	if err != nil {
		return false, err
	}
	c.rules.Store(r)
	return true, nil
}

// Pool returns the authorities in force.
func (c *Clients) Pool() *x509.CertPool { return c.rules.Load().pool }

// Scope tells authorities apart, for Keys.
func (c *Clients) Scope() []byte {
	d := c.rules.Load().digest
	return d[:]
}

// Verify is for tls.Config.VerifyConnection, which is called for resumed sessions
// too: it refuses what has been revoked since.
func (c *Clients) Verify(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return nil // whether one is needed is for the tls package to say
	}
	if len(state.VerifiedChains) == 0 {
		return errors.New("client certificate was not verified")
	}
	chain := state.VerifiedChains[0]
	r := c.rules.Load()
	for _, link := range chain {
		if r.revoked[string(link.RawIssuer)][link.SerialNumber.String()] {
			return errors.New("client certificate is revoked")
		}
	}
	if c.files.OCSP == CheckNone || len(chain) < 2 {
		return nil
	}
	good, err := c.ask(chain[0], chain[1])
	switch {
	case err == nil && !good:
		return errors.New("client certificate is not good, says its issuer")
	case err != nil && c.files.OCSP == CheckRequire:
		return fmt.Errorf("whether the client certificate is good is not known: %w", err)
	}
	return nil
}

// ask asks the issuer's responder, or remembers what it said.
func (c *Clients) ask(leaf, issuer *x509.Certificate) (bool, error) {
	id := fingerprint(sha256.Sum256(leaf.Raw))
	now := time.Now()
	c.mu.Lock()
	have, known := c.answers[id]
	c.mu.Unlock()
	if !known || !now.Before(have.until) {
		have = c.consult(leaf, issuer, now)
		c.mu.Lock()
		if len(c.answers) >= maxAnswers {
			clear(c.answers)
		}
		c.answers[id] = have
		c.mu.Unlock()
	}
	return have.good, have.err
}

func (c *Clients) consult(leaf, issuer *x509.Certificate, now time.Time) verdict {
	ctx, cancel := context.WithTimeout(context.Background(), askWithin)
	defer cancel()
	der, err := fetch(ctx, c.client, leaf, issuer)
	if err != nil {
		return verdict{err: err, until: now.Add(silentFor)}
	}
	res, err := ocsp.ParseResponseForCert(der, leaf, issuer)
	if err != nil {
		return verdict{err: err, until: now.Add(silentFor)}
	}
	until := endOf(res, now)
	if !now.Before(until) || now.Before(res.ThisUpdate.Add(-5*time.Minute)) {
		return verdict{err: errors.New("the responder's answer is not in force"), until: now.Add(silentFor)}
	}
	return verdict{good: res.Status == ocsp.Good, until: until}
}
