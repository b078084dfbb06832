// Package h2 is one HTTP/2 connection, of a server or of a client (RFC 9113): frames,
// flow control, streams and their limits. It knows nothing of routes and messages:
// what a field means is for the caller, package l7.
//
// Run reads frames on the caller's goroutine, which never waits in a write: two peers of which each reads only when it
// has written all would wait for each other. A Stream may be used by one goroutine
// that receives and one that sends. What is sent goes into the connection's one
// buffer; whoever finds nobody writing writes for all, so that what many streams
// send becomes few records and few system calls. Field blocks are encoded without the
// dynamic table: that needs no lock and no memory for each connection, and costs some
// bytes on the wire.
//
// A peer that makes work for nothing is told ENHANCE_YOUR_CALM and left (ErrFlood): streams
// that are reset as fast as they are opened, floods of SETTINGS, PING, empty or PRIORITY
// frames, answers that it does not read. Streams that are reset count as open until their handler has returned.
// Field blocks have a limit over all CONTINUATION frames, of bytes, of frames and (Options.Head) of time.
//
//	c := h2.New(stream, nil, h2.Options{Serve: func(s *h2.Stream) { … }})
//	err := c.Run()
package h2
