package udp

import (
	"net/netip"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l4/kernel"
	"golang.org/x/sys/unix"
)

// housekeeping is how often sockets that rest are looked through.
const housekeeping = time.Second

// A shard is one goroutine with an epoll of its own, which carries the datagrams of
// the sessions that the kernel gives to its sockets.
type shard struct {
	*kernel.Loop
	server *Server

	// Owned by run.
	now      int64
	in, out  *batch
	outFD    int32 // where what out holds goes
	run      span  // of in, that goes to one backend
	sockets  []*socket
	handles  []handle // by descriptor
	sessions int
	spare    []*session
	rests    rests
	more     []int32 // descriptors that may hold more than their turn has taken
	nextLook int64   // when the first session could end, or rests are looked through
	away     bool    // another process has, or may have, what this one had
	stopping int64   // when what is left ends; 0 = running
}

// A handle is what a descriptor stands for; both nil = nothing (any more).
type handle struct {
	socket   *socket
	upstream *upstream
}

func newShard(s *Server) (*shard, error) {
	l, err := kernel.NewLoop()
	if err != nil {
		return nil, err
	}
	return &shard{Loop: l, server: s, rests: rests{queues: make(map[netip.AddrPort]*restQueue)}}, nil
}

// handle returns the handle of a descriptor.
func (s *shard) handle(fd int32) *handle {
	for int(fd) >= len(s.handles) {
		s.handles = append(s.handles, handle{})
	}
	return &s.handles[fd]
}

// serve carries datagrams until it is stopped.
func (s *shard) serve() {
	s.in, s.out = newBatch(true), newBatch(false)
	s.now = s.server.now()
	for !s.finished() {
		events := s.Wait(s.patience())
		s.now = s.server.now()
		for i := range events {
			if token := kernel.Token(&events[i]); token == kernel.Wake {
				s.Obey()
			} else {
				s.turn(int32(token))
			}
		}
		if more := s.more; len(more) > 0 {
			s.more = nil
			for _, fd := range more {
				s.turn(fd)
			}
		}
		s.flush()
		if s.now >= s.nextLook {
			s.expire()
		}
	}
	for len(s.sockets) > 0 {
		s.drop(s.sockets[0])
	}
	s.rests.expire(s.now+1, s.hangUp)
	s.Close()
}

// finished reports whether nothing is left to do, after which no command is taken.
func (s *shard) finished() bool {
	return s.stopping != 0 && (s.sessions == 0 || s.now >= s.stopping) && s.End()
}

// turn takes what a descriptor holds.
func (s *shard) turn(fd int32) {
	if int(fd) >= len(s.handles) {
		return
	}
	switch h := s.handles[fd]; {
	case s.away && (h.socket != nil || h.upstream != nil && h.upstream.session != nil):
		// An event from before: it is another process's now. TakeBack has it told again.
	case h.socket != nil:
		s.take(h.socket)
	case h.upstream != nil:
		s.answer(h.upstream)
	}
}

// patience is how long it is to the first end of a session; negative = for ever.
func (s *shard) patience() time.Duration {
	if len(s.more) > 0 {
		return 0
	}
	next := s.nextLook
	if s.sessions == 0 && s.rests.count == 0 {
		next = 0
	}
	if s.stopping != 0 && (next == 0 || s.stopping < next) {
		next = s.stopping
	}
	if next == 0 {
		return -1
	}
	return time.Duration(max(next-s.now, 0))
}

// expire ends the sessions that have been silent for too long and those of backends that are gone, some at a time, and says when to
// look again.
func (s *shard) expire() {
	next := s.now + int64(time.Hour)
	if s.away {
		s.nextLook = next
		return
	}
	for _, at := range s.sockets {
		idle := int64(at.binding.settings.Load().Idle)
		for n := 0; n < endTurn && at.used.oldest != nil && s.now-at.used.oldest.last >= idle; n++ {
			s.end(at.used.oldest, forward.OutcomeServed, false)
		}
		if at.used.oldest != nil {
			next = min(next, at.used.oldest.last+idle)
		}
		next = min(next, s.sweep(at), s.judge(at, at.binding.settings.Load()))
	}
	if s.rests.count > 0 {
		s.rests.expire(s.now-int64(restAtMost), s.hangUp)
		next = min(next, s.now+int64(housekeeping))
	}
	s.nextLook = next
}

// lookBy has expire called by a time.
func (s *shard) lookBy(when int64) {
	if when < s.nextLook {
		s.nextLook = when
	}
}

// listen takes over a socket.
func (s *shard) listen(fd int32, b *binding) {
	at := &socket{fd: fd, binding: b, sessions: make(map[key]*session), crowds: make(map[*forward.Backend]*crowd)}
	s.sockets = append(s.sockets, at)
	s.handle(fd).socket = at
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1) // without it datagrams come one by one
	_ = s.Watch(fd, unix.EPOLLIN|unix.EPOLLET, uint64(fd))
}

// leave gives up the socket of a binding with its sessions.
func (s *shard) leave(b *binding) {
	for _, at := range s.sockets {
		if at.binding == b {
			s.drop(at)
			return
		}
	}
}

// drop gives up a socket with its sessions.
func (s *shard) drop(at *socket) {
	s.endAll(at)
	s.sockets = slices.DeleteFunc(s.sockets, func(x *socket) bool { return x == at })
	s.handle(at.fd).socket = nil
	unix.Close(int(at.fd))
}

// endAll ends the sessions of a socket.
func (s *shard) endAll(at *socket) {
	s.leaveLanes(at)
	for at.used.oldest != nil {
		s.end(at.used.oldest, forward.OutcomeServed, false)
	}
}

// deafen stops to take what clients send; what backends answer still goes out.
func (s *shard) deafen() {
	for _, at := range s.sockets {
		s.Forget(at.fd)
		s.handle(at.fd).socket = nil
	}
}
