package cert

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxFile bounds a certificate, key, list or response file.
const maxFile = 4 << 20

// ErrNoCertificate means that a store is empty.
var ErrNoCertificate = errors.New("no certificate")

// A Source gives certificates that do not come from files. Its answer is asked for
// in every full handshake and must not block.
type Source interface {
	// Certificate returns the certificate for a client, nil if it has none for it.
	Certificate(hello *tls.ClientHelloInfo) *tls.Certificate
}

// A File names the files of one certificate.
type File struct {
	// Certificate is a PEM file with the certificate first, its chain behind it.
	Certificate string
	// Key is the PEM file of the private key; it may be the same file.
	Key string
	// OCSP is a file with a DER response to staple; "" means to fetch one, if the
	// certificate names a responder and there is a Stapler.
	OCSP string
}

// A State is one certificate at one moment.
type State struct {
	File  string
	Names []string
	// NotAfter is until when it is valid, StapleUntil until when its OCSP response
	// is; the zero time if none is stapled.
	NotAfter, StapleUntil time.Time
	// Error is why what is on disk now is not what is served; "" if it is.
	Error string
}

// A Store is the certificates of one listener. Any number of goroutines may use it.
type Store struct {
	// Immutable.
	files   []File
	stapler *Stapler // nil = nothing is fetched
	source  Source   // asked first; nil = none

	set atomic.Pointer[set]

	mu     sync.Mutex // guards the rest
	seen   []string   // what the files of a pair looked like
	failed []string   // why they are not served
}

// A pair is one certificate with what is known about it. Immutable; a change of
// the staple is a new one.
type pair struct {
	file        File
	names       []string
	certificate tls.Certificate
	stapleUntil time.Time
}

// A set is what is served now. Immutable.
type set struct {
	pairs    []*pair
	exact    map[string][]*pair
	wildcard map[string][]*pair // by what is behind "*."
}

// Open reads every file; all mistakes are returned at once. stapler may be nil.
func Open(files []File, stapler *Stapler) (*Store, error) {
	if len(files) == 0 {
		return nil, ErrNoCertificate
	}
	s := &Store{files: files, stapler: stapler, seen: make([]string, len(files)), failed: make([]string, len(files))}
	pairs := make([]*pair, len(files))
	var errs []error
	for i, f := range files {
		s.seen[i] = f.look()
		p, err := load(f)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		pairs[i] = p
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s.publish(pairs, time.Now())
	return s, nil
}

// Use makes source the first that is asked for a certificate. It must be called
// before the Store is used.
func (s *Store) Use(source Source) { s.source = source }

// load reads one pair.
func load(f File) (*pair, error) {
	chain, err := read(f.Certificate)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	key := chain
	if f.Key != f.Certificate {
		if key, err = read(f.Key); err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
	}
	c, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %s", f.Certificate, f.Key, strings.TrimPrefix(err.Error(), "tls: "))
	}
	if c.Leaf == nil {
		if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
			return nil, fmt.Errorf("certificate %s: %w", f.Certificate, err)
		}
	}
	p := &pair{file: f, certificate: c, names: namesOf(c.Leaf)}
	if f.OCSP != "" {
		der, err := read(f.OCSP)
		if err != nil {
			return nil, fmt.Errorf("OCSP response: %w", err)
		}
		until, err := checkStaple(der, p, time.Now())
		if err != nil {
			return nil, fmt.Errorf("OCSP response %s: %w", f.OCSP, err)
		}
		p.certificate.OCSPStaple, p.stapleUntil = der, until
	}
	return p, nil
}

func read(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", name, info.Size(), maxFile)
	}
	return os.ReadFile(name)
}

// look says what the files look like, so that a change is seen: a replaced link
// as well as a rewritten file.
func (f File) look() string {
	var b strings.Builder
	for _, name := range []string{f.Certificate, f.Key, f.OCSP} {
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			fmt.Fprintf(&b, "%v\n", err)
			continue
		}
		fmt.Fprintf(&b, "%d %d %v\n", info.ModTime().UnixNano(), info.Size(), inode(info))
	}
	return b.String()
}

