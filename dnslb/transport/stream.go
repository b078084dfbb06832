package transport

import (
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Limits of a connection beside its idle time.
const (
	readTimeout  = 5 * time.Second // for the rest of a message that has begun
	writeTimeout = 5 * time.Second // for the client to take what was answered
)

// Sizes in octets, and counts.
const (
	maxFramed   = 2 + 65535             // the largest message with its length before it
	flushSize   = 16 << 10              // pipelined answers are sent at the latest then
	streamSpace = flushSize + maxFramed // for answers: one more, the largest, fits behind nearly flushSize
	fewHeld     = 2 << 10               // a connection may always hold so much of messages and answers
	mostHeld    = 64 << 20              // those that hold more may hold so much together
	acceptBurst = 32                    // connections that a listener hands over at a time
	eventBatch  = 128                   // events of one epoll_wait
)

// outOfFiles is how long a listener rests when there are no descriptors left: they
// come back as clients leave.
const outOfFiles = 10 * time.Millisecond

// tokenWake stands in an event in place of a socket's descriptor.
const tokenWake = -1

// A stream carries connections from accept to close: one goroutine with an epoll
// of its own. Its system calls never wait and are not told to the scheduler, but
// for epoll_wait. What it owns nobody else touches.
type stream struct {
	pool  *Pool
	epoll int
	wake  int // an event descriptor

	// Owned by run.
	responder   Responder
	now         time.Duration // since Pool.start
	in, out     []byte
	events      [eventBatch]unix.EpollEvent
	connections map[int32]*connection
	listeners   map[int32]*TCP
	reading     queue // connections in the middle of a message, since it began
	writing     queue // those whose client does not take its answers, since then
	resting     []*TCP
	restUntil   time.Duration

	// idle are the connections without a message in hand, since their last.
	// Pool.mu guards it: others may end them to make room.
	idle queue

	mu       sync.Mutex // guards the rest
	commands []func()
	ended    bool
}

func newStream(p *Pool, r Responder) (*stream, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, err
	}
	s := &stream{
		pool: p, epoll: epoll, wake: wake, responder: r,
		in: make([]byte, maxFramed), out: make([]byte, 0, streamSpace),
		connections: make(map[int32]*connection), listeners: make(map[int32]*TCP),
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: tokenWake}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &event); err != nil {
		s.free()
		return nil, err
	}
	return s, nil
}

func (s *stream) free() {
	unix.Close(s.epoll)
	unix.Close(s.wake)
}

// do has run call f soon. It reports false when run has ended.
func (s *stream) do(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.commands = append(s.commands, f)
	_, _ = unix.Write(s.wake, []byte{7: 1}) // fails only when it is full of wake-ups
	return true
}

// run serves until the pool closes and the last connection has ended.
func (s *stream) run() {
	defer s.free()
	for !s.finished() {
		n := s.sleep()
		s.now = s.pool.now()
		for i := range s.events[:n] {
			s.handle(s.events[i].Fd, s.events[i].Events)
		}
		s.expire()
	}
}

// sleep waits for events and returns how many there are. See UDP.sleep for what the scheduler is told.
func (s *stream) sleep() int {
	var n uintptr
	var errno unix.Errno
	patience := s.patience()
	if s.pool.holding.Load() {
		if most := int(holdWait / time.Millisecond); patience < 0 || patience > most {
			patience = most
		}
		n, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.epoll), uintptr(unsafe.Pointer(&s.events[0])),
			eventBatch, uintptr(patience), 0, 0)
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.epoll), uintptr(unsafe.Pointer(&s.events[0])),
			eventBatch, uintptr(patience), 0, 0)
	}
	if errno != 0 { // interrupted
		return 0
	}
	return int(n)
}

// finished reports whether nothing is left to do, after which no command is taken.
func (s *stream) finished() bool {
	if len(s.connections) > 0 || !s.pool.closed() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = len(s.commands) == 0
	return s.ended
}

// obey does what other goroutines have asked for.
func (s *stream) obey() {
	var count [8]byte
	_, _ = unix.Read(s.wake, count[:]) // empties it
	s.mu.Lock()
	commands := s.commands
	s.commands = nil
	s.mu.Unlock()
	for _, f := range commands {
		f()
	}
}

