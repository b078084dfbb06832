package probe

import (
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// controlDial lets the kernel choose the local port only when it connects: a
// socket bound to a source address could otherwise use each port for one target
// alone, and many probes from one address would run out of them.
func controlDial(_, _ string, c syscall.RawConn) error {
	// An old kernel that does not know the option still connects.
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
}

// pingSocket returns a socket for echo requests to one address, without
// privileges. The system gives it only to the groups in net.ipv4.ping_group_range.
func pingSocket(from, to netip.Addr) (net.Conn, error) {
	family, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	if to.Is6() {
		family, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), "icmp")
	defer file.Close() // FileConn duplicates it
	if from.IsValid() {
		if err := unix.Bind(fd, sockaddr(from)); err != nil {
			return nil, os.NewSyscallError("bind", err)
		}
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(file)
}

// sockaddr returns a as the system calls want it, with port 0.
func sockaddr(a netip.Addr) unix.Sockaddr {
	if a = a.Unmap(); a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	to := &unix.SockaddrInet6{Addr: a.As16()}
	if zone, err := net.InterfaceByName(a.Zone()); err == nil {
		to.ZoneId = uint32(zone.Index)
	}
	return to
}
