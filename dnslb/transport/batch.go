package transport

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of a batch. Queries are not a power of two apart: their first lines
// would compete for the same few places of the processor's cache.
const (
	BatchWidth  = 32
	queryStride = queryBuffer + 192
	replySpace  = 4 * replyBuffer // replies are packed: this holds a batch of usual ones
)

// A batch is what one recvmmsg(2) fills and what sendmmsg(2) sends in return.
// It belongs to one goroutine and allocates nothing after newBatch. It must not
// move, as the kernel gets pointers into it.
type batch struct {
	received, replies [BatchWidth]unix.Mmsghdr
	into, from        [BatchWidth]unix.Iovec
	clients           [BatchWidth]unix.RawSockaddrInet6 // of either family
	control           [BatchWidth][controlSpace]byte
	in, out           []byte
	filled            int // entries of received that the kernel has written to
	queries           [BatchWidth][]byte
	pending, used     int // replies to be sent, octets of out that they take
	source            bool

	// transmit is sendmmsg, or a test's stand-in.
	transmit func(fd int, first *unix.Mmsghdr, n int) (int, unix.Errno)
}

// newBatch makes a batch; with source, replies leave from the address that the
// query was sent to.
func newBatch(source bool) *batch {
	b := &batch{
		in:       make([]byte, BatchWidth*queryStride),
		out:      make([]byte, replySpace),
		source:   source,
		filled:   BatchWidth,
		transmit: sendmmsg,
	}
	for i := range b.received {
		b.into[i].Base = &b.in[i*queryStride]
		b.into[i].SetLen(queryBuffer)
		h := &b.received[i].Hdr
		h.Iov, h.Iovlen = &b.into[i], 1
		h.Name = (*byte)(unsafe.Pointer(&b.clients[i]))
		if source {
			h.Control = &b.control[i][0]
		}
		b.replies[i].Hdr.Iov, b.replies[i].Hdr.Iovlen = &b.from[i], 1
	}
	return b
}

// receive takes what the socket holds, at most BatchWidth datagrams. With wait it waits for the first, for as long as the
// socket's SO_RCVTIMEO says; the scheduler is not told.
func (b *batch) receive(fd int, wait bool) (int, unix.Errno) {
	flags := uintptr(unix.MSG_DONTWAIT)
	if wait {
		flags = unix.MSG_WAITFORONE
	}
	for i := range b.received[:b.filled] { // it has replaced the room that there is by what it took
		h := &b.received[i].Hdr
		h.Namelen = unix.SizeofSockaddrInet6
		if b.source {
			h.SetControllen(controlSpace)
		}
	}
	b.filled = 0
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.received[0])),
		BatchWidth, flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	b.filled = int(n)
	return b.filled, 0
}

// prefetch shows r the first n datagrams, if it wants to see them.
func (b *batch) prefetch(n int, r Responder) {
	p, ok := r.(Prefetcher)
	if !ok {
		return
	}
	for i := range n {
		b.queries[i] = b.query(i)
	}
	p.Prefetch(b.queries[:n])
}

// query is the ith datagram.
func (b *batch) query(i int) []byte {
	return b.in[i*queryStride:][:min(b.received[i].Len, queryBuffer)]
}

// answer makes the reply to the ith datagram. There must be room.
func (b *batch) answer(i int, r Responder) {
	m := &b.received[i]
	client, ok := addrPort(&b.clients[i])
	if !ok {
		return
	}
	reply := r.Respond(b.out[b.used:b.used:b.used+replyBuffer], b.query(i), client, false)
	if len(reply) == 0 {
		return
	}
	b.used += min(len(reply), replyBuffer)
	b.from[b.pending].Base = &reply[0]
	b.from[b.pending].SetLen(len(reply))
	h := &b.replies[b.pending].Hdr
	h.Name, h.Namelen = m.Hdr.Name, m.Hdr.Namelen
	if b.source {
		h.Control, h.Controllen = nil, 0
		if source := replySource(b.control[i][:m.Hdr.Controllen]); source != nil {
			h.Control = &source[0]
			h.SetControllen(len(source))
		}
	}
	b.pending++
}

// room reports whether another reply fits.
func (b *batch) room() bool { return b.used+replyBuffer <= len(b.out) }

// send sends the replies. What cannot be sent is given up and told to r.
func (b *batch) send(fd int, r Responder) {
	r.Flush()
	waited := false
	for next := 0; next < b.pending; {
		sent, errno := b.transmit(fd, &b.replies[next], b.pending-next)
		switch {
		case errno == 0:
			next += sent
			waited = false
		case errno == unix.EINTR:
		case errno == unix.EAGAIN && !waited: // the network is slower than we are
			waited = true
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, sendWait)
		case errno == unix.EAGAIN:
			for ; next < b.pending; next++ {
				r.Lost()
			}
		default: // speaks of the first of them only
			r.Lost()
			next++
		}
	}
	b.pending, b.used = 0, 0
}

func sendmmsg(fd int, first *unix.Mmsghdr, n int) (int, unix.Errno) {
	sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(first)),
		uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	return int(sent), errno
}

// addrPort reads the address of a client. An IPv6 zone is left out: nobody is
// steered by it, and the reply goes to the address as the kernel gave it.
func addrPort(sa *unix.RawSockaddrInet6) (netip.AddrPort, bool) {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	switch sa.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port), true
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), port), true
	}
	return netip.AddrPort{}, false
}
