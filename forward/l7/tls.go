package l7

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/cert"
)

// tendEvery is how often certificate files are looked at.
const tendEvery = 2 * time.Second

// DefaultMinVersion is the oldest version of TLS that is spoken unless a listener
// says otherwise.
const DefaultMinVersion = tls.VersionTLS12

// A TLS says how a listener terminates TLS.
type TLS struct {
	// Certificates in the order of preference; the first is for clients that name
	// no server, or one that no certificate is for. At least one.
	Certificates []cert.File
	// Source is asked before the files; nil = none.
	Source cert.Source
	// MinVersion is tls.VersionTLS12 or tls.VersionTLS13; 0 means DefaultMinVersion.
	MinVersion uint16
	// Clients asks clients for a certificate; nil = they are not asked.
	Clients *cert.ClientFiles
	// Optional lets clients without a certificate in.
	Optional bool
	// NoStaple fetches no OCSP responses.
	NoStaple bool
	// TicketSecrets make the session tickets of nodes that have the same ones good on
	// all of them; the first is for new ones. None: tickets are good here only.
	TicketSecrets [][]byte
}

// A terminator is the TLS side of one listener. Its certificates and keys change
// while it is used.
type terminator struct {
	// Immutable.
	name    string // of the listener, for logs
	opts    TLS
	store   *cert.Store
	clients *cert.Clients // nil = none are asked for

	config atomic.Pointer[tls.Config]

	epoch int64 // of the ticket keys; owned by tend
}

// newTerminator reads everything that opts names.
func (s *Server) newTerminator(name string, opts TLS) (*terminator, error) {
	var stapler *cert.Stapler
	if !opts.NoStaple {
		stapler = s.stapler
	}
	t := &terminator{name: name, opts: opts}
	var errs []error
	var err error
	if t.store, err = cert.Open(opts.Certificates, stapler); err != nil {
		errs = append(errs, err)
	} else if opts.Source != nil {
		t.store.Use(opts.Source)
	}
	if opts.Clients != nil {
		if t.clients, err = cert.OpenClients(*opts.Clients); err != nil {
			errs = append(errs, err)
		}
	}
	switch t.opts.MinVersion = cmp.Or(opts.MinVersion, DefaultMinVersion); t.opts.MinVersion {
	case tls.VersionTLS12, tls.VersionTLS13:
	default:
		errs = append(errs, fmt.Errorf("TLS version %#x is not supported", opts.MinVersion))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if len(t.opts.TicketSecrets) == 0 {
		t.opts.TicketSecrets = [][]byte{s.secret[:]}
	}
	t.renew(time.Now())
	return t, nil
}

// renew puts a configuration with the newest authorities and ticket keys in force.
func (t *terminator) renew(now time.Time) {
	scope := []byte{0}
	c := &tls.Config{
		GetCertificate: t.store.GetCertificate,
		MinVersion:     t.opts.MinVersion,
		NextProtos:     []string{"h2", "http/1.1"},
		// Small records at the beginning save a client a moment and cost the server a
		// third more for large bodies.
		DynamicRecordSizingDisabled: true,
	}
	if t.clients != nil {
		scope = append([]byte{1}, t.clients.Scope()...)
		c.ClientAuth = tls.RequireAndVerifyClientCert
		if t.opts.Optional {
			scope[0], c.ClientAuth = 2, tls.VerifyClientCertIfGiven
		}
		c.ClientCAs = t.clients.Pool()
		c.VerifyConnection = t.clients.Verify
	}
	t.epoch = cert.Epoch(now)
	c.SetSessionTicketKeys(cert.Keys(t.opts.TicketSecrets, scope, now))
	t.config.Store(c)
}

// tend swaps what has changed on disk, and the ticket keys when it is time.
func (t *terminator) tend(s *Server, now time.Time) {
	swapped, err := t.store.Tend(now)
	for _, name := range swapped {
		s.opts.Log.Info("certificate swapped", "listener", t.name, "file", name)
	}
	if err != nil {
		s.metrics.certificates.Add(1)
		s.opts.Log.Error("certificate refused; the old one goes on", "listener", t.name, "error", err)
	}
	again := cert.Epoch(now) != t.epoch
	if t.clients != nil {
		changed, err := t.clients.Tend()
		if err != nil {
			s.metrics.certificates.Add(1)
			s.opts.Log.Error("client authorities refused; the old ones go on", "listener", t.name, "error", err)
		}
		again = again || changed
	}
	if again {
		t.renew(now)
	}
}

// serveTLS shakes hands and goes on with the protocol that was agreed on.
func (s *Server) serveTLS(ctx context.Context, c *forward.Conn[settings]) {
	config := c.Settings().tls.config.Load()
	stream, conn := forward.Secure(c.Stream, func(below net.Conn) *tls.Conn { return tls.Server(below, config) })
	stream.ReadWithin(c.Settings().times.Header)
	stream.WriteWithin(c.Settings().times.Header)
	err := conn.HandshakeContext(ctx)
	state := conn.ConnectionState()
	s.metrics.shaken(state, err)
	if err != nil {
		return
	}
	stream.ForgetDeadlines()
	c.Secured(stream)
	if state.NegotiatedProtocol == "h2" {
		s.serveHTTP2(ctx, c, nil)
		return
	}
	s.serveHTTP1(ctx, c)
}

// tendCertificates looks after the certificates of all listeners until ctx ends.
func (s *Server) tendCertificates(ctx context.Context) {
	ticker := time.NewTicker(tendEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, t := range *s.terminators.Load() {
				t.tend(s, now)
			}
			s.carrier.tend()
		}
	}
}

// fetchStaples gets OCSP responses until ctx ends. It may wait long for each.
func (s *Server) fetchStaples(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-timer.C:
			if err := s.stapler.Fetch(ctx, now); err != nil && ctx.Err() == nil {
				s.opts.Log.Warn("OCSP responses could not be fetched", "error", err)
			}
			timer.Reset(tendEvery)
		}
	}
}

// A CertificateState is one certificate of a listener.
type CertificateState struct {
	Listener string
	cert.State
}

// Certificates tells of every certificate that is served.
func (s *Server) Certificates() []CertificateState {
	var out []CertificateState
	for _, t := range *s.terminators.Load() {
		for _, c := range t.store.States() {
			out = append(out, CertificateState{t.name, c})
		}
	}
	return out
}

// newSecret returns a secret for tickets that nobody else takes.
func newSecret() (secret [32]byte) {
	rand.Read(secret[:]) // never fails
	return secret
}
