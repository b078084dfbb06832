// Package bfd notices within a second that a router, or the way to it, is gone: Bidirectional Forwarding Detection in
// asynchronous mode, for neighbours one hop away (RFC 5881) and further (RFC 5883).
//
// Session is the protocol of RFC 5880 and nothing else: a state machine that gets the time as an argument, starts no
// goroutine and touches no socket, so that its tests are tables. Server gives sessions their sockets: one to send and
// one to receive for each local address and kind of hop, packets that are due at about the same time in one system call,
// and one timer for all of them.
//
// The package never decides what a lost session means. Its caller, the BGP child, resets the BGP session of a neighbour
// whose BFD session failed (RFC 5882): Status.Failures counts those, so nobody has to catch an event.
//
//	s := bfd.New(bfd.Options{Log: log})
//	errs := s.Set([]bfd.Peer{{Key: bfd.Key{Remote: router, Local: self}, Interval: 300 * time.Millisecond, Multiplier: 3}})
//	go s.Run(ctx)
//	for range s.Changed() {
//		for _, st := range s.Status() { … }
//	}
//
// Not spoken: demand mode as the one who asks for it, the echo function, authentication, point-to-multipoint. Packets
// that carry authentication are dropped and counted.
package bfd
