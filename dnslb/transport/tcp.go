package transport

import (
	"net/netip"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/internal/handover"
)

// backlog is how many connections may wait to be accepted; the kernel allows
// net.core.somaxconn at most.
const backlog = 4096

// A TCP is one bound listener.
type TCP struct {
	// Immutable.
	fd    int
	local netip.AddrPort

	stop    chan struct{} // closed by Close
	serving sync.Mutex    // held by Serve

	mu      sync.Mutex // guards the rest
	stopped bool
	closed  bool
}

// ListenTCP binds one address with SO_REUSEPORT.
func ListenTCP(addr netip.AddrPort) (*TCP, error) {
	if fd, ok := handover.Take("tcp", addr.String()); ok {
		if err := unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
			return nil, os.NewSyscallError("fcntl", err)
		}
		return &TCP{fd: fd, local: addr, stop: make(chan struct{})}, nil
	}
	family, to, err := sockaddr(addr)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	t := &TCP{fd: fd, stop: make(chan struct{})}
	if t.local, err = t.bind(addr, to); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return t, nil
}

func (t *TCP) bind(addr netip.AddrPort, to unix.Sockaddr) (netip.AddrPort, error) {
	if err := prepareTCP(t.fd, addr.Addr().Is6()); err != nil {
		return netip.AddrPort{}, err
	}
	if err := unix.Bind(t.fd, to); err != nil {
		return netip.AddrPort{}, bindError(os.NewSyscallError("bind", err))
	}
	if err := unix.Listen(t.fd, backlog); err != nil {
		return netip.AddrPort{}, bindError(os.NewSyscallError("listen", err))
	}
	return boundTo(t.fd, addr)
}

// Local returns the bound address.
func (t *TCP) Local() netip.AddrPort { return t.local }

// Close makes Serve return, waits for it and unbinds the listener. Connections
// live on.
func (t *TCP) Close() error {
	t.mu.Lock()
	if !t.stopped {
		t.stopped = true
		close(t.stop)
	}
	t.mu.Unlock()
	t.serving.Lock()
	defer t.serving.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	return os.NewSyscallError("close", unix.Close(t.fd))
}

// Serve has the pool accept connections until Close.
func (t *TCP) Serve(pool *Pool) {
	t.serving.Lock()
	defer t.serving.Unlock()
	t.mu.Lock()
	stopped := t.stopped
	t.mu.Unlock()
	if stopped {
		return
	}
	pool.run()
	for _, s := range pool.streams {
		s.do(func() { s.listen(t) })
	}
	<-t.stop
	var given sync.WaitGroup // the descriptor must not be anybody else's while a stream knows it
	for _, s := range pool.streams {
		given.Add(1)
		if !s.do(func() { s.forget(t); given.Done() }) {
			given.Done()
		}
	}
	given.Wait()
}

// The system calls of a connection. None of them waits.

func accept(fd int, from *unix.RawSockaddrInet6) (int32, unix.Errno) {
	size := uint32(unix.SizeofSockaddrInet6)
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(from)),
		uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int32(n), errno
}

func receive(fd int32, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
		uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func send(fd int32, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
		uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

func closeFD(fd int32) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func epollControl(epoll, op int, fd int32, events uint32) unix.Errno {
	event := unix.EpollEvent{Events: events, Fd: fd}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), uintptr(op), uintptr(fd),
		uintptr(unsafe.Pointer(&event)), 0, 0)
	return errno
}
