package l4

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l4/kernel"
	"github.com/pharos-lb/pharos/internal/handover"
	"golang.org/x/sys/unix"
)

// A binding is one address that is listened on: a socket for each shard, among
// which the kernel spreads the connections (SO_REUSEPORT).
type binding struct {
	// Immutable.
	asked, real netip.AddrPort
	wildcard    bool
	sockets     []int32 // one a shard; owned by the shards once they run

	settings atomic.Pointer[settings]
	active   atomic.Int64
	begun    atomic.Uint64
}

// bind opens the sockets of an address.
func bind(set *settings, shards int) (*binding, error) {
	b := &binding{asked: set.Address, wildcard: set.Address.Addr().IsUnspecified()}
	at := set.Address
	for range shards {
		fd, err := listenOn(at, set)
		if err != nil {
			b.close()
			return nil, err
		}
		b.sockets = append(b.sockets, fd)
		if at.Port() == 0 {
			at = netip.AddrPortFrom(at.Addr(), kernel.LocalAddress(fd).Port())
		}
	}
	b.real = kernel.LocalAddress(b.sockets[0])
	if b.wildcard {
		b.real = netip.AddrPortFrom(set.Address.Addr(), b.real.Port())
	}
	b.settings.Store(set)
	return b, nil
}

func (b *binding) close() {
	for _, fd := range b.sockets {
		closeFD(fd)
	}
	b.sockets = nil
}

// listenOn opens one listening socket. It is plain TCP: splice and most options
// are not there with MPTCP.
func listenOn(at netip.AddrPort, set *settings) (int32, error) {
	// The process that this one replaces has given it what it listened on.
	if fd, ok := handover.Take("tcp", at.String()); ok {
		if err := unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("listen on %s: %w", at, err)
		}
		set.tune(int32(fd))
		return int32(fd), nil
	}
	fd, err := openListening(at, set, unix.SO_REUSEPORT)
	if err != nil {
		return -1, fmt.Errorf("listen on %s: %w%s", at, err, forward.Cure(at, err, "-ltnp"))
	}
	return fd, nil
}

func openListening(at netip.AddrPort, set *settings, share int) (int32, error) {
	dual := at.Addr() == netip.IPv6Unspecified() // both families, or IPv4 alone where there is no IPv6
	family := unix.AF_INET6
	if at.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, errno := socket(family, unix.SOCK_STREAM)
	if errno == unix.EAFNOSUPPORT && dual {
		dual, at, family = false, netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()), unix.AF_INET
		fd, errno = socket(family, unix.SOCK_STREAM)
	}
	if errno != 0 {
		return -1, errno
	}
	only := 1
	if dual {
		only = 0
	}
	if family == unix.AF_INET6 {
		errno = setOption(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
	}
	if errno == 0 {
		errno = setOption(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if errno == 0 && share != 0 {
		errno = setOption(fd, unix.SOL_SOCKET, share, 1)
	}
	if errno == 0 && set.Transparent {
		errno = setOption(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
	}
	if errno == 0 {
		var sa rawAddr
		errno = bindTo(fd, &sa, kernel.Sockaddr(&sa, at, dual))
	}
	if errno == 0 {
		set.tune(fd)
		err := unix.Listen(int(fd), set.Backlog)
		if err == nil {
			return fd, nil
		}
		closeFD(fd)
		return -1, err
	}
	closeFD(fd)
	return -1, errno
}

// tune sets what accepted connections have from their listening socket.
func (s *settings) tune(fd int32) {
	setOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	keepAlive(fd, s.KeepAlive)
	setOption(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(s.UserTimeout.Milliseconds()))
	setOption(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, int(s.DeferAccept.Seconds()))
	queue := 0
	if s.FastOpen {
		queue = 256
	}
	if s.FastOpen || (s.routes == nil && queue == 0) {
		setOption(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, queue)
	}
}

// retune applies other settings to sockets that are kept.
func (b *binding) retune(set *settings) {
	for _, fd := range b.sockets {
		set.tune(fd)
		_ = unix.Listen(int(fd), set.Backlog)
	}
}

// checkFree refuses addresses that another program listens on, a second pharos
// too: with SO_REUSEPORT the two would share it without knowing, and each serve
// half. Reloads are not checked, since there one tier takes over from another.
func checkFree(sets []*settings) error {
	var errs []error
	named := make(map[netip.AddrPort]bool, len(sets))
	for _, set := range sets {
		switch {
		case named[set.Address]:
			return nil // Prepare says so, which is more to the point
		case !set.Address.IsValid() || set.Address.Port() == 0 || handover.Has("tcp", set.Address.String()):
			continue
		}
		named[set.Address] = true
		fd, err := openListening(set.Address, set, 0)
		if err != nil {
			errs = append(errs, fmt.Errorf("listen on %s: %w%s", set.Address, err, forward.Cure(set.Address, err, "-ltnp")))
			continue
		}
		closeFD(fd)
	}
	return errors.Join(errs...)
}
