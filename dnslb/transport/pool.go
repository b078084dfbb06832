package transport

import (
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/internal/descriptors"
)

// perClient is the share of all connections that the addresses of one network
// (an IPv4 /24, an IPv6 /56) may hold, so that one client cannot push out all
// others. It counts once more than perClientFloor connections are open.
const (
	perClientShare = 4 // a quarter
	perClientFloor = 64
)

// Counters tell what became of connections. Any goroutine may read them.
type Counters struct {
	Accepted     atomic.Uint64
	Evicted      atomic.Uint64 // idle, closed to make room
	Refused      atomic.Uint64 // no room, none idle
	Crowded      atomic.Uint64 // refused because their network held its share, none idle
	Short        atomic.Uint64 // refused because their descriptor is kept for others
	Slow         atomic.Uint64 // did not take their answers in time
	Stalled      atomic.Uint64 // did not finish a message in time
	Idle         atomic.Uint64 // silent for too long
	Malformed    atomic.Uint64 // sent a message of no octets
	Memory       atomic.Uint64 // would have held more when all together held enough
	AcceptErrors atomic.Uint64
}

// Limits bound a pool. They may change while it serves.
type Limits struct {
	Connections int           // at least 1
	Idle        time.Duration // over 0
	Descriptors descriptors.Bound
}

// A Pool serves the TCP connections of every listener of a server under one
// set of limits.
type Pool struct {
	// Immutable.
	counters *Counters
	streams  []*stream
	start    time.Time

	limits  atomic.Pointer[Limits]
	holding atomic.Bool
	// buffered is what connections hold of messages and answers, in octets.
	buffered atomic.Int64
	wg       sync.WaitGroup // the streams' goroutines

	mu       sync.Mutex // guards the rest, and what connections and streams say that it does
	running  bool
	closing  bool
	open     int
	networks map[netip.Prefix]int
}

// NewPool makes a pool of some streams, each of which has a responder and serves
// with a goroutine of its own once there is a listener. Shutdown frees it.
func NewPool(limits Limits, counters *Counters, streams int, newResponder func() Responder) (*Pool, error) {
	p := &Pool{counters: counters, start: time.Now(), networks: make(map[netip.Prefix]int)}
	p.limits.Store(&limits)
	for range streams {
		s, err := newStream(p, newResponder())
		if err != nil {
			p.Shutdown()
			return nil, os.NewSyscallError("epoll", err)
		}
		p.streams = append(p.streams, s)
	}
	return p, nil
}

// SetLimits changes the limits; connections over a lower one stay until they end.
func (p *Pool) SetLimits(l Limits) {
	p.limits.Store(&l)
	for _, s := range p.streams {
		s.do(func() {}) // it looks when to wake next
	}
}

// Hold says whether the streams keep a processor each while they wait, as UDP.Hold does.
func (p *Pool) Hold(on bool) {
	if p.holding.Swap(on) == on {
		return
	}
	for _, s := range p.streams {
		s.do(func() {}) // it waits anew
	}
}

// Open returns the number of connections.
func (p *Pool) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

// run starts the streams, once.
func (p *Pool) run() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running || p.closing {
		return
	}
	p.running = true
	for _, s := range p.streams {
		p.wg.Go(s.run)
	}
}

// Shutdown ends idle connections at once and the others after the messages
// they have begun, and waits for all. No connection is taken after it. It may be called
// more than once.
func (p *Pool) Shutdown() {
	p.mu.Lock()
	first := !p.closing
	p.closing = true
	running := p.running
	p.mu.Unlock()
	if !first {
		p.wg.Wait()
		return
	}
	for _, s := range p.streams {
		if running {
			s.do(s.closeIdle)
			continue
		}
		s.mu.Lock()
		s.ended = true
		s.mu.Unlock()
		s.free()
	}
	p.wg.Wait()
}

func (p *Pool) closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closing
}

// now is the time that connections are measured by.
func (p *Pool) now() time.Duration { return time.Since(p.start) }

// add counts a new connection; nil if there is no room for it.
func (p *Pool) add(s *stream, fd int32, client netip.AddrPort) *connection {
	network := networkOf(client.Addr())
	limits := p.limits.Load()

	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closing:
		return nil
	case !limits.Descriptors.Room(int(fd)):
		p.evict(func(*connection) bool { return true }) // so that the next finds room
		p.counters.Short.Add(1)
		return nil
	case p.networks[network] >= max(perClientFloor, limits.Connections/perClientShare):
		if !p.evict(func(c *connection) bool { return c.network == network }) {
			p.counters.Crowded.Add(1)
			return nil
		}
	case p.open >= limits.Connections:
		if !p.evict(func(*connection) bool { return true }) {
			p.counters.Refused.Add(1)
			return nil
		}
	}
	p.counters.Accepted.Add(1)
	p.open++
	p.networks[network]++
	return &connection{stream: s, fd: fd, client: client, network: network}
}

// evict ends the connection that has been idle longest of those that fit, to
// make room; false if none is idle. mu is held.
func (p *Pool) evict(fits func(*connection) bool) bool {
	var longest *connection
	for _, s := range p.streams {
		for c := s.idle.first; c != nil; c = c.newer {
			if fits(c) {
				if longest == nil || c.since < longest.since {
					longest = c
				}
				break
			}
		}
	}
	if longest == nil {
		return false
	}
	p.counters.Evicted.Add(1)
	p.forget(longest)
	// Its stream is told by the event and closes it; it may be another's.
	_ = unix.Shutdown(int(longest.fd), unix.SHUT_RDWR) // fails when the client has gone
	return true
}

// remove takes a connection off the books: it is about to be closed.
func (p *Pool) remove(c *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(c)
}

// forget takes a connection off the books, once. mu is held.
func (p *Pool) forget(c *connection) {
	switch c.state {
	case ended:
		return
	case resting:
		c.stream.idle.remove(c)
	}
	c.state = ended
	p.open--
	if p.networks[c.network]--; p.networks[c.network] == 0 {
		delete(p.networks, c.network)
	}
}

// rest marks a connection idle, if it is not. It reports whether it may wait for
// another message.
func (p *Pool) rest(c *connection) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.state == ended || p.closing {
		return false
	}
	if c.state == busy {
		c.state, c.since = resting, c.stream.now
		c.stream.idle.add(c)
	}
	return true
}

// wake marks a connection busy; false if it has been ended to make room.
func (p *Pool) wake(c *connection) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.state == resting {
		c.stream.idle.remove(c)
		c.state = busy
	}
	return c.state == busy
}

// due returns when the longest idle connection of a stream has been idle for too
// long; false if none is idle.
func (p *Pool) due(s *stream) (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.idle.first == nil {
		return 0, false
	}
	return s.idle.first.since + p.limits.Load().Idle, true
}

// expired returns a connection of a stream that has been idle for too long, nil if
// there is none.
func (p *Pool) expired(s *stream) *connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := s.idle.first; c != nil && s.now >= c.since+p.limits.Load().Idle {
		return c
	}
	return nil
}

func networkOf(addr netip.Addr) netip.Prefix {
	bits := 24
	if addr.Is6() {
		bits = 56
	}
	prefix, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}
