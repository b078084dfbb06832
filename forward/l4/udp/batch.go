package udp

import (
	"encoding/binary"
	"unsafe"

	"github.com/pharos-lb/pharos/forward/l4/kernel"
	"golang.org/x/sys/unix"
)

const (
	width    = 32       // messages that one system call takes or sends
	slotSize = 64 << 10 // the longest message: a datagram, or several of one length (UDP_GRO)
	// controlSpace has room for where a message was sent to (IPV6_PKTINFO) and for the length of its datagrams.
	controlSpace = 64
)

// A batch is room for messages, their addresses and control messages. It must
// not move: the kernel gets pointers into it. Pages are taken as they are used.
type batch struct {
	headers [width]unix.Mmsghdr
	vectors [width]unix.Iovec
	names   [width]kernel.RawAddr
	control [width][controlSpace]byte
	armed   [width]bool // ready to be received into
	data    []byte
	named   bool // whoever sends is to be told
	used    int  // slots that hold something
}

func newBatch(named bool) *batch {
	b := &batch{data: make([]byte, width*slotSize), named: named}
	for i := range b.headers {
		b.vectors[i].Base = &b.data[i*slotSize]
		b.headers[i].Hdr.Iov, b.headers[i].Hdr.Iovlen = &b.vectors[i], 1
	}
	return b
}

// message returns what slot i holds.
func (b *batch) message(i int) []byte {
	return b.data[i*slotSize:][:min(int(b.headers[i].Len), slotSize)]
}

// arm makes a slot ready to be received into.
func (b *batch) arm(i int) {
	h := &b.headers[i].Hdr
	b.vectors[i].SetLen(slotSize)
	h.Name, h.Namelen = nil, 0
	if b.named {
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names[i])), unix.SizeofSockaddrInet6
	}
	h.Control = &b.control[i][0]
	h.SetControllen(controlSpace)
	b.armed[i] = true
}

// receive takes what a socket holds, at most so many messages, into the slots after used.
func (b *batch) receive(fd int32, most int) (int, unix.Errno) {
	most = min(most, width-b.used)
	for i := b.used; i < b.used+most; i++ {
		if !b.armed[i] {
			b.arm(i)
		}
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[b.used])),
		uintptr(most), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	for i := b.used; i < b.used+int(n); i++ {
		b.armed[i] = false
	}
	return int(n), 0
}

// told returns what the kernel says of a message that was received: the control
// message with which an answer leaves from the address that was asked, nil if there is
// none, and the length of the datagrams that it is made of, 0 if it is one.
func (b *batch) told(i int) (source []byte, segment int) {
	oob := b.control[i][:min(int(b.headers[i].Hdr.Controllen), controlSpace)]
	for len(oob) >= unix.SizeofCmsghdr {
		size := int(binary.NativeEndian.Uint64(oob))
		level := int32(binary.NativeEndian.Uint32(oob[unix.SizeofCmsghdr-8:]))
		kind := int32(binary.NativeEndian.Uint32(oob[unix.SizeofCmsghdr-4:]))
		if size < unix.SizeofCmsghdr || size > len(oob) {
			break
		}
		switch data := oob[unix.CmsgLen(0):size]; {
		case level == unix.SOL_UDP && kind == unix.UDP_GRO && len(data) >= 4:
			segment = int(int32(binary.NativeEndian.Uint32(data)))
			if segment < 0 || segment >= int(b.headers[i].Len) {
				segment = 0
			}
		case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			clear(data[:4]) // the way out is routing's business
			copy(data[4:8], data[8:12])
			source = oob[:min(unix.CmsgSpace(unix.SizeofInet4Pktinfo), len(oob))]
		case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			if linkLocal := data[0] == 0xfe && data[1]&0xc0 == 0x80; !linkLocal {
				clear(data[16:20])
			}
			source = oob[:min(unix.CmsgSpace(unix.SizeofInet6Pktinfo), len(oob))]
		}
		oob = oob[min(unix.CmsgSpace(size-unix.SizeofCmsghdr), len(oob)):]
	}
	return source, segment
}

