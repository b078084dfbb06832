package handover

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// A Socket is a listening socket: a TCP or unix socket that connections are accepted
// on, or a UDP socket that is bound and has no peer.
type Socket struct {
	Network string // "tcp", "udp" or "unix"
	Address string // address:port, or the path
}

// Listening returns the listening sockets of this process, each with a duplicate of its descriptor, which the
// caller closes. Those that nobody wants to inherit are among them.
func Listening() ([]Socket, []int, error) {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, nil, err
	}
	var all []Socket
	var fds []int
	numbers := make([]int, 0, len(names))
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil {
			numbers = append(numbers, fd)
		}
	}
	slices.Sort(numbers) // sockets of one address keep their order
	for _, fd := range numbers {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			continue // closed meanwhile
		}
		if s, ok := inspect(own); ok {
			all = append(all, s)
			fds = append(fds, own)
		} else {
			unix.Close(own)
		}
	}
	return all, fds, nil
}

// inspect says what a descriptor is, if it is a listening socket.
func inspect(fd int) (Socket, bool) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return Socket{}, false
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return Socket{}, false
	}
	listens, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	var s Socket
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		s.Address = netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port)).String()
	case *unix.SockaddrInet6:
		s.Address = inet6(name).String()
	case *unix.SockaddrUnix:
		if kind != unix.SOCK_STREAM || listens == 0 || name.Name == "" {
			return Socket{}, false
		}
		return Socket{"unix", name.Name}, true
	default:
		return Socket{}, false
	}
	switch {
	case kind == unix.SOCK_STREAM && listens != 0:
		s.Network = "tcp"
	case kind == unix.SOCK_DGRAM:
		if _, err := unix.Getpeername(fd); err == nil {
			return Socket{}, false // it has a peer
		}
		s.Network = "udp"
	default:
		return Socket{}, false
	}
	return s, true
}

func inet6(name *unix.SockaddrInet6) netip.AddrPort {
	a := netip.AddrFrom16(name.Addr)
	if name.ZoneId != 0 {
		zone := strconv.Itoa(int(name.ZoneId))
		if device, err := net.InterfaceByIndex(int(name.ZoneId)); err == nil {
			zone = device.Name
		}
		a = a.WithZone(zone)
	}
	return netip.AddrPortFrom(a, uint16(name.Port))
}

// inherited are the sockets that this process was given and nobody has taken yet.
var inherited struct {
	mu      sync.Mutex
	sockets []Socket
	fds     []int
}

// Inherit keeps sockets for those who ask, with Take, for what they would bind.
func Inherit(sockets []Socket, fds []int) {
	inherited.mu.Lock()
	defer inherited.mu.Unlock()
	inherited.sockets = append(inherited.sockets, sockets...)
	inherited.fds = append(inherited.fds, fds...)
}

// Has reports whether a socket of an address was inherited and is not taken.
func Has(network, address string) bool {
	inherited.mu.Lock()
	defer inherited.mu.Unlock()
	return find(network, address) >= 0
}

// Take returns the descriptor of an inherited socket, whose owner the caller is now; ok is
// false if there is none (any more). Sockets of one address come in the order in which they were opened.
func Take(network, address string) (fd int, ok bool) {
	inherited.mu.Lock()
	defer inherited.mu.Unlock()
	i := find(network, address)
	if i < 0 {
		return -1, false
	}
	fd = inherited.fds[i]
	inherited.sockets = slices.Delete(inherited.sockets, i, i+1)
	inherited.fds = slices.Delete(inherited.fds, i, i+1)
	return fd, true
}

// find returns the index of the first socket of an address. Every address of IPv6 may have become
// every address of IPv4, where there is no IPv6. inherited.mu is held.
func find(network, address string) int {
	i := slices.Index(inherited.sockets, Socket{network, address})
	if ap, err := netip.ParseAddrPort(address); i < 0 && err == nil && network == "tcp" && ap.Addr() == netip.IPv6Unspecified() {
		i = slices.Index(inherited.sockets, Socket{network, netip.AddrPortFrom(netip.IPv4Unspecified(), ap.Port()).String()})
	}
	return i
}

// CloseRest closes what nobody has taken and returns what it was.
func CloseRest() []Socket {
	inherited.mu.Lock()
	defer inherited.mu.Unlock()
	rest := inherited.sockets
	for _, fd := range inherited.fds {
		unix.Close(fd)
	}
	inherited.sockets, inherited.fds = nil, nil
	return rest
}

// Listener takes an inherited TCP or unix socket as a net.Listener; nil if there is none.
func Listener(network, address string) (net.Listener, error) {
	fd, ok := Take(network, address)
	if !ok {
		return nil, nil
	}
	f := os.NewFile(uintptr(fd), network+" "+address)
	defer f.Close()
	return net.FileListener(f)
}

// PacketConn takes an inherited UDP socket as a net.PacketConn; nil if there is none.
func PacketConn(network, address string) (net.PacketConn, error) {
	fd, ok := Take(network, address)
	if !ok {
		return nil, nil
	}
	f := os.NewFile(uintptr(fd), network+" "+address)
	defer f.Close()
	return net.FilePacketConn(f)
}
