package l7

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"

	"github.com/pharos-lb/pharos/forward"
)

// nameOverflow says who connected to the node that hands a request on. From others it is not believed; whoever sends it, the
// request is not handed on again.
var nameOverflow = []byte("Pharos-Overflow")

var errStranger = errors.New("the other site's certificate has no key that we have")

// elsewhere is how the same listener of another site is spoken to. t is nil without TLS.
func elsewhere(l *Listener, t *terminator) forward.Elsewhere {
	e := forward.Elsewhere{AcceptProxy: l.AcceptProxy}
	if t != nil && t.store != nil {
		e.Transport = forward.Transport{
			Protocol: forward.HTTP1TLS, Fleet: true, Name: t.store.Name(), TLS13: t.opts.MinVersion == tls.VersionTLS13,
		}
	}
	return e
}

// verifyFleet verifies a node of another site.
func (c *carrier) verifyFleet(name string) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		leaf := state.PeerCertificates[0]
		for _, t := range *c.server.terminators.Load() {
			if t.store.Holds(leaf) {
				return nil
			}
		}
		options := x509.VerifyOptions{DNSName: name, Intermediates: x509.NewCertPool()}
		for _, other := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(other)
		}
		if name == "" {
			return errStranger
		}
		if _, err := leaf.Verify(options); err != nil {
			return fmt.Errorf("%w, nor is it known to be for %s: %w", errStranger, name, err)
		}
		return nil
	}
}

// A came is a request as it has come, before it is made ready for a backend.
type came struct {
	target, path, authority []byte
	fields                  int
	dropped                 [maxFields/64 + 1]uint64 // by field: what Connection names
}

func (w *work) came() came {
	r := &w.req
	c := came{target: r.target, path: r.path, authority: r.authority, fields: len(r.fields)}
	for i := range r.fields {
		if r.fields[i].drop {
			c.dropped[i/64] |= 1 << (i % 64)
		}
	}
	return c
}

// handOn makes the request what it was when it came, for another site's node, which routes and edits it by the same
// rules, and says who the client's end of the connection is.
func (w *work) handOn(c *came) {
	r := &w.req
	r.target, r.path, r.authority, r.fields = c.target, c.path, c.authority, r.fields[:c.fields]
	for i := range r.fields {
		f := &r.fields[i]
		f.drop = c.dropped[i/64]&(1<<(i%64)) != 0
		switch f.kind {
		case kindForwarded, kindForwardedFor, kindForwardedOther:
			f.kind = kindOther
		}
		if len(w.requestID) > 0 && is(f.name, w.set.requestIDLow) {
			f.drop = true
		}
	}
	start := len(w.arena)
	w.arena = w.ends.peer.AppendTo(w.arena)
	r.fields = append(r.fields, field{name: nameOverflow, value: w.arena[start:len(w.arena):len(w.arena)]})
	if len(w.requestID) > 0 {
		r.fields = append(r.fields, field{name: w.text(w.set.origin.RequestID), value: w.requestID})
	}
}

// welcome takes the word of another node of the fleet on whose request this is.
func (w *work) welcome() {
	if !w.server.registry.Load().Fleet(w.ends.via) {
		return
	}
	peer, err := netip.ParseAddrPort(string(w.req.handed))
	if err != nil {
		return
	}
	peer = netip.AddrPortFrom(peer.Addr().Unmap().WithZone(""), peer.Port())
	e := &ends{peer: peer, local: w.ends.local, from: peer.Addr().AppendTo(nil), to: w.ends.to, secure: w.ends.secure, via: w.ends.via}
	e.whom.Source, e.whom.Destination = e.peer, e.local
	w.guest, w.ends = e, e
}
