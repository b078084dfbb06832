package forward

import (
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peeked is what looking at a connection without reading found.
type peeked uint8

const (
	peekedGone  peeked = iota // it has ended or is broken
	peekedQuiet               // open, nothing has arrived
	peekedBytes               // there is something to read
)

// Quiet reports whether the connection is open and nothing has arrived on it:
// the state an idle upstream connection has to be in before it is used again.
// Only the reader may call it.
func (s *Stream) Quiet() bool {
	if s.records != nil {
		return s.quietTLS()
	}
	return s.raw == nil || s.look() == peekedQuiet
}

// Gone reports whether the peer has finished sending or the connection is
// broken. Only the reader may call it.
func (s *Stream) Gone() bool {
	if s.records != nil {
		return s.records.gone()
	}
	return s.raw != nil && s.look() == peekedGone
}

// Broken reports whether the peer has reset the connection: what is written to it reaches nobody. One that has only
// finished sending may still read. Any goroutine may call it.
func (s *Stream) Broken() bool {
	if s.records != nil {
		return s.records.under.Broken()
	}
	broken := false
	if s.raw == nil || s.raw.Control(func(fd uintptr) {
		p := [1]unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p[:], 0)
		broken = err == nil && n > 0 && p[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
	}) != nil {
		return s.raw != nil
	}
	return broken
}

func (s *Stream) look() peeked {
	s.peeked = peekedGone
	if err := s.raw.Control(s.peek); err != nil {
		return peekedGone
	}
	return s.peeked
}

// peekFD asks the kernel directly: unix.Recvfrom allocates an address that
// nobody wants, and this runs once per request.
func (s *Stream) peekFD(fd uintptr) {
	var one byte
	for {
		n, _, err := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&one)), 1,
			unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			s.peeked = peekedQuiet
		case err == 0 && n > 0:
			s.peeked = peekedBytes
		}
		return
	}
}

// Peek waits for bytes and copies them to p without taking them. Plain TCP only.
func (s *Stream) Peek(p []byte) (n int, err error) {
	if s.raw == nil {
		return 0, os.ErrInvalid
	}
	var failed error
	err = s.raw.Read(func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), p, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return failed != unix.EAGAIN && failed != unix.EINTR
	})
	switch {
	case err != nil:
		return 0, err
	case failed != nil:
		return 0, os.NewSyscallError("recvfrom", failed)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}
