package forward

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/forward/proxyproto"
)

// A Protocol is what HTTP requests go to a backend in.
type Protocol uint8

// The protocols.
const (
	HTTP1    Protocol = iota // HTTP/1.1
	HTTP1TLS                 // HTTP/1.1 over TLS
	H2                       // HTTP/2 over TLS
	H2C                      // HTTP/2 without TLS, by prior knowledge
	protocolCount
)

var protocolTexts = [protocolCount]string{"http", "https", "h2", "h2c"}

// String returns the word that the configuration uses.
func (p Protocol) String() string {
	if p < protocolCount {
		return protocolTexts[p]
	}
	return "unknown"
}

// ParseProtocol reads what String writes; "" is HTTP1.
func ParseProtocol(text string) (Protocol, error) {
	if text == "" {
		return HTTP1, nil
	}
	for i, word := range protocolTexts {
		if word == text {
			return Protocol(i), nil
		}
	}
	return 0, fmt.Errorf("no protocol %q", text)
}

// A Transport is how the backends of a service are spoken to, in words. It is part of a connection's
// identity: one that was made by another Transport is never used. The zero Transport is plain HTTP/1.1.
type Transport struct {
	Protocol Protocol
	// Name is the TLS server name that is asked for and verified; "" = the backend's address.
	Name string
	// CA is the file with the authorities that the backend is verified by; "" = the system's.
	CA string
	// Certificate and Key are the files of the client certificate; "" = none.
	Certificate, Key string
	// Insecure: the backend's certificate is not verified.
	Insecure bool
	// Fleet: the other end is a node of the fleet. It is verified by having the key of a certificate that a listener
	// here has too, or else by Name and the system's authorities.
	Fleet bool
	// TLS13: an older version than 1.3 is not spoken.
	TLS13 bool
	// SendProxy is the version of the PROXY header that connections begin with; 0 = none.
	// Such a connection carries the requests of one client connection.
	SendProxy int
}

// TLS reports whether it speaks TLS.
func (t *Transport) TLS() bool { return t.Protocol == HTTP1TLS || t.Protocol == H2 }

// Shared reports whether a connection carries many units of work at a time.
func (t *Transport) Shared() bool { return t.Protocol == H2 || t.Protocol == H2C }

// A Via is one edition of a backend's Transport. It is another one whenever the Transport has
// changed, or the files that it names have.
type Via struct {
	Transport

	once sync.Once
	made any
}

// Made returns what make made when it was first called for v.
func (v *Via) Made(make func() any) any {
	v.once.Do(func() { v.made = make() })
	return v.made
}

// A Client is whom a connection to a backend speaks for, where it says so (SendProxy).
type Client struct {
	// Source is the client, Destination the address that it connected to.
	Source, Destination netip.AddrPort
	// Authority is the server name of its TLS hello, ALPN the protocol agreed on; "" = none.
	Authority, ALPN string

	gone atomic.Bool
}

// Gone says that it has nothing more to ask: idle connections that speak for it are closed.
func (c *Client) Gone() { c.gone.Store(true) }

// HasGone reports whether Gone was called.
func (c *Client) HasGone() bool { return c.gone.Load() }

// A Carrier makes of connections what a Transport asks for beyond TCP and the PROXY header. Any
// number of goroutines use it.
type Carrier interface {
	// Secure makes plain, just opened to b, speak TLS. If it fails it closes plain.
	Secure(ctx context.Context, b *Backend, via *Via, plain *Stream) (*Stream, error)
	// Join finds room on a connection that is shared, or opens one by b.Open. client is nil unless via sends
	// PROXY headers. reused: the connection has been there before.
	Join(ctx context.Context, b *Backend, via *Via, client *Client, terms Terms) (joined any, reused bool, err error)
}

var errNoCarrier = errors.New("nobody here speaks what the backend does")

// Via returns how the newest plan has the backend spoken to.
func (b *Backend) Via() *Via { return b.via.Load() }

// setVia puts a Transport in force.
func (b *Backend) setVia(t Transport) {
	if v := b.via.Load(); v == nil || v.Transport != t {
		b.via.Store(&Via{Transport: t})
		b.idle.closeAll()
	}
}

// Renew makes connections by Transports that match says yes to anew: what they were made with has changed.
func (r *Registry) Renew(match func(Transport) bool) {
	for _, b := range r.list() {
		if v := b.via.Load(); match(v.Transport) && b.via.CompareAndSwap(v, &Via{Transport: v.Transport}) {
			b.idle.closeAll()
		}
	}
}

// Open opens a connection to b, within terms.Connect, and notes the result. client is whom the PROXY header tells of.
func (b *Backend) Open(ctx context.Context, via *Via, client *Client, terms Terms) (*Stream, error) {
	s, err := b.open(ctx, via, client, terms)
	if err != nil {
		if ctx.Err() == nil { // otherwise it is we who gave up
			b.Failed(err)
		}
		return nil, fmt.Errorf("connect to backend %s: %w", b.text, err)
	}
	b.Opened()
	return s, nil
}

// introduce writes the PROXY header.
func (s *Stream) introduce(version int, client *Client, within time.Duration) error {
	var space [256]byte
	b := space[:0]
	var from, to netip.AddrPort
	if client != nil {
		from, to = client.Source, client.Destination
	}
	if version == 1 {
		b = proxyproto.AppendLine(b, from, to)
	} else {
		var tlvs []proxyproto.TLV
		if client != nil && client.Authority != "" {
			tlvs = append(tlvs, proxyproto.TLV{Type: proxyproto.TypeAuthority, Value: []byte(client.Authority)})
		}
		if client != nil && client.ALPN != "" {
			tlvs = append(tlvs, proxyproto.TLV{Type: proxyproto.TypeALPN, Value: []byte(client.ALPN)})
		}
		b = proxyproto.AppendBinary(b, from, to, tlvs, true)
	}
	s.WriteWithin(within)
	_, err := s.Write(b)
	return err
}
