package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// socket is a TCP connection made by few system calls: with package net, half of
// what a probe costs this process would be looking up what it knows already.
type socket struct {
	*os.File
	to netip.AddrPort
}

// Read and Write are File's, but that a deadline that ends them while there is
// something to read, or room to write, is errTooSlow.
func (s socket) Read(p []byte) (int, error) {
	n, err := s.File.Read(p)
	return n, s.unless(unix.POLLIN, err)
}

func (s socket) Write(p []byte) (int, error) {
	n, err := s.File.Write(p)
	return n, s.unless(unix.POLLOUT, err)
}

// unless returns errTooSlow in place of the end of the deadline if what the probe
// waited for has come.
func (s socket) unless(events int16, err error) error {
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	raw, _ := s.SyscallConn()
	if raw == nil {
		return err
	}
	_ = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: events}}
		if n, _ := unix.Poll(poll, 0); n > 0 {
			err = errTooSlow
		}
	})
	return err
}

// LocalAddr and RemoteAddr make it a net.Conn; nobody asks where it comes from.
func (s socket) LocalAddr() net.Addr  { return &net.TCPAddr{} }
func (s socket) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.to) }

// connectBound connects to an address, from the given one if it is valid. The
// connection ends with ctx until undo is called. Closing it resets it: thousands of
// probes a second would otherwise leave their ports in TIME_WAIT until none is left.
func connectBound(ctx context.Context, from netip.Addr, to netip.AddrPort) (conn net.Conn, undo func(), err error) {
	fd, err := tcpSocket(from, to)
	if err != nil {
		return nil, nil, err
	}
	err = ignoringInterrupts(func() error { return unix.Connect(fd, tcpAddr(to)) })
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, nil, os.NewSyscallError("connect", err)
	}
	s := socket{os.NewFile(uintptr(fd), "tcp"), to}
	undo = bound(ctx, s)
	if err == unix.EINPROGRESS {
		err = s.connected()
	}
	if err == nil && ownPort(fd, to) {
		err = os.NewSyscallError("connect", syscall.ECONNREFUSED)
	}
	if err != nil {
		undo()
		s.Close()
		return nil, nil, err
	}
	return s, undo, nil
}

// ownPort reports whether the socket is connected to itself: the system may choose
// just the port for it at which nobody listens.
func ownPort(fd int, to netip.AddrPort) bool {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	switch own := name.(type) {
	case *unix.SockaddrInet4:
		return own.Port == int(to.Port()) && netip.AddrFrom4(own.Addr) == to.Addr().Unmap()
	case *unix.SockaddrInet6:
		return own.Port == int(to.Port()) && netip.AddrFrom16(own.Addr) == to.Addr().WithZone("")
	default:
		return false
	}
}

// tcpSocket returns a socket that is bound if from is valid.
func tcpSocket(from netip.Addr, to netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET6
	if to.Addr().Unmap().Is4() {
		family = unix.AF_INET
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	// What a probe writes in two parts must not wait for the target to confirm the first.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	// The end of the handshake goes with the request, or never: a packet less, and a
	// target that is only connected to and reset need not accept and wake up.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0)
	if from.IsValid() {
		// The kernel is to choose the port when it connects: bound now, each port would
		// serve one target alone, and many probes from one address would run out of
		// them. An old kernel that does not know the option still connects.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err := unix.Bind(fd, tcpAddr(netip.AddrPortFrom(from, 0))); err != nil {
			unix.Close(fd)
			return -1, os.NewSyscallError("bind", err)
		}
	}
	return fd, nil
}

// connected waits until the connection is made or refused, or its deadline comes.
func (s socket) connected() error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var refused error
	err = raw.Write(func(fd uintptr) (done bool) {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			refused = os.NewSyscallError("getsockopt", err)
		case code != 0:
			refused = os.NewSyscallError("connect", syscall.Errno(code))
		default:
			// No error yet: writable is what a connection in the making is not.
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
			n, err := unix.Poll(poll, 0)
			return err == nil && n > 0 && poll[0].Revents&(unix.POLLERR|unix.POLLHUP) == 0
		}
		return true
	})
	if err != nil {
		return s.unless(unix.POLLOUT, err)
	}
	return refused
}

// ignoringInterrupts calls f until no signal interrupts it.
func ignoringInterrupts(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// tcpAddr returns a as the system calls want it.
func tcpAddr(a netip.AddrPort) unix.Sockaddr {
	switch to := sockaddr(a.Addr()).(type) {
	case *unix.SockaddrInet4:
		to.Port = int(a.Port())
		return to
	case *unix.SockaddrInet6:
		to.Port = int(a.Port())
		return to
	default:
		return to
	}
}
