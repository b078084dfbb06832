package kernel

import (
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Wake is the token of the event that says that there are commands.
const Wake = ^uint64(0)

const batch = 256 // events that one wait returns

// A Loop is an epoll instance and what others want done by its goroutine.
type Loop struct {
	// Immutable.
	epoll, wake int32

	// Owned by the goroutine that waits.
	events [batch]unix.EpollEvent

	waits atomic.Uint64

	mu       sync.Mutex // guards the rest
	commands []func()
	ended    bool
}

// NewLoop opens a Loop.
func NewLoop() (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, err
	}
	l := &Loop{epoll: int32(epoll), wake: int32(wake)}
	if errno := l.Watch(l.wake, unix.EPOLLIN, Wake); errno != 0 {
		l.Close()
		return nil, errno
	}
	return l, nil
}

// Close frees the Loop; its goroutine has ended.
func (l *Loop) Close() {
	unix.Close(int(l.epoll))
	unix.Close(int(l.wake))
}

// Watch has Wait tell the events of fd with a token, until fd is closed or Forget.
func (l *Loop) Watch(fd int32, events uint32, token uint64) unix.Errno {
	e := unix.EpollEvent{Events: events, Fd: int32(uint32(token)), Pad: int32(uint32(token >> 32))}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(l.epoll), unix.EPOLL_CTL_ADD, uintptr(fd),
		uintptr(unsafe.Pointer(&e)), 0, 0)
	return errno
}

// Rename gives what is watched another token.
func (l *Loop) Rename(fd int32, events uint32, token uint64) unix.Errno {
	e := unix.EpollEvent{Events: events, Fd: int32(uint32(token)), Pad: int32(uint32(token >> 32))}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(l.epoll), unix.EPOLL_CTL_MOD, uintptr(fd),
		uintptr(unsafe.Pointer(&e)), 0, 0)
	return errno
}

// Forget ends Watch for a descriptor that stays open.
func (l *Loop) Forget(fd int32) {
	_, _, _ = unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(l.epoll), unix.EPOLL_CTL_DEL, uintptr(fd), 0, 0, 0)
}

// Token returns what Watch was given.
func Token(e *unix.EpollEvent) uint64 { return uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32 }

// Do has the Loop's goroutine call f soon. It reports false, and f is not called, when the Loop has ended.
func (l *Loop) Do(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.commands = append(l.commands, f)
	one := uint64(1)
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(l.wake), uintptr(unsafe.Pointer(&one)), 8)
	return true
}

// Obey does what others have asked for.
func (l *Loop) Obey() {
	var count uint64
	_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(l.wake), uintptr(unsafe.Pointer(&count)), 8)
	l.mu.Lock()
	commands := l.commands
	l.commands = nil
	l.mu.Unlock()
	for _, f := range commands {
		f()
	}
}

// End takes no command any more, and reports true, unless one waits that has not been obeyed.
func (l *Loop) End() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = len(l.commands) == 0
	return l.ended
}

// Wait returns what has happened, after patience at most (negative: however long it
// takes). What it returns is good until the next call.
func (l *Loop) Wait(patience time.Duration) []unix.EpollEvent {
	var n uintptr
	var errno unix.Errno
	if patience == 0 { // does not wait, so the scheduler need not know
		n, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), batch, 0, 0, 0)
	} else {
		ms := -1
		if patience > 0 {
			ms = int(min((patience+time.Millisecond-1)/time.Millisecond, 1<<30))
		}
		l.waits.Add(1)
		n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), batch, uintptr(ms), 0, 0)
	}
	if errno != 0 {
		return nil // interrupted
	}
	return l.events[:n]
}

// Waits returns how often Wait had to wait so far. Any goroutine may call it. The scheduler learns of each, and leaves the
// processor to it until the runtime's monitor looks.
func (l *Loop) Waits() uint64 { return l.waits.Load() }
