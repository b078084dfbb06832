package transport

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// A connection is one client's. Its stream owns it.
type connection struct {
	links // in list or, while that is nil, in stream.idle

	stream  *stream
	client  netip.AddrPort
	network netip.Prefix
	fd      int32
	armed   uint32 // the events that epoll tells of; 0 = it does not know the socket

	// held is what was received and not answered yet, unsent what was answered and
	// not taken yet. Both are empty while the connection is silent.
	held, unsent []byte
	// accounted is its part of Pool.buffered.
	accounted int

	// list is the queue that it is in because of a message in hand; nil = none.
	list *queue

	// Pool.mu guards the rest, and links and since while list is nil.
	state connectionState
}

type connectionState uint8

const (
	busy    connectionState = iota
	resting                 // in stream.idle
	ended                   // no longer counted
)

// links are a place in a queue, and since when it is held.
type links struct {
	newer, older *connection
	since        time.Duration // since Pool.start
}

// A queue is connections in the order in which they joined it.
type queue struct{ first, last *connection }

func (q *queue) add(c *connection) {
	c.older, c.newer = q.last, nil
	if q.last != nil {
		q.last.newer = c
	} else {
		q.first = c
	}
	q.last = c
}

func (q *queue) remove(c *connection) {
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		q.first = c.newer
	}
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		q.last = c.older
	}
	c.newer, c.older = nil, nil
}

// account puts what a connection holds on the pool's account. It reports whether there is room for it.
func (s *stream) account(c *connection) bool {
	n := cap(c.held) + len(c.unsent)
	if n <= fewHeld {
		n = 0
	}
	more := n - c.accounted
	if more == 0 {
		return true
	}
	c.accounted = n
	return s.pool.buffered.Add(int64(more)) <= mostHeld || more < 0
}

// overflow ends a connection that there is no memory for.
func (s *stream) overflow(c *connection) {
	s.pool.counters.Memory.Add(1)
	s.close(c)
}

// keep holds what is left of what was received.
func (c *connection) keep(input []byte) {
	if len(input) == 0 {
		c.held = nil
		return
	}
	c.held = append(c.held[:0], input...)
}

// arm has epoll tell of these events.
func (s *stream) arm(c *connection, events uint32) {
	if c.armed == events {
		return
	}
	op := unix.EPOLL_CTL_MOD
	if c.armed == 0 {
		op = unix.EPOLL_CTL_ADD
	}
	c.armed = events
	if epollControl(s.epoll, op, c.fd, events) != 0 { // out of memory, or of fs.epoll.max_user_watches
		s.pool.counters.AcceptErrors.Add(1)
		s.close(c)
	}
}

// read takes what a client has sent, as far as there is room, and answers it.
func (s *stream) read(c *connection) {
	have := copy(s.in, c.held) // less than a message, so there is room
	n, errno := receive(c.fd, s.in[have:])
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		s.wait(c)
	case errno != 0 || n == 0 || !s.pool.wake(c):
		s.close(c)
	default:
		s.work(c, s.in[:have+n])
	}
}

// goOn sends what the client did not take, and then answers what it had asked
// behind that.
func (s *stream) goOn(c *connection) {
	n, errno := send(c.fd, c.unsent)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return
	case errno != 0:
		s.close(c)
		return
	}
	if c.unsent = c.unsent[n:]; len(c.unsent) > 0 {
		return
	}
	c.unsent = nil
	s.move(c, nil)
	s.work(c, s.in[:copy(s.in, c.held)])
}

// work answers the whole messages of input, in order, as long as the client takes
// the answers, and holds the rest of it.
func (s *stream) work(c *connection, input []byte) {
	answered := false
	for {
		n, ok := s.answer(c, input)
		if !ok {
			s.pool.counters.Malformed.Add(1)
		}
		if !s.flush(c) || !ok {
			s.close(c)
			return
		}
		if n == 0 {
			break
		}
		input, answered = input[n:], true
		if len(c.unsent) > 0 {
			c.keep(input)
			if s.account(c) {
				s.move(c, &s.writing)
				s.arm(c, unix.EPOLLOUT)
			} else {
				s.overflow(c)
			}
			return
		}
	}
	c.keep(input)
	switch {
	case !s.account(c):
		s.overflow(c)
		return
	case len(input) == 0:
		s.move(c, nil)
	case answered && s.pool.closed(): // who always begins another message would hold up the end
		s.close(c)
		return
	case answered || c.list == nil: // another message has begun
		s.move(c, &s.reading)
	}
	s.wait(c)
}

// wait waits for more from a client.
func (s *stream) wait(c *connection) {
	if c.list == nil && !s.pool.rest(c) {
		s.close(c)
		return
	}
	s.arm(c, unix.EPOLLIN)
}

// answer answers whole messages until there is enough to send. It returns how many
// octets of input it took; false if the framing is lost.
func (s *stream) answer(c *connection, input []byte) (taken int, ok bool) {
	s.out = s.out[:0]
	for len(input) >= 2 && len(s.out) < flushSize {
		size := 2 + int(binary.BigEndian.Uint16(input))
		if size == 2 {
			return taken, false // no message is empty
		}
		if len(input) < size {
			break
		}
		at := len(s.out)
		room := s.out[at+2 : at+2]
		reply := s.responder.Respond(room, input[2:size], c.client, true)
		if len(reply) > 0 {
			s.out = binary.BigEndian.AppendUint16(s.out, uint16(len(reply)))
			s.out = append(s.out, reply...) // onto itself, unless it had to grow
		}
		input = input[size:]
		taken += size
	}
	return taken, true
}

// flush sends the answers. What the client does not take is kept in c.unsent; false
// if it takes no more.
func (s *stream) flush(c *connection) bool {
	s.responder.Flush()
	for out := s.out; len(out) > 0; {
		n, errno := send(c.fd, out)
		switch errno {
		case 0:
			out = out[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			c.unsent = append([]byte(nil), out...)
			return true
		default:
			return false
		}
	}
	return true
}
