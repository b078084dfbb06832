package l7

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/h2"
)

const (
	// maxPeers is how many HTTP/2 connections to one backend there are.
	maxPeers = 256
	// A backend whose connection carries requests and brings nothing for so long is asked for a sign of
	// life; if none comes in as much again, the connection is given up.
	peerSilence = 10 * time.Second
)

var (
	errPeers   = errors.New("too many HTTP/2 connections to the backend")
	errRetired = errors.New("the server has stopped")
	errNoSign  = errors.New("the backend gives no sign of life")
)

// peers are the HTTP/2 connections to one backend, made by one Via.
type peers struct {
	carrier *carrier
	backend *forward.Backend
	via     *forward.Via

	mu      sync.Mutex // guards the rest, and the changing part of each peer
	conns   []*peer
	opening map[*forward.Client]*opening
	retired bool
}

// An opening is a connection on the way, which others wait for.
type opening struct {
	done chan struct{}
	err  error
}

// A peer is one connection.
type peer struct {
	// Immutable.
	peers  *peers
	conn   *h2.Conn
	stream *forward.Stream
	client *forward.Client // whom it speaks for; nil = for anybody

	// Owned by its reader.
	heard uint64
	asked bool

	// peers.mu guards the rest.
	using int
	since time.Time // when it was last given back
}

// of returns the connections to b by via.
func (c *carrier) of(b *forward.Backend, via *forward.Via) (*peers, error) {
	c.mu.Lock()
	ps := c.peers[b]
	if ps != nil && ps.via == via {
		c.mu.Unlock()
		return ps, nil
	}
	if c.ended {
		c.mu.Unlock()
		return nil, errRetired
	}
	next := &peers{carrier: c, backend: b, via: via, opening: make(map[*forward.Client]*opening)}
	c.peers[b] = next
	c.mu.Unlock()
	if ps != nil {
		ps.retire()
	}
	return next, nil
}

// Join implements forward.Carrier.
func (c *carrier) Join(
	ctx context.Context, b *forward.Backend, via *forward.Via, client *forward.Client, terms forward.Terms,
) (joined any, reused bool, err error) {
	ps, err := c.of(b, via)
	if err != nil {
		return nil, false, err
	}
	for {
		ps.mu.Lock()
		if p := ps.roomLocked(client); p != nil {
			p.using++
			ps.mu.Unlock()
			return p, true, nil
		}
		o := ps.opening[client]
		if o == nil {
			if len(ps.conns) >= maxPeers {
				ps.mu.Unlock()
				return nil, false, errPeers
			}
			o = &opening{done: make(chan struct{})}
			ps.opening[client] = o
			ps.mu.Unlock()
			p, err := ps.open(ctx, client, terms, o)
			if err != nil {
				return nil, false, err
			}
			return p, false, nil
		}
		ps.mu.Unlock()
		select {
		case <-o.done:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
		if o.err != nil && !errors.Is(o.err, context.Canceled) { // which is its own client's doing
			return nil, false, o.err
		}
	}
}

// roomLocked returns a connection that may carry one more request.
func (ps *peers) roomLocked(client *forward.Client) *peer {
	for _, p := range ps.conns {
		if p.client == client && p.using < p.conn.Limit() {
			return p
		}
	}
	return nil
}

// open opens a connection for the caller and whoever waits for o.
func (ps *peers) open(ctx context.Context, client *forward.Client, terms forward.Terms, o *opening) (*peer, error) {
	stream, err := ps.backend.Open(ctx, ps.via, client, terms)
	var p *peer
	if err == nil {
		p = &peer{peers: ps, stream: stream, client: client, using: 1}
		p.conn = h2.New(stream, nil, h2.Options{
			Client: true, Waited: p.waited, Idle: func() time.Duration { return ps.carrier.server.opts.peerSilence },
			Stall: ps.carrier.server.opts.ResponseTimeout,
		})
	}
	ps.mu.Lock()
	delete(ps.opening, client)
	if err == nil {
		ps.conns = append(ps.conns, p)
		ps.carrier.reader.Add(1)
	}
	ps.mu.Unlock()
	o.err = err
	close(o.done)
	if err != nil {
		return nil, err
	}
	go p.read()
	return p, nil
}

// read reads until the connection ends, and forgets it.
func (p *peer) read() {
	defer p.peers.carrier.reader.Done()
	if errors.Is(p.conn.Run(), h2.ErrFlood) { // how else it ends every stream says
		p.peers.carrier.server.metrics.floods2.Add(1)
	}
	p.conn.Close()
	ps := p.peers
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for i, other := range ps.conns {
		if other == p {
			ps.conns = append(ps.conns[:i:i], ps.conns[i+1:]...)
			break
		}
	}
}

// waited is called when nothing has come for peerSilence, or the reader was interrupted.
func (p *peer) waited() error {
	heard := p.conn.Heard()
	quiet := heard == p.heard
	p.heard = heard
	switch {
	case p.conn.Open() == 0:
		p.asked = false
		return nil
	case !quiet || !p.asked:
		p.asked = true
		p.conn.Ping()
		return nil
	}
	return errNoSign
}

// release gives the connection back after a request.
func (p *peer) release() {
	ps := p.peers
	ps.mu.Lock()
	p.using--
	p.since = time.Now()
	unneeded := p.using == 0 && (ps.retired || p.conn.Limit() == 0)
	ps.mu.Unlock()
	if unneeded {
		p.conn.Close()
	}
}

// retire leaves every connection: what they carry is finished, nothing is added.
func (ps *peers) retire() {
	ps.mu.Lock()
	ps.retired = true
	conns := append([]*peer(nil), ps.conns...)
	var idle []*peer
	for _, p := range conns {
		if p.using == 0 {
			idle = append(idle, p)
		}
	}
	ps.mu.Unlock()
	for _, p := range conns {
		p.conn.Leave()
	}
	for _, p := range idle {
		p.conn.Close()
	}
}

// sweep closes what nobody has needed since before.
func (ps *peers) sweep(before time.Time) {
	var idle []*peer
	ps.mu.Lock()
	for _, p := range ps.conns {
		if p.using == 0 && (p.since.Before(before) || p.client != nil && p.client.HasGone() || p.conn.Limit() == 0) {
			idle = append(idle, p)
		}
	}
	for _, p := range idle {
		p.using = 1 << 30 // nobody joins it
	}
	ps.mu.Unlock()
	for _, p := range idle {
		p.conn.Leave()
		p.conn.Close()
	}
}
