package l7

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
)

// A Mode is what becomes of the fields that say where a request came from.
type Mode uint8

// The modes.
const (
	// ModeDefault is ModeAppend for X-Forwarded, ModeNone for Forwarded.
	ModeDefault Mode = iota
	// ModeAppend puts this hop's word behind what came.
	ModeAppend
	// ModeSet replaces what came by what is known here.
	ModeSet
	// ModeNone sends none, and drops what came.
	ModeNone
)

// Origin says who is believed about where requests come from, and what backends are told.
type Origin struct {
	// Trusted are proxies in front: what they say of the client is believed.
	Trusted []netip.Prefix
	// ByForwarded: they say it in Forwarded (RFC 7239), not in X-Forwarded-For.
	ByForwarded bool
	// XForwarded is for X-Forwarded-For, -Proto, -Host and -Port.
	XForwarded Mode
	// Forwarded is for Forwarded (RFC 7239).
	Forwarded Mode
	// RequestID is the field with the request's id, passed on and back: what a trusted
	// proxy sent in it, else a new one; "" = none.
	RequestID string
}

const (
	// maxHops is how many elements of a chain of proxies are looked at.
	maxHops = 64
	// maxRequestID is the longest request id that is taken over.
	maxRequestID = 128
)

var (
	nameForwarded      = []byte("Forwarded")
	nameForwardedFor   = []byte("X-Forwarded-For")
	nameForwardedHost  = []byte("X-Forwarded-Host")
	nameForwardedPort  = []byte("X-Forwarded-Port")
	nameForwardedProto = []byte("X-Forwarded-Proto")
	nameLocation       = []byte("Location")
	valueHTTP          = []byte("http")
	valueHTTPS         = []byte("https")
)

// addrPort is the address of one end; invalid if it is not TCP or UDP.
func addrPort(a net.Addr) netip.AddrPort {
	var out netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		out = a.AddrPort()
	case *net.UDPAddr:
		out = a.AddrPort()
	}
	return netip.AddrPortFrom(out.Addr().Unmap().WithZone(""), out.Port())
}

// identify finds out who the client is, and the id of the request.
func (w *work) identify(set *settings) {
	w.who = w.ends.peer.Addr()
	w.trusted = trusts(set.origin.Trusted, w.who)
	if w.trusted {
		if set.origin.ByForwarded {
			w.walk(set, kindForwarded)
		} else {
			w.walk(set, kindForwardedFor)
		}
	}
	if set.origin.RequestID != "" {
		w.identifyRequest(set)
	}
}

func trusts(trusted []netip.Prefix, a netip.Addr) bool {
	return len(trusted) > 0 && slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a) })
}

// walk goes back along the chain of proxies, from the nearest on, while they are
// trusted. One that is not is the client; so is the last that was understood before an
// element that says nothing.
func (w *work) walk(set *settings, kind kind) {
	hops := 0
	for i := len(w.req.fields) - 1; i >= 0; i-- {
		f := &w.req.fields[i]
		if f.kind != kind {
			continue
		}
		for list := f.value; len(list) > 0; {
			var item []byte
			item, list = lastItem(list)
			if kind == kindForwarded {
				item = forwardedFor(item)
			}
			a, ok := hopAddr(item)
			if hops++; !ok || hops > maxHops {
				return
			}
			w.who = a
			if !trusts(set.origin.Trusted, a) {
				return
			}
		}
	}
}

// lastItem cuts the last element off a comma-separated list, heeding quotes.
func lastItem(list []byte) (item, rest []byte) {
	quoted := false
	for i := len(list) - 1; i >= 0; i-- {
		switch list[i] {
		case '"':
			quoted = !quoted
		case ',':
			if !quoted {
				return trim(list[i+1:]), list[:i]
			}
		}
	}
	return trim(list), nil
}

// forwardedFor returns the node of an element's "for" (RFC 7239, 4); nil if it has none.
func forwardedFor(element []byte) []byte {
	for len(element) > 0 {
		var pair []byte
		pair, element, _ = bytes.Cut(element, []byte(";"))
		name, value, found := bytes.Cut(trim(pair), []byte("="))
		if found && is(name, "for") {
			if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
				value = value[1 : n-1]
			}
			return value
		}
	}
	return nil
}

// hopAddr reads "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]" or
// "[2001:db8::1]:80".
func hopAddr(item []byte) (netip.Addr, bool) {
	if len(item) == 0 || len(item) > 64 {
		return netip.Addr{}, false
	}
	text := string(item)
	if text[0] == '[' && text[len(text)-1] == ']' {
		text = text[1 : len(text)-1]
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		ap, err := netip.ParseAddrPort(text)
		if err != nil {
			return netip.Addr{}, false
		}
		a = ap.Addr()
	}
	return a.Unmap().WithZone(""), true
}

