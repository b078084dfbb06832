package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/internal/handover"
)

// Sizes of buffers in octets.
const (
	queryBuffer  = 4096    // of a longer datagram the rest is not looked at
	replyBuffer  = 4096    // the largest UDP response that can be configured
	socketBuffer = 4 << 20 // asked of the kernel, which may give less
)

// holdWait bounds a sleep that the scheduler is not told of.
const holdWait = 20 * time.Millisecond

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

// A Prefetcher is a Responder that wants to see a batch of messages, at most BatchWidth, before
// it answers them one by one, in this order and from the same memory. Some may never come.
type Prefetcher interface{ Prefetch(msgs [][]byte) }

// A UDP is one bound socket.
type UDP struct {
	// Immutable.
	fd      int
	local   netip.AddrPort
	pktinfo bool // bound to a wildcard: replies have to name their source
	wake    int  // an event descriptor: Serve sleeps on both

	stopped atomic.Bool
	holding atomic.Bool
	first   atomic.Bool // Serve's thread has real-time priority
	serving sync.Mutex  // held by Serve

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
	if fd, ok := handover.Take("udp", addr.String()); ok {
		wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			unix.Close(fd)
			return nil, os.NewSyscallError("eventfd", err)
		}
		return &UDP{fd: fd, pktinfo: addr.Addr().IsUnspecified(), local: addr, wake: wake}, nil
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
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
	limit := unix.NsecToTimeval(int64(holdWait))
	if err := unix.SetsockoptTimeval(u.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return os.NewSyscallError("set SO_RCVTIMEO", err)
	}
	var err error
	if u.local, err = boundTo(u.fd, addr); err != nil {
		return err
	}
	u.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return os.NewSyscallError("eventfd", err)
}

// Local returns the bound address.
func (u *UDP) Local() netip.AddrPort { return u.local }

// Serve answers until Stop or Close. Errors of single datagrams end nothing. It has
// a thread to itself, which sleeps on the socket when that is empty, and only
// then: whoever waits on a socket, an epoll instance too, is looked for on every
// datagram that comes and on every one that has left.
func (u *UDP) Serve(r Responder) {
	u.serving.Lock()
	defer u.serving.Unlock()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	h := newHurry(&u.first)
	defer h.end()
	b := newBatch(u.pktinfo)
	for {
		answered, done := u.drain(b, r, h)
		if done {
			return
		}
		h.paused(answered)
		u.sleep()
	}
}

// drain answers until the socket is empty, or for good: then it reports done.
// While it answers, more has mostly come, so it looks again, which costs less
// than to sleep.
//
// One that keeps its processor waits for datagrams in the call that takes them: below full load that is
// two system calls for each batch, where a look that finds nothing and a sleep are two more.
func (u *UDP) drain(b *batch, r Responder, h *hurry) (answered int, done bool) {
	failures := 0
	for !u.stopped.Load() {
		wait := u.holding.Load()
		n, errno := b.receive(u.fd, wait)
		switch errno {
		case 0:
			failures = 0
		case unix.EAGAIN:
			return answered, false
		case unix.EINTR: // the scheduler stops it
			continue
		default: // an error of a single datagram
			failures++
			u.pause(failures)
			continue
		}
		b.prefetch(n, r)
		for i := range n {
			if !b.room() {
				b.send(u.fd, r)
			}
			b.answer(i, r)
		}
		b.send(u.fd, r)
		answered += n
		h.busy(answered)
		if wait && n < BatchWidth { // it was empty
			return answered, false
		}
	}
	return answered, true
}

// sleep waits for a datagram or for Stop. The scheduler is told, and takes the
// processor away only from one that sleeps longer than some 20 µs. What came of it drain sees. One that keeps its processor
// sleeps in drain.
func (u *UDP) sleep() {
	if u.holding.Load() {
		return
	}
	fds := [2]unix.PollFd{{Fd: int32(u.fd), Events: unix.POLLIN}, {Fd: int32(u.wake), Events: unix.POLLIN}}
	_, _, _ = unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), 0, 0, 0, 0)
	if fds[1].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(u.wake, count[:]) // empties it
	}
}

// Hold says whether Serve keeps its processor (one of runtime.GOMAXPROCS) while it sleeps. Then a
// datagram need not wait until another goroutine, or a worker of the garbage collector, gives one
// up; the caller sees to it that there is one more for each socket. A sleep under way ends, and the next is of the new kind:
// of an idle socket it might last for hours.
func (u *UDP) Hold(on bool) {
	if u.holding.Swap(on) == on {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rouse()
}

// RealTime reports whether the thread that serves goes before all usual ones of the machine. That
// needs a permission (hurry), and ends while queries come faster than they are answered.
func (u *UDP) RealTime() bool { return u.first.Load() }

// pause keeps a socket that fails on every read from taking a whole core.
func (u *UDP) pause(failures int) {
	if failures > 8 && !u.stopped.Load() {
		time.Sleep(10 * time.Millisecond)
	}
}

// Stop makes Serve return after the batch in hand. The socket stays bound
// until Close.
func (u *UDP) Stop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stop()
}

// stop sets stopped and wakes Serve. mu is held.
func (u *UDP) stop() {
	u.stopped.Store(true)
	u.rouse()
}

// rouse ends Serve's sleep. mu is held.
func (u *UDP) rouse() {
	if !u.closed {
		_, _ = unix.Write(u.wake, []byte{7: 1}) // fails only when it is full of wake-ups
	}
}

// Close stops Serve, waits for its last batch and unbinds the socket.
func (u *UDP) Close() error {
	u.Stop()
	u.serving.Lock()
	defer u.serving.Unlock()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil
	}
	u.overflowed = overflows(u.fd)
	u.closed = true
	return errors.Join(os.NewSyscallError("close", unix.Close(u.fd)), os.NewSyscallError("close", unix.Close(u.wake)))
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
