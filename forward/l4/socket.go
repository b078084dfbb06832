package l4

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file is every system call of the engine. They are made raw: none of them
// waits, so the scheduler need not be told. The one that waits, epoll_wait, is
// told in shard.go.

// A rawAddr is a socket address of either family as the kernel takes it.
type rawAddr = unix.RawSockaddrInet6

// sockaddr writes address into sa and returns its length. In a socket of both
// families (dual) an IPv4 address is written as the IPv6 address that means it.
func sockaddr(sa *rawAddr, address netip.AddrPort, dual bool) uint32 {
	*sa = rawAddr{}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], address.Port())
	if address.Addr().Is4() && !dual {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		v4.Family = unix.AF_INET
		v4.Addr = address.Addr().As4()
		return unix.SizeofSockaddrInet4
	}
	sa.Family = unix.AF_INET6
	sa.Addr = address.Addr().As16()
	return unix.SizeofSockaddrInet6
}

// addrPort reads an address that the kernel wrote. An IPv6 zone is left out.
func addrPort(sa *rawAddr) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	if sa.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port)
}

func accept(fd int32, sa *rawAddr) (int32, unix.Errno) {
	size := uint32(unix.SizeofSockaddrInet6)
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(sa)),
		uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int32(n), errno
}

func socket(family, kind int) (int32, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), uintptr(kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC), 0)
	return int32(n), errno
}

func connect(fd int32, sa *rawAddr, size uint32) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(sa)), uintptr(size))
	return errno
}

func bindTo(fd int32, sa *rawAddr, size uint32) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(sa)), uintptr(size))
	return errno
}

func read(fd int32, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

// peek looks at what read would return and leaves it there.
func peek(fd int32, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
		uintptr(len(b)), unix.MSG_PEEK, 0, 0)
	return int(n), errno
}

func send(fd int32, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
		uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

func splice(from, to int32, most int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(most),
		unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	return int(n), errno
}

func shutdownWrite(fd int32) {
	_, _, _ = unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
}

func closeFD(fd int32) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// reset closes a connection so that its peer sees a reset.
func reset(fd int32) {
	linger := unix.Linger{Onoff: 1}
	_, _, _ = unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER,
		uintptr(unsafe.Pointer(&linger)), unsafe.Sizeof(linger), 0)
	closeFD(fd)
}

func setOption(fd int32, level, option, value int) unix.Errno {
	v := int32(value)
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&v)), 4, 0)
	return errno
}

// socketError takes the error that a socket has in store; 0 is none.
func socketError(fd int32) unix.Errno {
	v, size := int32(0), uint32(4)
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR,
		uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return unix.Errno(v)
}

// localAddress returns the address that a socket is bound to.
func localAddress(fd int32) netip.AddrPort {
	var sa rawAddr
	size := uint32(unix.SizeofSockaddrInet6)
	if _, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)),
		uintptr(unsafe.Pointer(&size))); errno != 0 {
		return netip.AddrPort{}
	}
	return addrPort(&sa)
}

// watch has epoll tell every change of fd, once each.
func watch(epoll, fd int32, events uint32, token uint64) unix.Errno {
	event := unix.EpollEvent{Events: events, Fd: int32(uint32(token)), Pad: int32(uint32(token >> 32))}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), unix.EPOLL_CTL_ADD, uintptr(fd),
		uintptr(unsafe.Pointer(&event)), 0, 0)
	return errno
}
