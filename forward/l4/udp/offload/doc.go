// Package offload carries the datagrams of established UDP sessions in the
// kernel, past the sockets (Linux 6.6 and newer).
//
// A [Lane] is a program that sees what arrives at this machine's interfaces (TCX),
// and a map with two entries for each session: what the client sends gets the
// session's own port as its source and the backend as its destination, what the
// backend answers the listener's address and the client. What is for this machine
// then goes on up, the rest goes out at once. A datagram that the program does not
// know, or cannot carry whole, goes to the sockets as if there were no program.
//
// It decides nothing: package udp begins sessions, enters those that prove to be
// worth it, and ends them. It pins nothing: when the process ends, however it does,
// the kernel takes the program away, and everything is with the sockets again.
// Whatever changes in the machine's routes, addresses and links, or is said of the
// size of packets by routers, empties the map; sessions are entered anew by their
// next datagrams.
package offload
