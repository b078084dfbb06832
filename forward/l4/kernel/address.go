package kernel

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A RawAddr is a socket address of either family as the kernel takes it.
type RawAddr = unix.RawSockaddrInet6

// Sockaddr writes address into sa and returns its length. In a socket of both
// families (dual) an IPv4 address is written as the IPv6 address that means it.
func Sockaddr(sa *RawAddr, address netip.AddrPort, dual bool) uint32 {
	*sa = RawAddr{}
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

// AddrPort reads an address that the kernel wrote. An IPv6 zone is left out.
func AddrPort(sa *RawAddr) netip.AddrPort {
	port := Port(sa)
	if sa.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port)
}

// Port returns the port of an address that the kernel wrote.
func Port(sa *RawAddr) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
}

// LocalAddress returns the address that a socket is bound to; the zero AddrPort if it has none.
func LocalAddress(fd int32) netip.AddrPort {
	var sa RawAddr
	size := uint32(unix.SizeofSockaddrInet6)
	if _, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)),
		uintptr(unsafe.Pointer(&size))); errno != 0 {
		return netip.AddrPort{}
	}
	return AddrPort(&sa)
}
