// Package l4 forwards TCP connections to the pool of a service, blind to what
// they carry.
//
// Each shard is one goroutine with an epoll and with listening sockets of its
// own, which the kernel spreads connections over; it carries a connection from
// accept to close with raw, non-blocking system calls (decision 0015). Bytes are
// copied through the shard's one buffer, and moved inside the kernel (splice)
// once a flow proves to be bulky. A silent connection holds two descriptors and
// a few hundred bytes. The end of one direction is passed on and the other goes
// on. A connection ends when both directions have ended, when one end breaks
// (the other then sees a reset), or when a limit of its listener says so: every
// such end is counted with its reason (drops.go).
//
// The backend is picked from the newest plan when the connection arrives; one
// that cannot be connected to is replaced by another. With no backend to give,
// the client is reset at once. Connections are never moved because a plan or a
// configuration changed, and cut only where Listener.BackendGone says so.
//
// It looks at a connection's first bytes where a listener asks for that: a PROXY
// header from trusted sources, which it consumes, and a TLS hello, which it
// leaves to the backend. It never resolves names, never judges health and never
// terminates TLS. The node builds it, runs it and reloads it:
//
//	s, err := l4.New(l4.Options{
//		Registry: registry,
//		Listeners: []l4.Listener{{Address: netip.MustParseAddrPort("198.51.100.80:5432"), Service: "db"}},
//	})
//	go s.Run(ctx)
//	change, err := s.Prepare(newListeners) // binds what is new
//	change.Commit()                        // or Discard
package l4
