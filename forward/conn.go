package forward

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A Conn is an accepted connection. The goroutine that serves it owns it.
type Conn[S any] struct {
	// Stream is the connection to the client.
	Stream *Stream
	// ID counts the connections of the Front from 1.
	ID uint64
	// Source and Destination are what a PROXY header says of the connection's ends; invalid:
	// there was none, and the Stream's own count.
	Source, Destination netip.AddrPort

	// Immutable.
	front  *Front[S]
	socket *socket[S]

	last atomic.Bool // it has been given a last unit of work after a hand-over

	mu      sync.Mutex // guards the rest
	resting bool
	held    Aborter // the backend's side of its work
	cut     bool
}

// Settings returns what its listener is set to now, which a reload may change
// between two calls.
func (c *Conn[S]) Settings() *S { return c.socket.settings.Load() }

// Draining reports whether the connection should end when its current work is
// done: its listener has been removed, or the Front is stopping.
func (c *Conn[S]) Draining() bool {
	return c.socket.removed.Load() || c.front.draining.Load()
}

// Farewell is how much of d there is for a connection that has to end and whose client has not been told: half of
// the time of draining at most, so that it is not cut at the end of that.
func (c *Conn[S]) Farewell(d time.Duration) time.Duration {
	if c.front.draining.Load() {
		d = min(d, time.Duration(c.front.limit.Load())/2)
	}
	return max(d, 0)
}

// Rest says that the connection is between two units of work, with the read
// deadline already set; from then until Busy the Front may interrupt its read
// in order to end it. It returns false if the connection should end right away.
func (c *Conn[S]) Rest() bool {
	c.mu.Lock()
	c.resting = true
	c.mu.Unlock()
	return !c.Draining() || c.waited()
}

// waited reports whether the connection was between two units of work, or new, when another process took
// the sockets: it may have one more, which is told to be the last.
func (c *Conn[S]) waited() bool {
	return c.front.handed.Load() && !c.last.Swap(true)
}

// Busy ends Rest. Deadlines have to be set anew.
func (c *Conn[S]) Busy() {
	c.mu.Lock()
	c.resting = false
	c.mu.Unlock()
	if c.Draining() {
		c.Stream.ForgetDeadlines() // wake may have set one
	}
}

// wake ends a connection that is resting.
func (c *Conn[S]) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resting {
		c.Stream.InterruptRead()
	}
}

// An Aborter ends what is under way so that whoever is at its other end sees that it is not
// the whole. Any goroutine may call it.
type Aborter interface{ Abort() }

// Hold makes backend end with the client's connection when draining has taken
// too long, at once if it has already; nil lets go of the one before, which is
// then left alone.
func (c *Conn[S]) Hold(backend Aborter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = backend
	if c.cut && backend != nil {
		backend.Abort()
	}
}

// abort ends both sides, which must see that it is not the whole.
func (c *Conn[S]) abort() {
	c.mu.Lock()
	defer c.mu.Unlock() // until the end: what Hold has let go of may be lent again
	c.cut = true
	c.Stream.Abort()
	if c.held != nil {
		c.held.Abort()
	}
}
