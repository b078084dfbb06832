package l4

import (
	"errors"
	"slices"

	"github.com/pharos-lb/pharos/forward/hello"
	"github.com/pharos-lb/pharos/forward/proxyproto"
	"golang.org/x/sys/unix"
)

// A greeting is what a client has said of itself before its bytes are relayed.
type greeting struct {
	service   string // chosen by the hello; "" = the listener's
	name      string
	protocols []string
	tlvs      []byte // of the PROXY header that came, copied
	headed    bool   // the PROXY header has been read
}

// awaitsHeader reports whether the flow still has to begin with a PROXY header.
func (f *flow) awaitsHeader() bool {
	return f.trusted && (f.hello == nil || !f.hello.headed)
}

// greet looks at what the client sends first, as often as more of it comes, and
// connects to a backend when it knows to which. The hello stays where it is, in
// the kernel.
func (s *shard) greet(f *flow) {
	if !f.client.readable {
		return
	}
	if f.hello == nil {
		f.hello = new(greeting)
	}
	if f.suspect {
		if !s.clear(f) || f.suspect {
			return
		}
	}
	n, errno := peek(f.client.fd, s.buffer)
	switch {
	case errno == unix.EAGAIN:
		f.client.readable = false
		return
	case errno != 0:
		s.abandon(f, dropClientGone)
		return
	}
	if f.awaitsHeader() {
		if !s.readHeader(f, s.buffer[:n]) {
			return
		}
		if f.set.routes == nil {
			s.open(f, f.set.Service)
			return
		}
		if n, errno = peek(f.client.fd, s.buffer); errno == unix.EAGAIN {
			f.client.readable = false
			return
		}
	}
	s.readHello(f, s.buffer[:max(n, 0)])
}

// readHeader reads and consumes the PROXY header. It reports whether the flow may go on.
func (s *shard) readHeader(f *flow, b []byte) bool {
	h, size, err := proxyproto.Parse(b)
	switch {
	case errors.Is(err, proxyproto.ErrIncomplete) && (f.client.hup || len(b) == 0):
		s.abandon(f, dropProxyCut)
		return false
	case errors.Is(err, proxyproto.ErrIncomplete):
		return false // the rest is an event of its own
	case err != nil:
		s.abandon(f, dropProxyInvalid)
		return false
	}
	f.hello.tlvs = slices.Clone(h.TLVs)
	if n, errno := read(f.client.fd, s.buffer[:size]); errno != 0 || n != size {
		s.abandon(f, dropClientGone)
		return false
	}
	f.hello.headed = true
	f.began = s.now
	s.timers.set(f, s.now+int64(f.set.Hello))
	if h.Local {
		return true
	}
	f.from = f.peer.Addr()
	f.peer, f.local = h.Source, h.Destination
	tracked, why := f.set.enter(h.Source.Addr(), s.now)
	if why != dropNone {
		s.abandon(f, why)
		return false
	}
	if tracked {
		f.source = h.Source.Addr()
	}
	return true
}

// readHello finds the service for the hello and connects to it.
func (s *shard) readHello(f *flow, b []byte) {
	h, err := hello.Parse(b)
	service := ""
	switch {
	case errors.Is(err, hello.ErrIncomplete) && (f.client.hup || len(b) == 0):
		s.abandon(f, dropHelloCut)
		return
	case errors.Is(err, hello.ErrIncomplete) && len(b) < len(s.buffer):
		return
	case errors.Is(err, hello.ErrNotTLS) && f.set.Service != "":
		service = f.set.Service
	case err != nil:
		s.abandon(f, dropHelloInvalid)
		return
	default:
		f.hello.name, f.hello.protocols = h.ServerName, h.Protocols
		service = f.set.routes.find(h.ServerName, h.Protocols)
		if service == "" {
			service = f.set.Service
		}
	}
	if service == "" {
		s.abandon(f, dropNoRoute)
		return
	}
	s.open(f, service)
}

// clear makes sure that a client that is not trusted with a PROXY header does not
// begin with one: behind us somebody might believe it. It reports whether the
// flow still is and may move; while what came could become one it waits.
func (s *shard) clear(f *flow) bool {
	var first [16]byte
	n, errno := peek(f.client.fd, first[:])
	switch {
	case errno == unix.EAGAIN:
		f.client.readable = false
		return f.phase == phaseRelaying
	case errno != 0 || n == 0:
		f.suspect = false // the relay finds out the rest
		return true
	}
	yes, maybe := proxyproto.Starts(first[:n])
	switch {
	case yes:
		s.abandon(f, dropProxySpoofed)
		return false
	case maybe && !f.client.hup:
		f.client.readable = false
		return f.phase == phaseRelaying // the backend may speak meanwhile
	}
	f.suspect = false
	return true
}

// proxyHeader is what a connection to a backend begins with.
func (s *shard) proxyHeader(f *flow, version ProxyVersion) *chunk {
	c := s.chunk()
	b := c.data[:0]
	if version == Proxy1 {
		b = proxyproto.AppendLine(b, f.peer, f.local)
	} else {
		b = proxyproto.AppendBinary(b, f.peer, f.local, f.hello.fields(), true)
	}
	c.start, c.end = 0, len(b)
	return c
}

// fields are the TLVs that a backend is told: what came with the client's header,
// and what its hello says.
func (g *greeting) fields() []proxyproto.TLV {
	if g == nil {
		return nil
	}
	var out []proxyproto.TLV
	said := make(map[byte]bool)
	proxyproto.Each(g.tlvs, func(kind byte, value []byte) {
		if kind != proxyproto.TypeCRC32C && kind != proxyproto.TypeNoop {
			said[kind] = true
			out = append(out, proxyproto.TLV{Type: kind, Value: value})
		}
	})
	if g.name != "" && !said[proxyproto.TypeAuthority] {
		out = append(out, proxyproto.TLV{Type: proxyproto.TypeAuthority, Value: []byte(g.name)})
	}
	// The protocol that is spoken is known only if there is just one to choose.
	if len(g.protocols) == 1 && !said[proxyproto.TypeALPN] {
		out = append(out, proxyproto.TLV{Type: proxyproto.TypeALPN, Value: []byte(g.protocols[0])})
	}
	return out
}
