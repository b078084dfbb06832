// Package transport moves DNS messages between sockets and a [Responder].
//
// It owns sockets and limits and nothing else: it does not look into a message
// beyond the length that frames it over TCP (RFC 7766). UDP sockets of one
// address share it with SO_REUSEPORT, one goroutine each and no hand-off in
// between; several processes may share it too. Each takes and sends datagrams in
// batches, on a thread of its own that waits only while its socket is empty. Replies leave from the address that was asked, wildcard
// sockets included.
//
// TCP connections are carried by a few goroutines, each with an epoll of its own: a
// connection has no goroutine, no deadlines and, while it is silent, no buffers.
// Connections are bounded in number, in idle time, in the time to send a message and in
// the time to take one.
//
// Package dnslb is its only caller.
//
//	sockets, err := transport.ListenUDP(addr, 2)
//	...
//	go sockets[0].Serve(responder)
//	...
//	sockets[0].Stop()
package transport
