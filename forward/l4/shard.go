package l4

import (
	"time"

	"github.com/pharos-lb/pharos/forward/l4/kernel"
	"golang.org/x/sys/unix"
)

const (
	bufferSize = 16 << 10 // what one read takes
	chunkSize  = bufferSize
	// keptChunks and keptFlows are how many a shard keeps for the next use.
	keptChunks = 32
	keptFlows  = 1024
	// farewell is how long a listening socket that is being given up still accepts
	// what has already connected, so that those clients are not reset.
	farewell = 20 * time.Millisecond
	// settleAfter is the age at which a flow is given its keep-alives: most never need them.
	settleAfter = 15 * time.Second
	// housekeeping is how often backends that are gone, and pipes that nobody uses, are looked for.
	housekeeping = 500 * time.Millisecond
)

// A shard is one goroutine with an epoll of its own that carries flows from
// accept to close. It shares nothing with the others but counters.
type shard struct {
	*kernel.Loop
	server *Server

	// Owned by run.
	now        int64
	buffer     []byte
	flows      []*flow  // by slot; nil = free
	rounds     []uint32 // by slot
	freeSlots  []uint32
	spare      []*flow
	chunks     []*chunk
	pipes      pipes
	timers     timers
	ready      []waiting
	spareReady []waiting
	listeners  map[int32]*listening
	leaving    bool   // some of listeners have an end
	stopping   bool   // ends with its last flow
	cutting    bool   // takes no flow any more
	keepTime   int64  // next housekeeping; 0 = nothing to keep
	judged     uint64 // the plan that flows were, or are being, held against
	unjudged   int    // the first slot that has not been since
}

// A waiting flow has more to move; round tells whether it still is the same.
type waiting struct {
	f     *flow
	round uint32
}

// A listening is one listening socket of a shard.
type listening struct {
	fd      int32
	binding *binding
	until   int64 // when it is closed; 0 = not yet
	burst   bool  // there was more than one connection at its last turn
}

func newShard(s *Server) (*shard, error) {
	l, err := kernel.NewLoop()
	if err != nil {
		return nil, err
	}
	return &shard{Loop: l, server: s, listeners: make(map[int32]*listening), pipes: pipes{room: s.intake.Room}}, nil
}

func (s *shard) close() {
	s.Close()
	s.pipes.close()
}

// run carries flows until it has been stopped and the last one has ended.
func (s *shard) run() {
	s.buffer = make([]byte, bufferSize)
	s.now = s.server.now()
	for !s.finished() {
		events := s.Wait(s.patience())
		s.now = s.server.now()
		for i := range events {
			s.handle(kernel.Token(&events[i]), events[i].Events)
		}
		s.goOn()
		s.expire()
	}
	for _, l := range s.listeners {
		closeFD(l.fd)
	}
	s.close()
}

// finished reports whether nothing is left to do, after which no command is taken.
func (s *shard) finished() bool {
	return s.stopping && len(s.timers) == 0 && len(s.listeners) == 0 && s.End()
}

// patience is how long it is to the next timer; negative = for ever.
func (s *shard) patience() time.Duration {
	if len(s.ready) > 0 || s.unjudged < len(s.flows) {
		return 0
	}
	next := int64(-1)
	sooner := func(t int64) {
		if next < 0 || t < next {
			next = t
		}
	}
	if len(s.timers) > 0 {
		sooner(s.timers[0].when)
	}
	if s.keepTime != 0 {
		sooner(s.keepTime)
	}
	if s.leaving {
		for _, l := range s.listeners {
			if l.until != 0 {
				sooner(l.until)
			}
		}
	}
	if next < 0 {
		return -1
	}
	return time.Duration(max(next-s.now, 0))
}

// handle does what one event asks for.
func (s *shard) handle(token uint64, events uint32) {
	switch {
	case token == kernel.Wake:
		s.Obey()
		return
	case token&3 == tokenListener:
		if l := s.listeners[int32(token>>2)]; l != nil {
			s.accept(l)
		}
		return
	}
	slot := uint32(token) >> 2
	f := s.flows[slot]
	if f == nil || f.round != uint32(token>>32) {
		return // closed earlier in this batch
	}
	server := token&3 == tokenServer
	e := &f.client
	if server {
		e = &f.server
	}
	e.note(events)
	if events&unix.EPOLLERR != 0 && e.eof {
		// Nobody reads it any more, so nobody else would notice.
		if errno := socketError(e.fd); errno != 0 {
			s.broken(f, server, errno)
			return
		}
	}
	s.advance(f, server, events)
}

// advance goes on with a flow after something has happened to one of its ends.
func (s *shard) advance(f *flow, server bool, events uint32) {
	switch f.phase {
	case phaseGreeting:
		s.greet(f)
	case phaseQueued:
		if !server && events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			s.abandon(f, dropClientGone)
		}
	case phaseConnecting:
		switch {
		case server && events&(unix.EPOLLERR|unix.EPOLLHUP) != 0:
			s.connectFailed(f, socketError(f.server.fd))
		case server && events&unix.EPOLLOUT != 0:
			s.connected(f)
		case !server && events&(unix.EPOLLERR|unix.EPOLLHUP) != 0:
			s.abandon(f, dropClientGone)
		}
	case phaseRelaying:
		s.relay(f)
	}
}

// goOn gives every flow that had more to move than its turn allowed another turn.
func (s *shard) goOn() {
	batch := s.ready
	s.ready = s.spareReady[:0]
	for _, w := range batch {
		if s.flows[w.f.slot] == w.f && w.f.round == w.round && w.f.queued {
			w.f.queued = false
			s.relay(w.f)
		}
	}
	clear(batch)
	s.spareReady = batch
}

// again puts a flow behind the others.
func (s *shard) again(f *flow) {
	if !f.queued {
		f.queued = true
		s.ready = append(s.ready, waiting{f, f.round})
	}
}

// expire looks at the flows whose time has come.
func (s *shard) expire() {
	for n := 0; n < endTurn && len(s.timers) > 0 && s.timers[0].when <= s.now; n++ {
		s.look(s.timers[0])
	}
	if s.leaving {
		s.takeLeave()
	}
	if s.keepTime != 0 && s.now >= s.keepTime {
		s.keepHouse()
	} else if s.unjudged < len(s.flows) {
		s.judge()
	}
}

// takeLeave closes the listening sockets whose time has come.
func (s *shard) takeLeave() {
	s.leaving = false
	for _, l := range s.listeners {
		switch {
		case l.until == 0:
		case l.until <= s.now:
			s.accept(l)
			closeFD(l.fd)
			delete(s.listeners, l.fd)
		default:
			s.leaving = true
		}
	}
}

// listen takes over a listening socket.
func (s *shard) listen(fd int32, b *binding) {
	l := &listening{fd: fd, binding: b}
	s.listeners[fd] = l
	if errno := s.Watch(fd, unix.EPOLLIN, uint64(fd)<<2|tokenListener); errno != 0 {
		s.server.log.Error("a listening socket cannot be watched", "listener", b.asked, "error", errno)
	}
}

// leave gives up the listening sockets of b, of all bindings if nil, after what
// has already connected has been accepted.
func (s *shard) leave(b *binding) {
	for _, l := range s.listeners {
		if (b == nil || l.binding == b) && l.until == 0 {
			l.until = s.now + int64(farewell)
			s.leaving = true
		}
	}
}

// cut ends every flow at once.
func (s *shard) cut() int {
	n := 0
	for _, f := range s.flows {
		if f != nil {
			s.abandon(f, dropCut)
			n++
		}
	}
	return n
}
