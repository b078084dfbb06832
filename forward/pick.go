package forward

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/internal/steer"
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
	fleet    []netip.Addr // every node's, sorted; nil where no service overflows
	metered  bool         // some pool has a rate
	registry *Registry
}

// A pool is the active backends of a service.
type pool struct {
	service string
	policy  Policy
	group   *group
	members int // active or not
	active  []*Backend
	// overflow are addresses at other sites, fleet those of every node.
	overflow []netip.Addr
	fleet    []netip.Addr
	shared   bool // the backends speak HTTP/2
	weights  []uint64
	sums     []uint64 // sums[i] is the sum of weights[:i+1]
	parts    []uint64 // how much of the configured weight is in weights, in rampFull-ths
	alias    alias
	turns    sequence // of RoundRobin
	turn     *atomic.Uint64
	rate     *Meter // nil = any
	zoned    *zoned // nil = there are no availability zones
	hashing  hashing

	// ramps are those of active. ramping is false once all are over, which is at
	// over. first is the one that is furthest; −1 if some backend has none.
	ramps   []ramp
	ramping atomic.Bool
	over    int64
	first   int
	now     func() int64
}

func (p *pool) add(b *Backend, m Member, r ramp) {
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
	w, part := uint64(max(m.Weight, 1)), uint64(rampFull)
	if full := uint64(max(m.Base, 0)) * steer.FullWeight; w < full {
		part = w * rampFull / full
	}
	p.parts = append(p.parts, part)
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
	// Key is what the work is bound to a backend by, made by Edition.Key; 0 = nothing.
	Key uint64
	// Datagram: the work is a UDP session, which is hashed unless another algorithm was chosen.
	Datagram bool
	// Carrier is needed where a service has a Transport with TLS or HTTP/2; nil = there is none.
	Carrier Carrier
	// Client is whom the work is for, where a Transport sends PROXY headers; nil = nobody knows.
	Client *Client
	// Overflow is the port of other sites' VIPs that takes what the own pool cannot; 0 = nobody does.
	Overflow uint16
	// Elsewhere is how other sites' VIPs are spoken to; nil = as they come.
	Elsewhere *Elsewhere
}

// A Lease is a backend and a connection to it, on loan for one unit of work.
type Lease struct {
	Backend *Backend
	Stream  *Stream // nil if the connection is shared
	// Joined is what the Carrier gave for a connection that is shared.
	Joined any
	// Via is what the connection was made by.
	Via *Via
	// Reused: the connection has carried earlier work.
	Reused bool
	// Waited: it was queued for, so that whoever wanted it may have left.
	Waited bool
	shard  uint32
	client *Client
}

// Key says what work for a service is to be hashed by; its Kind is KeyNone if it is not.
func (e *Edition) Key(service string, datagram bool) Key {
	p := e.pools[service]
	switch {
	case p == nil:
		return Key{}
	case p.policy.Algorithm == Source:
		return Key{Kind: KeyClient}
	case p.policy.Auto && datagram:
		return Key{Kind: KeyFlow}
	case !p.policy.Algorithm.hashes():
		return Key{}
	}
	key := p.policy.Key
	if key.Kind == KeyNone {
		key.Kind = KeyClient
	}
	key.crc = p.policy.Algorithm == Ring
	return key
}

// Pick chooses a backend of service by its policy and begins a lease of it without connecting,
// for those that connect themselves (see Claim). tried are
// those that it must not be. It never waits: the error wraps ErrNoPlan, ErrNoPool, ErrNoBackend, or
// ErrFull when all that are left have as much as they may; Await queues for one then.
// It allocates nothing unless it fails.
func (e *Edition) Pick(service string, terms Terms, tried []*Backend) (*Backend, error) {
	p := e.pools[service]
	if p == nil || len(p.active) == 0 {
		if b := e.registry.spill(p, terms, tried); b != nil {
			return b, nil
		}
		return nil, fmt.Errorf("%w for service %q", e.absence(p), service)
	}
	if len(tried) > 0 || p.group.line.length.Load() == 0 { // nobody overtakes who waits
		if b := p.reserve(terms.Key, terms.Datagram, tried); b != nil {
			return b, nil
		}
	}
	if b := e.registry.spill(p, terms, tried); b != nil {
		return b, nil
	}
	if p.policy.Limit.PerBackend == 0 {
		return nil, fmt.Errorf("%w for service %q", ErrNoBackend, service)
	}
	return nil, fmt.Errorf("%w for service %q", ErrFull, service)
}

