// Package l7 forwards HTTP requests to pools, by host, path and conditions (package route), and terminates TLS.
//
// One goroutine per client connection does everything: it reads and parses the
// head strictly, finds the route, borrows an upstream connection, sends the
// head on, and passes the answer back. Only a body that is not complete with
// its head, and a protocol that was upgraded to, take a second goroutine while
// they last.
//
// HTTP/2 (package h2) is read by the connection's goroutine; each stream is handled by one
// of its own. A request becomes the same request as one of HTTP/1, under the same
// rules: what differs between protocols is behind the interface downstream, and
// routes, retries and outcomes are written once.
//
// HTTP/3 is spoken by quic-go; what it lets through is made into fields again and held to the rules
// of HTTP/2. Over an upgrade, QUIC connections stay with their process (quicgroup.go).
//
// The way to a backend is an interface too, upstream: a connection of HTTP/1 that is the
// request's own for as long as it lasts, or a stream of a connection of HTTP/2 that many share (peers.go). A
// connection is made by one forward.Via and never used for another.
//
// # Strictness
//
// What could be read in two ways is refused with 400 and the connection is
// closed: Transfer-Encoding together with Content-Length, a repeated or odd
// Content-Length, any transfer coding but chunked (501), a bare LF, a folded
// line, control characters, a space before the colon, a missing, repeated or
// malformed Host, dot segments and bad escapes in the path, malformed chunks.
// The backend's answer is held to the same rules; what breaks them becomes 502,
// or ends the client's connection when part of the answer has been sent.
// Chunked bodies are decoded and chunked anew, so neither side's chunk
// extensions reach the other.
//
// # What is changed on the way
//
// Requests go upstream as HTTP/1.1 or HTTP/2 with the Host the client sent. Connection
// and what it names, Keep-Alive, TE (but "trailers"), Proxy-*, and Upgrade unless
// it is honoured, stay on their side. X-Forwarded-For gets the address of who connected
// appended to what came; only the last element is this hop's word.
// X-Forwarded-Host, -Port and -Proto are replaced, Forwarded is taken away; Origin says
// otherwise. An absolute-form target becomes origin-form and its authority replaces Host.
// Routes may rewrite host and path and edit fields. prepare does all that to the request
// itself, so that what writes it upstream has nothing to add.
//
// # Choosing and failing
//
// A request for which no connection
// can be made tries other backends; one that was sent on a connection that had
// died while idle is sent once more on a fresh one, if its method is idempotent
// and its body is at hand. 404 no route, 502 the backend broke the protocol or
// the connection, 503 no backend, 504 the backend was silent; the body says
// which in one line. A client that has ended its side while a backend thinks
// has gone: the backend's connection is aborted within a second.
//
// # TLS
//
// A listener with TLS shakes hands first; everything else is the same. Package cert
// has the certificates. An idle TLS connection holds no buffer.
//
// It never caches and never retries what a backend may have acted on. Reloads swap routes at once, for open
// connections too, and cut nothing.
//
//	s, err := l7.New(l7.Options{
//		Registry: registry,
//		Listeners: []l7.Listener{{
//			Address: netip.MustParseAddrPort("198.51.100.80:8080"),
//			Routes:  []l7.Route{{Host: "www.example.com", Path: "/", Service: "web"}},
//		}},
//	})
//	go s.Run(ctx)
package l7
