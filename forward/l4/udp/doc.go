// Package udp forwards datagrams to the pool of a service, blind to what they
// carry.
//
// A session is what one client address and port sends to one of ours. It has a
// backend, chosen as the first datagram arrives (by hash, so that every node
// chooses the same), and a socket of its own towards it; it ends when it has been
// silent for the listener's Idle, when it has had the answers that the listener
// expects, or as the oldest when there are too many. Each shard is one goroutine
// with an epoll and with sockets of its own; clients' datagrams are taken and
// answered in batches (recvmmsg, sendmmsg). On wildcard addresses answers leave
// from the address that was asked.
//
// For QUIC a listener may know where in connection IDs servers write their
// number: a client that changes its address then stays with its backend.
//
// With Listener.Offload the kernel carries sessions that prove to be worth it
// (package offload); their sockets stay, for whatever it leaves to them.
//
// It never judges health and never repeats a datagram. The node builds it, runs
// it and reloads it, as package l4.
package udp