// Await is Pick after it failed with ErrFull: it queues for as long as the service's Limit allows.
// The error wraps ErrFull, ErrLineFull, ErrLineWaits, ErrNoBackend or that of ctx.
func (e *Edition) Await(ctx context.Context, service string, terms Terms) (*Backend, error) {
	p := e.pools[service]
	if p == nil {
		return nil, fmt.Errorf("%w for service %q", e.absence(p), service)
	}
	return e.registry.wait(ctx, p.group, p.policy.Limit, service, terms)
}

// Borrow picks a backend of service by its policy and returns a connection to it,
// avoiding those that refused a connection a moment ago or are ejected. When one cannot be
// connected to it tries another, up to three in all. While every backend has as much as it may, it
// queues. The error wraps ErrNoPlan, ErrNoPool, ErrNoBackend, ErrFull, ErrLineFull, ErrLineWaits, or
// what the network said. The caller releases the lease exactly once.
func (e *Edition) Borrow(ctx context.Context, service string, terms Terms) (Lease, error) {
	var space [MaxAttempts]*Backend
	tried := space[:0]
	var errs []error
	waited := false
	for range MaxAttempts {
		b, err := e.Pick(service, terms, tried)
		if errors.Is(err, ErrFull) && len(tried) == 0 {
			waited = true
			b, err = e.Await(ctx, service, terms)
		}
		if err != nil && len(tried) == 0 {
			return Lease{}, err
		}
		if err != nil {
			break
		}
		lease, err := b.lease(ctx, terms)
		if err == nil {
			lease.Waited = waited
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

// lease turns a lease that has begun into one with a connection, or ends it.
func (b *Backend) lease(ctx context.Context, terms Terms) (Lease, error) {
	l := Lease{Backend: b, Via: b.via.Load(), shard: terms.Shard}
	if l.Via.SendProxy > 0 {
		l.client = terms.Client
	}
	for terms.Reuse && !l.Via.Shared() {
		s := b.idle.get(terms.Shard, l.Via, l.client)
		if s == nil {
			break
		}
		if s.Quiet() {
			b.reuses.Add(1)
			l.Stream, l.Reused = s, true
			return l, nil
		}
		b.stale.Add(1)
		_ = s.Close()
	}
	if err := l.connect(ctx, terms); err != nil {
		b.end()
		return Lease{}, err
	}
	return l, nil
}

// connect gives the lease a connection that is fresh, or shared.
func (l *Lease) connect(ctx context.Context, terms Terms) (err error) {
	b := l.Backend
	if !l.Via.Shared() {
		l.Reused = false
		l.Stream, err = b.Open(ctx, l.Via, l.client, terms)
		return err
	}
	if terms.Carrier == nil {
		return errNoCarrier
	}
	l.Joined, l.Reused, err = terms.Carrier.Join(ctx, b, l.Via, l.client, terms)
	if err == nil && l.Reused {
		b.reuses.Add(1)
	}
	return err
}

// Renew replaces the connection of a reused lease that turned out to be dead by
// a fresh one to the same backend, or one that is shared by another such. On an error the lease is released.
func (l *Lease) Renew(ctx context.Context, terms Terms) error {
	b := l.Backend
	b.stale.Add(1)
	if l.Stream != nil {
		_ = l.Stream.Close()
	}
	l.Via = b.via.Load()
	if err := l.connect(ctx, terms); err != nil {
		b.end()
		return err
	}
	return nil
}

// Release ends the lease. keep says that the connection is between two units of
// work and may be lent again; otherwise it is closed. One that is shared is the Carrier's.
func (l *Lease) Release(keep bool) {
	b := l.Backend
	switch {
	case l.Stream == nil:
	case !keep || b.retired.Load() || !b.active.Load() || b.via.Load() != l.Via || l.client != nil && l.client.gone.Load():
		_ = l.Stream.Close()
	default:
		b.idle.put(idleConn{stream: l.Stream, since: time.Now(), via: l.Via, client: l.client}, l.shard)
	}
	b.end()
}