// handle does what one event asks for.
func (s *stream) handle(fd int32, events uint32) {
	if fd == tokenWake {
		s.obey()
		return
	}
	if l := s.listeners[fd]; l != nil {
		s.accept(l)
		return
	}
	c := s.connections[fd]
	switch {
	case c == nil: // closed earlier in this batch
	case events&(unix.EPOLLERR|unix.EPOLLHUP) != 0: // reset, or ended to make room
		s.close(c)
	case c.list == &s.writing:
		s.goOn(c)
	default:
		s.read(c)
	}
}

// accept takes new connections. Most have asked already.
func (s *stream) accept(l *TCP) {
	var from unix.RawSockaddrInet6
	for range acceptBurst {
		fd, errno := accept(l.fd, &from)
		switch errno {
		case 0:
		case unix.EAGAIN:
			return
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			s.pool.counters.AcceptErrors.Add(1)
			s.rest(l)
			return
		default: // of that connection alone
			s.pool.counters.AcceptErrors.Add(1)
			continue
		}
		client, _ := addrPort(&from)
		c := s.pool.add(s, fd, client)
		if c == nil {
			closeFD(fd)
			continue
		}
		s.connections[fd] = c
		s.read(c)
	}
}

// listen begins to accept from a listener. One stream is woken for a connection,
// not all.
func (s *stream) listen(l *TCP) {
	s.listeners[int32(l.fd)] = l
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE, Fd: int32(l.fd)}
	if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, l.fd, &event); err != nil {
		s.pool.counters.AcceptErrors.Add(1)
		s.rest(l)
	}
}

// rest has a listener wait for a while.
func (s *stream) rest(l *TCP) {
	_ = unix.EpollCtl(s.epoll, unix.EPOLL_CTL_DEL, l.fd, nil) // it may not be there
	s.resting = append(s.resting, l)
	s.restUntil = s.now + outOfFiles
}

// forget accepts no more from a listener.
func (s *stream) forget(l *TCP) {
	delete(s.listeners, int32(l.fd))
	_ = unix.EpollCtl(s.epoll, unix.EPOLL_CTL_DEL, l.fd, nil) // it may be resting
	for i, other := range s.resting {
		if other == l {
			s.resting = append(s.resting[:i], s.resting[i+1:]...)
			break
		}
	}
}

// patience is how many milliseconds there are to the next thing to look at; −1 = no
// end.
func (s *stream) patience() int {
	const never = 1<<63 - 1
	next := time.Duration(never)
	if c := s.reading.first; c != nil {
		next = min(next, c.since+readTimeout)
	}
	if c := s.writing.first; c != nil {
		next = min(next, c.since+writeTimeout)
	}
	if len(s.resting) > 0 {
		next = min(next, s.restUntil)
	}
	if due, ok := s.pool.due(s); ok {
		next = min(next, due)
	}
	if next == never {
		return -1
	}
	return int(max(0, (next-s.pool.now()+time.Millisecond-1)/time.Millisecond))
}

// expire ends what has taken too long.
func (s *stream) expire() {
	for c := s.reading.first; c != nil && s.now >= c.since+readTimeout; c = s.reading.first {
		s.pool.counters.Stalled.Add(1)
		s.close(c)
	}
	for c := s.writing.first; c != nil && s.now >= c.since+writeTimeout; c = s.writing.first {
		s.pool.counters.Slow.Add(1)
		s.close(c)
	}
	for {
		c := s.pool.expired(s)
		if c == nil {
			break
		}
		s.pool.counters.Idle.Add(1)
		s.close(c)
	}
	if len(s.resting) > 0 && s.now >= s.restUntil {
		resting := s.resting
		s.resting = nil
		for _, l := range resting {
			s.listen(l)
		}
	}
}

// closeIdle ends the connections that have no message in hand.
func (s *stream) closeIdle() {
	for _, c := range s.connections {
		if c.list == nil {
			s.close(c)
		}
	}
}

// close ends a connection.
func (s *stream) close(c *connection) {
	s.move(c, nil)
	delete(s.connections, c.fd)
	s.pool.remove(c) // before its descriptor can be another's
	c.held, c.unsent = nil, nil
	s.account(c)
	closeFD(c.fd)
}

// move puts a connection into a queue, or takes it out of one.
func (s *stream) move(c *connection, to *queue) {
	if c.list != nil {
		c.list.remove(c)
	}
	if c.list = to; to != nil {
		c.since = s.now
		to.add(c)
	}
}
