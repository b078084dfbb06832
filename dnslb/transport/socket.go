package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlSpace holds one packet-info control message of either family.
const controlSpace = 64

// deferAccept is how many seconds the kernel keeps a connection to itself that has sent nothing.
const deferAccept = 1

// prepareUDP sets the options that have to be there before bind.
func prepareUDP(fd int, ipv6, wildcard bool) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return fmt.Errorf("set SO_REUSEPORT: %w", err)
	}
	// Neither path-MTU discovery nor its spoofed messages may shape our replies;
	// they are small enough not to be fragmented.
	if ipv6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fmt.Errorf("set IPV6_V6ONLY: %w", err)
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT)
	} else {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT)
	}
	if !wildcard {
		return nil
	}
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if ipv6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		return fmt.Errorf("ask for destination addresses: %w", err)
	}
	return nil
}

// prepareTCP sets the options that have to be there before bind. Connections
// inherit them.
func prepareTCP(fd int, ipv6 bool) error {
	options := []struct {
		name          string
		level, option int
	}{
		{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR}, // connections of a process before us may linger
		{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT},
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY}, // answers are sent together as it is
		{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY},
	}
	if !ipv6 {
		options = options[:len(options)-1]
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.option, 1); err != nil {
			return fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	// A connection is ours to accept once its first octets are there, or after a while without.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, deferAccept) // it costs a read more without
	return nil
}

// boundTo returns addr with the port that a socket has got.
func boundTo(fd int, addr netip.AddrPort) (netip.AddrPort, error) {
	got, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	port := 0
	switch got := got.(type) {
	case *unix.SockaddrInet4:
		port = got.Port
	case *unix.SockaddrInet6:
		port = got.Port
	}
	return netip.AddrPortFrom(addr.Addr(), uint16(port)), nil
}

// replySource turns the control message that came with a query into the one
// that makes the reply leave from the address that was asked. It works in
// place and returns nil when there is none.
func replySource(oob []byte) []byte {
	if len(oob) < unix.SizeofCmsghdr {
		return nil
	}
	level := int32(binary.NativeEndian.Uint32(oob[unix.SizeofCmsghdr-8:]))
	kind := int32(binary.NativeEndian.Uint32(oob[unix.SizeofCmsghdr-4:]))
	data := oob[unix.CmsgLen(0):]
	switch {
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		// struct in_pktinfo: interface, source to use, destination seen. Interface 0
		// leaves the way out to routing: the query may have come in elsewhere.
		clear(data[:4])
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

// overflows returns the socket's count of dropped datagrams; 0 where the kernel
// does not tell (before Linux 4.12).
func overflows(fd int) uint64 {
	var info [skMemInfoDrops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0
	}
	return uint64(info[skMemInfoDrops])
}

// skMemInfoDrops is where SO_MEMINFO has the drops: SK_MEMINFO_DROPS of
// linux/sock_diag.h.
const skMemInfoDrops = 8

// CheckFree reports whether somebody else is bound to an address, over UDP or
// TCP: it binds it for a moment without sharing.
func CheckFree(addr netip.AddrPort) error {
	family := "4"
	if addr.Addr().Is6() {
		family = "6"
	}
	packets, err := net.ListenPacket("udp"+family, addr.String())
	if err != nil {
		return bindError(err)
	}
	defer packets.Close()
	stream, err := net.Listen("tcp"+family, addr.String())
	if err != nil {
		return bindError(err)
	}
	return stream.Close()
}

// bindError adds what to do about the usual causes.
func bindError(err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w: another program has it; find it with `ss -lunpt`", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: ports under 1024 need CAP_NET_BIND_SERVICE", err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%w: no interface of this machine has the address", err)
	}
	return err
}