// identifyRequest takes over the request's id from a trusted proxy, or makes one.
func (w *work) identifyRequest(set *settings) {
	if w.trusted || w.guest != nil {
		if id, next := w.req.Field(set.requestIDLow, 0); next > 0 && isRequestID(id) {
			start := len(w.arena) // what the client sent may be written over while its body comes
			w.arena = append(w.arena, id...)
			w.requestID = w.arena[start:len(w.arena):len(w.arena)]
			return
		}
	}
	var raw [16]byte
	a, b := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		raw[i], raw[8+i] = byte(a>>(8*i)), byte(b>>(8*i))
	}
	start := len(w.arena)
	w.arena = hex.AppendEncode(w.arena, raw[:])
	w.requestID = w.arena[start:len(w.arena):len(w.arena)]
}

// isRequestID reports whether an id can be written to logs and headers as it is.
func isRequestID(id []byte) bool {
	if len(id) == 0 || len(id) > maxRequestID {
		return false
	}
	for _, c := range id {
		if !in(c, tokenLow, tokenHigh) && c != '/' && c != ':' && c != '=' && c != '@' {
			return false
		}
	}
	return true
}

// scheme is what the client asked by, as far as is known.
func (w *work) scheme() []byte {
	if w.trusted {
		if v := w.told("x-forwarded-proto"); is(v, "http") || is(v, "https") {
			return v
		}
	}
	if w.ends.secure {
		return valueHTTPS
	}
	return valueHTTP
}

// told returns what a field of the client's says, nil if it is not there.
func (w *work) told(name string) []byte {
	v, _ := w.req.Field(name, 0)
	return v
}

// addForwarded adds the fields that say where the request came from, in the place of
// those that came, and the request's id. asked is the authority before it was rewritten.
func (w *work) addForwarded(set *settings, asked []byte) {
	r := &w.req
	came := len(r.fields)
	if mode := set.origin.XForwarded; mode != ModeNone {
		r.fields = append(r.fields,
			field{name: nameForwardedFor, value: w.chain(mode, came)},
			field{name: nameForwardedProto, value: w.scheme()})
		host, port := asked, []byte(nil)
		if w.trusted {
			if v := w.told("x-forwarded-host"); len(v) > 0 {
				host = v
			}
			port = w.told("x-forwarded-port")
		}
		if len(host) > 0 {
			r.fields = append(r.fields, field{name: nameForwardedHost, value: host})
		}
		if len(port) == 0 {
			port = w.ends.to[bytes.LastIndexByte(w.ends.to, ':')+1:]
		}
		r.fields = append(r.fields, field{name: nameForwardedPort, value: port})
	}
	if set.origin.Forwarded != ModeNone {
		r.fields = append(r.fields, field{name: nameForwarded, value: w.element(set.origin.Forwarded, came, asked)})
	}
	if len(w.requestID) > 0 {
		for i := range came {
			if f := &r.fields[i]; is(f.name, set.requestIDLow) {
				f.drop = true
			}
		}
		r.fields = append(r.fields, field{name: w.text(set.origin.RequestID), value: w.requestID})
	}
}

// chain is the value of X-Forwarded-For.
func (w *work) chain(mode Mode, came int) []byte {
	if mode == ModeSet {
		if w.who == w.ends.peer.Addr() {
			return w.ends.from
		}
		start := len(w.arena)
		w.arena = w.who.AppendTo(w.arena)
		return w.arena[start:len(w.arena):len(w.arena)]
	}
	start := len(w.arena)
	for i := range w.req.fields[:came] {
		if f := &w.req.fields[i]; f.kind == kindForwardedFor && len(f.value) > 0 {
			w.arena = append(append(w.arena, f.value...), ',', ' ')
		}
	}
	if len(w.arena) == start {
		return w.ends.from
	}
	w.arena = append(w.arena, w.ends.from...)
	return w.arena[start:len(w.arena):len(w.arena)]
}

// element is the value of Forwarded (RFC 7239).
func (w *work) element(mode Mode, came int, asked []byte) []byte {
	start := len(w.arena)
	out := w.arena
	who := w.ends.peer.Addr()
	if mode == ModeAppend {
		for i := range w.req.fields[:came] {
			if f := &w.req.fields[i]; f.kind == kindForwarded && len(f.value) > 0 {
				out = append(append(out, f.value...), ',', ' ')
			}
		}
	} else {
		who = w.who
	}
	out = append(out, "for="...)
	if who.Is6() {
		out = append(out, `"[`...)
		out = who.AppendTo(out)
		out = append(out, `]"`...)
	} else {
		out = who.AppendTo(out)
	}
	if len(asked) > 0 {
		out = append(append(append(out, `;host="`...), asked...), '"') // a host has neither quotes nor backslashes
	}
	out = append(append(out, ";proto="...), w.scheme()...)
	w.arena = out
	return out[start:len(out):len(out)]
}
