package transport

import (
	"bufio"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
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
	Slow         atomic.Uint64 // did not take their answers in time
	AcceptErrors atomic.Uint64
}

// Limits bound a pool. They may change while it serves.
type Limits struct {
	Connections int           // at least 1
	Idle        time.Duration // over 0
}

// A Pool serves the TCP connections of every listener of a server under one
// set of limits. Run owns its goroutines.
type Pool struct {
	counters *Counters
	limits   atomic.Pointer[Limits]
	free     sync.Pool // of *buffers
	wg       sync.WaitGroup

	mu             sync.Mutex // guards what follows
	closing        bool
	open           map[*connection]struct{}
	networks       map[netip.Prefix]int
	oldest, newest *connection // idle ones
}

// NewPool makes a pool. newResponder is called for each connection at work at
// the same time as others; its results are used again.
func NewPool(limits Limits, counters *Counters, newResponder func() Responder) *Pool {
	p := &Pool{
		counters: counters,
		open:     make(map[*connection]struct{}),
		networks: make(map[netip.Prefix]int),
	}
	p.limits.Store(&limits)
	p.free.New = func() any {
		return &buffers{reader: bufio.NewReaderSize(nil, readBuffer), in: make([]byte, 0, 512), one: make([]byte, 0, replyBuffer), responder: newResponder()}
	}
	return p
}

// SetLimits changes the limits; connections over a lower one stay until they end.
func (p *Pool) SetLimits(l Limits) { p.limits.Store(&l) }

// Open returns the number of connections.
func (p *Pool) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

// Shutdown ends idle connections at once and the others after the messages
// they have begun, and waits for all. No connection is taken after it.
func (p *Pool) Shutdown() {
	p.mu.Lock()
	p.closing = true
	for c := range p.open {
		if c.idle {
			_ = c.conn.SetReadDeadline(time.Unix(1, 0))
		}
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// add takes a new connection, or closes it.
func (p *Pool) add(conn *net.TCPConn) {
	client := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	network := networkOf(client.Addr())
	limits := p.limits.Load()

	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closing:
		_ = conn.Close()
		return
	case p.networks[network] >= max(perClientFloor, limits.Connections/perClientShare):
		if !p.evict(func(c *connection) bool { return c.network == network }) {
			p.counters.Crowded.Add(1)
			_ = conn.Close()
			return
		}
	case len(p.open) >= limits.Connections:
		if !p.evict(func(*connection) bool { return true }) {
			p.counters.Refused.Add(1)
			_ = conn.Close()
			return
		}
	}
	p.counters.Accepted.Add(1)
	c := &connection{conn: conn, pool: p, client: client, network: network}
	p.open[c] = struct{}{}
	p.networks[network]++
	p.wg.Go(c.serve)
}

// evict closes the connection that has been idle longest of those that fit, to
// make room; false if none is idle. mu is held.
func (p *Pool) evict(fits func(*connection) bool) bool {
	for c := p.oldest; c != nil; c = c.newer {
		if fits(c) {
			p.counters.Evicted.Add(1)
			p.forget(c)
			_ = c.conn.Close()
			return true
		}
	}
	return false
}

// remove closes a connection that has ended.
func (p *Pool) remove(c *connection) {
	_ = c.conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(c)
}

// forget takes a connection off the books, once. mu is held.
func (p *Pool) forget(c *connection) {
	if _, ok := p.open[c]; !ok {
		return
	}
	delete(p.open, c)
	p.unlink(c)
	if p.networks[c.network]--; p.networks[c.network] == 0 {
		delete(p.networks, c.network)
	}
}

// rest marks c idle and sets its deadline. It reports whether c may wait for
// another message.
func (p *Pool) rest(c *connection) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.open[c]; !ok || p.closing {
		return false
	}
	c.idle, c.older, c.newer = true, p.newest, nil
	if p.newest != nil {
		p.newest.newer = c
	} else {
		p.oldest = c
	}
	p.newest = c
	return c.conn.SetReadDeadline(time.Now().Add(p.limits.Load().Idle)) == nil
}

// wake marks c busy.
func (p *Pool) wake(c *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unlink(c)
}

func (p *Pool) unlink(c *connection) {
	if !c.idle {
		return
	}
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		p.oldest = c.newer
	}
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		p.newest = c.older
	}
	c.idle, c.older, c.newer = false, nil, nil
}

func (p *Pool) borrow() *buffers { return p.free.Get().(*buffers) }

// giveBack keeps the buffers for others, unless a huge message made them huge.
func (p *Pool) giveBack(b *buffers) {
	b.reader.Reset(nil) // forgets the connection
	if cap(b.in) <= flushSize && cap(b.out) <= 2*flushSize && cap(b.one) <= 2*flushSize {
		p.free.Put(b)
	}
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
