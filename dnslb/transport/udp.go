package transport

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes of buffers in octets.
const (
	queryBuffer  = 4096    // of a longer datagram the rest is not looked at
	replyBuffer  = 4096    // the largest UDP response that can be configured
	socketBuffer = 4 << 20 // asked of the kernel, which may give less
)

// turn is how many batches a socket under load answers before other goroutines
// get the processor: 2 ms at the most.
const turn = 16

// sendWait is how long a full send buffer may hold up a batch, in milliseconds.
const sendWait = 5

// A Responder answers messages, one at a time: each goroutine has its own.
type Responder interface {
	// Respond appends the response to msg to dst, which is empty, and returns
	// it; an empty slice means no response. msg is valid during the call only.
	Respond(dst, msg []byte, client netip.AddrPort, tcp bool) []byte
	// Lost tells that a response could not be sent.
	Lost()
	// Flush is called before the responses to a batch of messages are sent.
	Flush()
}

// A UDP is one bound socket.
type UDP struct {
	// Immutable.
	fd      int
	local   netip.AddrPort
	pktinfo bool // bound to a wildcard: replies have to name their source
	ready   *os.File
	wait    syscall.RawConn // of ready

	stopped atomic.Bool

	mu         sync.Mutex // guards the rest
	closed     bool
	overflowed uint64 // at Close
}

// ListenUDP binds sockets sockets to one address with SO_REUSEPORT. With port 0
// all of them get the port that the first was given. On an error none stays
// bound.
func ListenUDP(addr netip.AddrPort, sockets int) ([]*UDP, error) {
	bound := make([]*UDP, 0, sockets)
	for range sockets {
		u, err := listenUDP(addr)
		if err != nil {
			for _, b := range bound {
				b.Close()
			}
			return nil, err
		}
		bound = append(bound, u)
		addr = u.local
	}
	return bound, nil
}

func listenUDP(addr netip.AddrPort) (*UDP, error) {
	family, to, err := sockaddr(addr)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	u := &UDP{fd: fd, pktinfo: addr.Addr().IsUnspecified()}
	if err := u.bind(addr, to); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return u, nil
}

func (u *UDP) bind(addr netip.AddrPort, to unix.Sockaddr) error {
	if err := prepareUDP(u.fd, addr.Addr().Is6(), u.pktinfo); err != nil {
		return err
	}
	// The kernel's limit may be lower: its default serves too.
	_ = unix.SetsockoptInt(u.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer)
	_ = unix.SetsockoptInt(u.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer)
	if err := unix.Bind(u.fd, to); err != nil {
		return bindError(os.NewSyscallError("bind", err))
	}
	got, err := unix.Getsockname(u.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	port := 0
	switch got := got.(type) {
	case *unix.SockaddrInet4:
		port = got.Port
	case *unix.SockaddrInet6:
		port = got.Port
	}
	u.local = netip.AddrPortFrom(addr.Addr(), uint16(port))
	return u.watch()
}

// watch makes ready, which the runtime's poller watches in place of the socket.
// That poller wants to know of room to send too, of which every sent datagram
// makes some: each batch would be followed by a wake-up for nothing. An epoll
// instance between the two lets only arrivals through.
func (u *UDP) watch() error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(u.fd)}
	err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, u.fd, &event)
	if err == nil {
		err = unix.SetNonblock(epoll, true) // os.NewFile leaves other files to blocking calls
	}
	if err != nil {
		unix.Close(epoll)
		return os.NewSyscallError("epoll_ctl", err)
	}
	u.ready = os.NewFile(uintptr(epoll), "epoll")
	if u.wait, err = u.ready.SyscallConn(); err == nil {
		err = u.ready.SetReadDeadline(time.Time{}) // an error if the poller did not take it
	}
	if err != nil {
		u.ready.Close()
	}
	return err
}

// Local returns the bound address.
func (u *UDP) Local() netip.AddrPort { return u.local }

// Serve answers until Stop or Close. Errors of single datagrams end nothing.
func (u *UDP) Serve(r Responder) {
	b := newBatch(u.pktinfo)
	// One call for all: between calls the runtime forgets arrivals it has seen.
	_ = u.wait.Read(func(uintptr) bool { return u.drain(b, r) }) // ends by Stop or Close
}

// drain answers until the socket is empty, or for good: then it reports true.
// While it answers, more has mostly come, so it looks again, which costs less
// than to ask the poller; and the poller tells of an arrival only once.
func (u *UDP) drain(b *batch, r Responder) (done bool) {
	failures := 0
	for batches := 1; !u.stopped.Load(); batches++ {
		n, errno := b.receive(u.fd)
		switch errno {
		case 0:
			failures = 0
		case unix.EAGAIN:
			return false
		default: // interrupted, or an error of a single datagram
			failures++
			u.pause(failures)
			continue
		}
		for i := range n {
			if !b.room() {
				b.send(u.fd, r)
			}
			b.answer(i, r)
		}
		b.send(u.fd, r)
		if batches%turn == 0 {
			runtime.Gosched()
		}
	}
	return true
}

// pause keeps a socket that fails on every read from taking a whole core.
func (u *UDP) pause(failures int) {
	if failures > 8 && !u.stopped.Load() {
		time.Sleep(10 * time.Millisecond)
	}
}

// Stop makes Serve return after the batch in hand. The socket stays bound
// until Close.
func (u *UDP) Stop() {
	u.stopped.Store(true)
	_ = u.ready.SetReadDeadline(time.Unix(1, 0)) // fails only when closed, which stops it as well
}

// Close stops Serve, waits for its last batch and unbinds the socket.
func (u *UDP) Close() error {
	u.stopped.Store(true)
	_ = u.ready.Close() // waits for Serve; an error means that it is closed
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil
	}
	u.overflowed = overflows(u.fd)
	u.closed = true
	return os.NewSyscallError("close", unix.Close(u.fd))
}

// Overflowed returns how many datagrams the kernel has dropped because Serve
// did not take them in time, or because of a bad checksum.
func (u *UDP) Overflowed() uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return u.overflowed
	}
	return overflows(u.fd)
}

// sockaddr turns an address into what bind takes.
func sockaddr(addr netip.AddrPort) (family int, _ unix.Sockaddr, _ error) {
	if addr.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}, nil
	}
	to := &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	if zone := addr.Addr().Zone(); zone != "" {
		if index, err := strconv.ParseUint(zone, 10, 32); err == nil {
			to.ZoneId = uint32(index)
		} else if device, err := net.InterfaceByName(zone); err == nil {
			to.ZoneId = uint32(device.Index)
		} else {
			return 0, nil, fmt.Errorf("zone of %v: %w", addr.Addr(), err)
		}
	}
	return unix.AF_INET6, to, nil
}
