package udp

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"
	"unsafe"

	"github.com/pharos-lb/pharos/forward"
	"golang.org/x/sys/unix"
)

// A session is one client at one of our addresses. It belongs to one shard.
type session struct {
	key     key
	at      *socket
	backend *forward.Backend
	fd      int32
	name    unix.RawSockaddrInet6
	nameLen uint32
	source  []byte // where answers leave from; nil = the socket's address
	last    int64
	asked   int // datagrams of the client
	replies int

	newer, older *session // in socket's order of use
}

// A key tells sessions apart.
type key struct {
	client netip.AddrPort
	server [16]byte
	// backend is set for packets whose connection ID names another backend than
	// the session of their addresses has.
	backend netip.AddrPort
}

// A socket is where a shard takes the datagrams of one address.
type socket struct {
	fd             int32
	binding        *binding
	sessions       map[key]*session
	newest, oldest *session
}

func (at *socket) unlink(x *session) {
	if x.newer != nil {
		x.newer.older = x.older
	} else {
		at.newest = x.older
	}
	if x.older != nil {
		x.older.newer = x.newer
	} else {
		at.oldest = x.newer
	}
	x.newer, x.older = nil, nil
}

func (at *socket) push(x *session) {
	x.older = at.newest
	if at.newest != nil {
		at.newest.newer = x
	} else {
		at.oldest = x
	}
	at.newest = x
}

type shard struct {
	server        *Server
	epoll, wakeFD int32

	// Owned by run.
	now      int64
	in, out  *batch
	outFD    int32
	sockets  map[int32]*socket
	sessions map[int32]*session
	events   [128]unix.EpollEvent
	stopping int64 // when what is left ends; 0 = running

	mu       sync.Mutex // guards the rest
	commands []func()
	ended    bool
}

func newShard(s *Server) (*shard, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, err
	}
	sh := &shard{
		server: s, epoll: int32(epoll), wakeFD: int32(wake),
		sockets: make(map[int32]*socket), sessions: make(map[int32]*session),
	}
	if err := sh.watch(sh.wakeFD); err != nil {
		sh.close()
		return nil, err
	}
	return sh, nil
}

func (s *shard) watch(fd int32) error {
	return unix.EpollCtl(int(s.epoll), unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: fd})
}

func (s *shard) close() {
	unix.Close(int(s.epoll))
	unix.Close(int(s.wakeFD))
}

// do has the shard's goroutine call f soon, false when it has ended.
func (s *shard) do(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.commands = append(s.commands, f)
	one := [8]byte{}
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(int(s.wakeFD), one[:])
	return true
}

// run carries datagrams until it is stopped.
func (s *shard) run() {
	s.in, s.out = newBatch(), newBatch()
	s.now = s.server.now()
	for s.stopping == 0 || len(s.sessions) > 0 && s.now < s.stopping {
		n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.epoll), uintptr(unsafe.Pointer(&s.events[0])),
			uintptr(len(s.events)), uintptr(s.patience()), 0, 0)
		if errno != 0 {
			n = 0
		}
		s.now = s.server.now()
		for _, e := range s.events[:n] {
			switch {
			case e.Fd == s.wakeFD:
				s.obey()
			case s.sessions[e.Fd] != nil:
				s.answer(s.sessions[e.Fd])
			case s.sockets[e.Fd] != nil:
				s.take(s.sockets[e.Fd])
			}
		}
		s.flush()
		s.expire()
	}
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	for _, at := range s.sockets {
		s.drop(at)
	}
	s.close()
}

// patience is how many milliseconds there are to the first end of a session.
func (s *shard) patience() int {
	wait := int64(-1)
	for _, at := range s.sockets {
		if at.oldest != nil {
			left := max(at.oldest.last+int64(at.binding.settings.Load().Idle)-s.now, 0)
			if wait < 0 || left < wait {
				wait = left
			}
		}
	}
	if s.stopping != 0 {
		wait = min(max(wait, 0), max(s.stopping-s.now, 0))
	}
	if wait < 0 {
		return -1
	}
	return int((wait + int64(time.Millisecond) - 1) / int64(time.Millisecond))
}

func (s *shard) obey() {
	var count [8]byte
	_, _ = unix.Read(int(s.wakeFD), count[:])
	s.mu.Lock()
	commands := s.commands
	s.commands = nil
	s.mu.Unlock()
	for _, f := range commands {
		f()
	}
}

// expire ends the sessions that have been silent for too long.
func (s *shard) expire() {
	for _, at := range s.sockets {
		idle := int64(at.binding.settings.Load().Idle)
		for at.oldest != nil && s.now-at.oldest.last >= idle {
			s.end(at.oldest, forward.OutcomeServed)
		}
	}
}

// drop gives up a socket with its sessions.
func (s *shard) drop(at *socket) {
	for at.oldest != nil {
		s.end(at.oldest, forward.OutcomeServed)
	}
	delete(s.sockets, at.fd)
	unix.Close(int(at.fd))
}

// end ends a session.
func (s *shard) end(x *session, outcome forward.Outcome) {
	x.at.unlink(x)
	delete(x.at.sessions, x.key)
	delete(s.sessions, x.fd)
	unix.Close(int(x.fd))
	x.at.binding.active.Add(-1)
	x.backend.Report(outcome)
	x.backend.Done()
}

// deafen stops to take what clients send; what backends answer still goes out.
func (s *shard) deafen() {
	for fd := range s.sockets {
		_ = unix.EpollCtl(int(s.epoll), unix.EPOLL_CTL_DEL, int(fd), nil)
	}
}
