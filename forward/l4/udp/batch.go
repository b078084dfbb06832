package udp

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	width        = 32       // datagrams that one system call takes or sends
	slotSize     = 64 << 10 // the longest datagram
	controlSpace = 64
)

// A batch is room for datagrams, their addresses and control messages. It must
// not move: the kernel gets pointers into it. Pages are taken as they are used.
type batch struct {
	headers [width]unix.Mmsghdr
	vectors [width]unix.Iovec
	names   [width]unix.RawSockaddrInet6
	control [width][controlSpace]byte
	data    []byte
	used    int
}

func newBatch() *batch {
	b := &batch{data: make([]byte, width*slotSize)}
	for i := range b.headers {
		b.vectors[i].Base = &b.data[i*slotSize]
		b.headers[i].Hdr.Iov, b.headers[i].Hdr.Iovlen = &b.vectors[i], 1
	}
	return b
}

func (b *batch) slot(i int) []byte { return b.data[i*slotSize : (i+1)*slotSize] }

// receive takes what a socket holds into the slots that are free. named asks for
// the senders, and for the control messages.
func (b *batch) receive(fd int32, named bool) (int, unix.Errno) {
	for i := b.used; i < width; i++ {
		h := &b.headers[i].Hdr
		b.vectors[i].SetLen(slotSize)
		h.Name, h.Namelen, h.Control = nil, 0, nil
		h.SetControllen(0)
		if named {
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names[i])), unix.SizeofSockaddrInet6
			h.Control = &b.control[i][0]
			h.SetControllen(controlSpace)
		}
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[b.used])),
		uintptr(width-b.used), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// address makes what is in slot i go to a client, from the address that source says.
func (b *batch) address(i int, s *session) {
	h := &b.headers[i].Hdr
	b.vectors[i].SetLen(int(b.headers[i].Len))
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.name)), s.nameLen
	h.Control = nil
	h.SetControllen(0)
	if n := len(s.source); n > 0 {
		h.Control = &b.control[i][0]
		h.SetControllen(copy(b.control[i][:], s.source))
	}
}

// send sends the filled slots and returns how many could not be.
func (b *batch) send(fd int32) (lost int) {
	for next := 0; next < b.used; {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[next])),
			uintptr(b.used-next), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			next += int(n)
		case unix.EINTR:
		case unix.EAGAIN: // the network is slower than we are: what UDP does then is drop
			lost += b.used - next
			next = b.used
		default: // speaks of the first of them only
			lost++
			next++
		}
	}
	b.used = 0
	return lost
}

// replySource turns the control message that came with a datagram into the one
// that makes an answer leave from the address that was asked; nil if there is none.
func replySource(oob []byte) []byte {
	if len(oob) < unix.SizeofCmsghdr {
		return nil
	}
	level := int32(binary.NativeEndian.Uint32(oob[unix.SizeofCmsghdr-8:]))
	kind := int32(binary.NativeEndian.Uint32(oob[unix.SizeofCmsghdr-4:]))
	data := oob[unix.CmsgLen(0):]
	switch {
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		clear(data[:4]) // the way out is routing's business
		copy(data[4:8], data[8:12])
		return oob[:unix.CmsgSpace(unix.SizeofInet4Pktinfo)]
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		if linkLocal := data[0] == 0xfe && data[1]&0xc0 == 0x80; !linkLocal {
			clear(data[16:20])
		}
		return oob[:unix.CmsgSpace(unix.SizeofInet6Pktinfo)]
	}
	return nil
}

// asked returns the bytes of the address in a control message of replySource.
func asked(source []byte) (a [16]byte) {
	if len(source) == 0 {
		return a
	}
	data := source[unix.CmsgLen(0):]
	if len(source) == unix.CmsgSpace(unix.SizeofInet4Pktinfo) {
		copy(a[12:], data[4:8])
		return a
	}
	copy(a[:], data[:16])
	return a
}
