package forward

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// MaxAttempts bounds how many backends one unit of work tries to connect to.
const MaxAttempts = 3

// The reasons why Borrow has no backend to give. They are wrapped with the
// service's name.
var (
	ErrNoPlan    = errors.New("nothing decided yet")
	ErrNoPool    = errors.New("no pool at this site")
	ErrNoBackend = errors.New("no healthy backend")
)

// An Edition is every pool at one moment. It is immutable; what its backends
// are carrying is not.
type Edition struct {
	version  uint64
	pools    map[string]*pool
	registry *Registry
}

// A pool is the active backends of a service.
type pool struct {
	service string
	members int // active or not
	active  []*Backend
	weights []uint64
	sums    []uint64 // sums[i] is the sum of weights[:i+1]

	// ramps are those of active. ramping is false once all are over, which is at
	// over. first is the one that is furthest; −1 if some backend has none.
	ramps   []ramp
	ramping atomic.Bool
	over    int64
	first   int
	now     func() int64
}

func (p *pool) add(b *Backend, weight int, r ramp) {
	if r != (ramp{}) {
		p.ramping.Store(true)
		p.over = max(p.over, r.over)
	}
	switch n := len(p.ramps); {
	case r == (ramp{}):
		p.first = -1
	case n == 0:
		p.first = 0
	case p.first >= 0 && r.from < p.ramps[p.first].from:
		p.first = n
	}
	p.ramps = append(p.ramps, r)
	w := uint64(max(weight, 1))
	p.active = append(p.active, b)
	p.weights = append(p.weights, w)
	sum := w
	if n := len(p.sums); n > 0 {
		sum += p.sums[n-1]
	}
	p.sums = append(p.sums, sum)
}

// Terms say how Borrow gets a connection.
type Terms struct {
	// Connect bounds one attempt to connect.
	Connect time.Duration
	// Reuse allows an idle connection from an earlier lease.
	Reuse bool
	// Shard says which idle connections to look at first; any number that is
	// spread over the callers.
	Shard uint32
}

// A Lease is a backend and a connection to it, on loan for one unit of work.
type Lease struct {
	Backend *Backend
	Stream  *Stream
	// Reused: the connection has carried earlier work.
	Reused bool
	shard  uint32
}

// Borrow picks a backend of service and returns a connection to it: the less
// loaded of two drawn by weight, avoiding those that refused a connection a
// moment ago. When one cannot be connected to it tries another, up to three in
// all. The error wraps ErrNoPlan, ErrNoPool, ErrNoBackend, or what the network
// said. The caller releases the lease exactly once.
func (e *Edition) Borrow(ctx context.Context, service string, terms Terms) (Lease, error) {
	p := e.pools[service]
	if p == nil || len(p.active) == 0 {
		return Lease{}, fmt.Errorf("%w for service %q", e.absence(p), service)
	}
	var space [MaxAttempts]*Backend
	tried := space[:0]
	var errs []error
	for range MaxAttempts {
		b := p.pick(tried)
		if b == nil {
			break
		}
		lease, err := b.lease(ctx, terms)
		if err == nil {
			return lease, nil
		}
		errs = append(errs, err)
		tried = append(tried, b)
		if ctx.Err() != nil {
			break
		}
	}
	return Lease{}, fmt.Errorf("no connection for service %q: %w", service, errors.Join(errs...))
}

func (e *Edition) absence(p *pool) error {
	switch {
	case e.version == 0:
		return ErrNoPlan
	case p == nil || p.members == 0:
		return ErrNoPool
	default:
		return ErrNoBackend
	}
}

func (b *Backend) lease(ctx context.Context, terms Terms) (Lease, error) {
	b.begin()
	for terms.Reuse {
		s := b.idle.get(terms.Shard)
		if s == nil {
			break
		}
		if s.Quiet() {
			b.reuses.Add(1)
			return Lease{Backend: b, Stream: s, Reused: true, shard: terms.Shard}, nil
		}
		b.stale.Add(1)
		_ = s.Close()
	}
	s, err := b.dial(ctx, terms.Connect)
	if err != nil {
		b.end()
		return Lease{}, err
	}
	return Lease{Backend: b, Stream: s, shard: terms.Shard}, nil
}

// Renew replaces the connection of a reused lease that turned out to be dead by
// a fresh one to the same backend. On an error the lease is released.
func (l *Lease) Renew(ctx context.Context, connect time.Duration) error {
	l.Backend.stale.Add(1)
	_ = l.Stream.Close()
	s, err := l.Backend.dial(ctx, connect)
	if err != nil {
		l.Backend.end()
		return err
	}
	l.Stream, l.Reused = s, false
	return nil
}

// Release ends the lease. keep says that the connection is between two units of
// work and may be lent again; otherwise it is closed.
func (l *Lease) Release(keep bool) {
	if !keep || l.Backend.retired.Load() || !l.Backend.active.Load() {
		_ = l.Stream.Close()
	} else {
		l.Backend.idle.put(l.Stream, l.shard)
	}
	l.Backend.end()
}

// pick returns a backend that is not in tried, nil when none is left.
func (p *pool) pick(tried []*Backend) *Backend {
	n := len(p.active)
	if n == 1 {
		if len(tried) > 0 {
			return nil
		}
		return p.active[0]
	}
	now := p.rampTime()
	i, j := 0, 0
	if now == 0 {
		i, j = p.draw(), p.draw()
	} else {
		i, j = p.drawShare(now), p.drawShare(now)
	}
	if j == i { // the neighbour, so that two are always compared
		j = (i + 1 + rand.IntN(n-1)) % n
		if p.weight(j, now)*8 < p.weight(i, now) {
			j = i // too small to be half of a fair pair
		}
	}
	if p.lessLoaded(j, i, now) {
		i = j
	}
	b := p.active[i]
	if !b.penalised() && !slices.Contains(tried, b) {
		return b
	}
	return p.scan(tried, now)
}

// scan goes through all backends: the least loaded one that is neither tried
// nor penalised, else the least loaded one that is not tried.
func (p *pool) scan(tried []*Backend, now int64) *Backend {
	best, fallback := -1, -1
	offset := rand.IntN(len(p.active))
	for k := range p.active {
		i := (k + offset) % len(p.active)
		b := p.active[i]
		if slices.Contains(tried, b) {
			continue
		}
		if fallback < 0 || p.lessLoaded(i, fallback, now) {
			fallback = i
		}
		if !b.penalised() && (best < 0 || p.lessLoaded(i, best, now)) {
			best = i
		}
	}
	switch {
	case best >= 0:
		return p.active[best]
	case fallback >= 0:
		return p.active[fallback]
	default:
		return nil
	}
}

// draw returns an index at random, by weight.
func (p *pool) draw() int {
	x := rand.Uint64N(p.sums[len(p.sums)-1])
	if len(p.sums) <= 8 {
		for i, s := range p.sums {
			if x < s {
				return i
			}
		}
	}
	i, _ := slices.BinarySearch(p.sums, x+1)
	return i
}

// lessLoaded reports whether backend i carries less for its weight than j, at a
// time of rampTime.
func (p *pool) lessLoaded(i, j int, now int64) bool {
	a := uint64(max(p.active[i].inFlight.Load(), 0))
	b := uint64(max(p.active[j].inFlight.Load(), 0))
	return a*p.weight(j, now) < b*p.weight(i, now)
}