// asked returns the bytes of the address in a control message that told has returned.
func asked(source []byte) (a [16]byte) {
	switch {
	case len(source) == 0:
	case len(source) == unix.CmsgSpace(unix.SizeofInet4Pktinfo):
		data := source[unix.CmsgLen(0):]
		copy(a[10:], []byte{0xff, 0xff, data[4], data[5], data[6], data[7]})
	default:
		copy(a[:], source[unix.CmsgLen(0):])
	}
	return a
}

// direct makes what is in slot i ready to be sent: to a name, nil if the socket is
// connected; from the address that source says; as datagrams of a length, if that is not 0.
func (b *batch) direct(i int, name *kernel.RawAddr, nameLen uint32, source []byte, segment int) {
	h := &b.headers[i].Hdr
	b.vectors[i].SetLen(int(b.headers[i].Len))
	h.Name, h.Namelen = nil, 0
	if name != nil {
		b.names[i] = *name
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names[i])), nameLen
	}
	n := copy(b.control[i][:], source)
	if segment > 0 {
		n += putSegment(b.control[i][n:], segment)
	}
	h.Control = nil
	if n > 0 {
		h.Control = &b.control[i][0]
	}
	h.SetControllen(n)
	b.armed[i] = false
}

// putSegment writes the control message that has the kernel cut a message into datagrams of a length.
func putSegment(oob []byte, segment int) int {
	n := unix.CmsgSpace(2)
	clear(oob[:n])
	binary.NativeEndian.PutUint64(oob, uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(oob[unix.SizeofCmsghdr-8:], unix.SOL_UDP)
	binary.NativeEndian.PutUint32(oob[unix.SizeofCmsghdr-4:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], uint16(segment))
	return n
}

// send sends n messages from slot first on. It returns how many datagrams could not be sent,
// and whether that was because nobody listens at the other end.
func (b *batch) send(fd int32, first, n int) (lost int, refused bool) {
	for next, end := first, first+n; next < end; {
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[next])),
			uintptr(end-next), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			next += int(sent)
		case unix.EINTR:
		case unix.ECONNREFUSED: // tells of an earlier one
			return lost, true
		case unix.EAGAIN: // the network is slower than we are: what UDP does then is drop
			for ; next < end; next++ {
				lost += b.datagrams(next)
			}
		case unix.EIO, unix.EINVAL, unix.EMSGSIZE, unix.EOPNOTSUPP:
			// This way out cannot cut messages, or not into pieces of this length.
			lost += b.cut(fd, next)
			next++
		default: // speaks of the first of them only
			lost += b.datagrams(next)
			next++
		}
	}
	return lost, false
}

// segment returns the length of the datagrams that slot i, made ready by direct, is sent as; 0 if it is one.
func (b *batch) segment(i int) int {
	h := &b.headers[i].Hdr
	space := unix.CmsgSpace(2)
	if int(h.Controllen) < space {
		return 0
	}
	oob := b.control[i][int(h.Controllen)-space:]
	if binary.NativeEndian.Uint32(oob[unix.SizeofCmsghdr-8:]) != unix.SOL_UDP || binary.NativeEndian.Uint64(oob) != uint64(unix.CmsgLen(2)) {
		return 0
	}
	return int(binary.NativeEndian.Uint16(oob[unix.CmsgLen(0):]))
}

// datagrams returns how many slot i is sent as.
func (b *batch) datagrams(i int) int {
	if segment := b.segment(i); segment > 0 {
		return pieces(int(b.headers[i].Len), segment)
	}
	return 1
}

// pieces returns how many datagrams of a length, the last of which may be shorter, make size bytes.
func pieces(size, segment int) int {
	if segment == 0 {
		return 1
	}
	return (size + segment - 1) / segment
}

// cut sends the datagrams of slot i one by one, and returns how many could not be.
func (b *batch) cut(fd int32, i int) (lost int) {
	segment := b.segment(i)
	if segment == 0 {
		return 1 // it is one, and too long
	}
	h := b.headers[i].Hdr // a copy, of which the vector is another
	var vector unix.Iovec
	h.Iov = &vector
	if h.SetControllen(int(h.Controllen) - unix.CmsgSpace(2)); h.Controllen == 0 {
		h.Control = nil
	}
	for data := b.message(i); len(data) > 0; {
		n := min(segment, len(data))
		vector.Base = &data[0]
		vector.SetLen(n)
		if _, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); errno != 0 {
			lost++
		}
		data = data[n:]
	}
	return lost
}