// namesOf returns the names that a certificate is for, in lower case.
func namesOf(leaf *x509.Certificate) []string {
	var names []string
	for _, n := range leaf.DNSNames {
		names = append(names, strings.ToLower(strings.TrimSuffix(n, ".")))
	}
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 && leaf.Subject.CommonName != "" {
		names = append(names, strings.ToLower(leaf.Subject.CommonName))
	}
	return names
}

// publish puts pairs in force, with the staples that are known.
func (s *Store) publish(pairs []*pair, now time.Time) {
	next := &set{pairs: pairs, exact: make(map[string][]*pair), wildcard: make(map[string][]*pair)}
	for i, p := range pairs {
		if p.file.OCSP == "" && s.stapler != nil {
			p = s.stapler.staple(p, now)
			pairs[i] = p
		}
		for _, name := range p.names {
			if below, ok := strings.CutPrefix(name, "*."); ok {
				next.wildcard[below] = append(next.wildcard[below], p)
			} else {
				next.exact[name] = append(next.exact[name], p)
			}
		}
	}
	s.set.Store(next)
}

// GetCertificate is for tls.Config.
func (s *Store) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s.source != nil {
		if c := s.source.Certificate(hello); c != nil {
			return c, nil
		}
	}
	have := s.set.Load()
	candidates := have.find(hello.ServerName)
	for _, p := range candidates {
		if len(candidates) == 1 || hello.SupportsCertificate(&p.certificate) == nil {
			return &p.certificate, nil
		}
	}
	return &candidates[0].certificate, nil
}

// Holds reports whether one of the certificates in the files has the same key as another: who can prove to have that has what we have.
func (s *Store) Holds(other *x509.Certificate) bool {
	return slices.ContainsFunc(s.set.Load().pairs, func(p *pair) bool {
		return bytes.Equal(p.certificate.Leaf.RawSubjectPublicKeyInfo, other.RawSubjectPublicKeyInfo)
	})
}

// Name returns the first name of the certificates that is no wildcard; "" if there is none.
func (s *Store) Name() string {
	for _, p := range s.set.Load().pairs {
		for _, name := range p.names {
			if !strings.HasPrefix(name, "*.") {
				return name
			}
		}
	}
	return ""
}

// find returns the certificates for a server name, the best first; never none.
func (t *set) find(name string) []*pair {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if c := t.exact[name]; c != nil {
		return c
	}
	if _, below, ok := strings.Cut(name, "."); ok {
		if c := t.wildcard[below]; c != nil {
			return c
		}
	}
	return t.pairs[:1]
}

// Tend looks at the files and the staples, and swaps what has changed. It returns
// what an operator should know: which were swapped, and which could not be.
func (s *Store) Tend(now time.Time) (swapped []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.set.Load()
	pairs := append([]*pair(nil), old.pairs...)
	changed := false
	var errs []error
	for i, f := range s.files {
		look := f.look()
		if look == s.seen[i] {
			continue
		}
		s.seen[i] = look
		p, err := load(f)
		if err != nil {
			s.failed[i] = err.Error()
			errs = append(errs, err)
			continue
		}
		s.failed[i] = ""
		pairs[i], changed = p, true
		swapped = append(swapped, f.Certificate)
	}
	if !changed && s.stapler != nil {
		for _, p := range pairs {
			changed = changed || p.file.OCSP == "" && s.stapler.news(p, now)
		}
	}
	if changed {
		s.publish(pairs, now)
	}
	return swapped, errors.Join(errs...)
}

// States tells of every certificate, in the order of the files.
func (s *Store) States() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	pairs := s.set.Load().pairs
	out := make([]State, len(pairs))
	for i, p := range pairs {
		out[i] = State{
			File: p.file.Certificate, Names: p.names, NotAfter: p.certificate.Leaf.NotAfter,
			StapleUntil: p.stapleUntil, Error: s.failed[i],
		}
	}
	return out
}

// fingerprint names a certificate.
type fingerprint [sha256.Size]byte

func (p *pair) fingerprint() fingerprint { return sha256.Sum256(p.certificate.Certificate[0]) }
