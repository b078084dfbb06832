package forward

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/internal/descriptors"
)

// Defaults and limits of Options.
const (
	DefaultMaxIdle     = 256
	DefaultIdleTimeout = 30 * time.Second
	DefaultPenalty     = time.Second
	maxIdleShards      = 8
)

// Options are what a Registry needs.
type Options struct {
	// Pools says which backends there are, usually FromBoard. Required.
	Pools Pools
	// MaxIdle is how many idle upstream connections are kept per backend,
	// 0 … 65536; 0 means DefaultMaxIdle. One more is closed and counted.
	MaxIdle int
	// IdleTimeout is how long an idle upstream connection is kept; 0 means
	// DefaultIdleTimeout.
	IdleTimeout time.Duration
	// Penalty is how long a backend that refused a connection is passed over
	// while others are left; 0 means DefaultPenalty.
	Penalty time.Duration
	// Outcome is told whether a backend of a service did its work, so that passive
	// checks can count: false when it refused a connection, or broke off, said nothing
	// or answered with an error; true when an L4 connection to it was opened or it
	// answered a request. What a client, or this machine, is to blame for is not told. It
	// is called on the way of every unit of work, by any number of goroutines, and
	// must not block. nil = nobody asks.
	Outcome func(service string, address netip.AddrPort, ok bool)
	// Registerer takes the metrics; nil = none.
	Registerer prometheus.Registerer
}

// An identity names a backend for longer than any plan.
type identity struct {
	service string
	address netip.AddrPort
}

// A Registry holds the runtime state of every backend. Any number of goroutines
// may use it.
type Registry struct {
	// Immutable.
	pools   Pools
	maxIdle int
	idleFor time.Duration
	penalty time.Duration
	shards  int
	outcome func(service string, address netip.AddrPort, ok bool) // nil = nobody asks
	start   time.Time                                             // what the monotonic times of backends count from

	intake  Intake
	edition atomic.Pointer[Edition]

	ejecting sync.Mutex // held for one ejection at a time, so that the cap holds

	mu       sync.Mutex // guards the rest and the making of editions
	backends map[identity]*Backend
	groups   map[string]*group // by service
}

// New returns a Registry. It opens nothing and starts nothing.
func New(opts Options) (*Registry, error) {
	if opts.Pools == nil {
		return nil, errors.New("forward: Options.Pools is required")
	}
	if opts.MaxIdle < 0 || opts.MaxIdle > 65536 {
		return nil, fmt.Errorf("forward: Options.MaxIdle is %d, want 0 … 65536", opts.MaxIdle)
	}
	if opts.IdleTimeout < 0 || opts.Penalty < 0 {
		return nil, errors.New("forward: durations must not be negative")
	}
	r := &Registry{
		pools:    opts.Pools,
		maxIdle:  cmp.Or(opts.MaxIdle, DefaultMaxIdle),
		idleFor:  cmp.Or(opts.IdleTimeout, DefaultIdleTimeout),
		penalty:  cmp.Or(opts.Penalty, DefaultPenalty),
		outcome:  opts.Outcome,
		shards:   min(runtime.GOMAXPROCS(0), maxIdleShards),
		start:    time.Now(),
		backends: make(map[identity]*Backend),
		groups:   make(map[string]*group),
	}
	r.intake.start, r.intake.descriptors = r.start, descriptors.Forwarding()
	r.intake.Set(0, 0)
	if opts.Registerer != nil {
		if err := opts.Registerer.Register(collector{r}); err != nil {
			return nil, fmt.Errorf("register forward metrics: %w", err)
		}
	}
	return r, nil
}

// Load returns the newest edition: two atomic loads unless the pools changed
// since the last call. A caller loads once per unit of work.
func (r *Registry) Load() *Edition {
	e := r.edition.Load()
	if e != nil && e.version == r.pools.Version() {
		return e
	}
	return r.refresh(e)
}

// refresh makes the edition for the newest pools. While one goroutine does so
// the others go on with the edition they have.
func (r *Registry) refresh(have *Edition) *Edition {
	if have == nil {
		r.mu.Lock()
	} else if !r.mu.TryLock() {
		return have
	}
	defer r.mu.Unlock()
	version, pools := r.pools.Edition()
	if e := r.edition.Load(); e != nil && e.version == version {
		return e
	}
	e := &Edition{version: version, pools: make(map[string]*pool, len(pools)), registry: r}
	listed := make(map[identity]bool, len(r.backends))
	for i := range pools {
		p := r.assemble(&pools[i], listed)
		e.pools[p.service], e.metered = p, e.metered || p.rate != nil
		if pools[i].Fleet != nil {
			e.fleet = pools[i].Fleet
		}
	}
	r.edition.Store(e)
	for service, g := range r.groups {
		if e.pools[service] == nil && g.inFlight.Load() == 0 && g.line.length.Load() == 0 {
			delete(r.groups, service)
		}
		g.line.callAll()
	}
	for id, b := range r.backends {
		if listed[id] || b.elsewhere && e.pools[id.service] != nil && slices.Contains(e.pools[id.service].overflow, id.address.Addr()) {
			continue
		}
		b.retired.Store(true)
		b.depart(true, false, r.now())
		b.idle.closeAll()
		if b.inFlight.Load() == 0 {
			delete(r.backends, id)
		}
	}
	return e
}

// assemble turns a ServicePool into the form that is picked from. r.mu is held.
func (r *Registry) assemble(sp *ServicePool, listed map[identity]bool) *pool {
	g := r.groups[sp.Service]
	if g == nil {
		g = &group{service: sp.Service}
		r.groups[sp.Service] = g
	}
	p := &pool{service: sp.Service, policy: sp.Policy, group: g, members: len(sp.Members), now: r.now, first: -1, turn: &g.turns[0]}
	p.overflow, p.fleet, p.shared = sp.Overflow, sp.Fleet, sp.Transport.Shared()
	if g.rate.Rate() != sp.Policy.Limit.Rate { // what was used of one that stays is not forgotten
		g.rate = NewMeter(sp.Policy.Limit.Rate)
	}
	p.rate = g.rate
	p.policy.Eject = p.policy.Eject.withDefaults()
	if sp.Zoned {
		p.zoned = newZoned(p, sp.Stays)
	}
	now := r.now()
	// One that asks for no new work gets it if nobody else is there to do it.
	working := slices.ContainsFunc(sp.Members, func(m Member) bool { return m.Active && !m.Resting })
	for _, m := range sp.Members {
		id := identity{service: sp.Service, address: m.Address}
		if listed[id] {
			continue // named twice; the first counts
		}
		listed[id] = true
		b := r.backends[id]
		if b == nil {
			b = newBackend(r, id, g)
			r.backends[id] = b
		}
		b.retired.Store(false)
		b.near.Store(m.Near)
		ramp := b.turn(m.Active, sp.SlowStart, now)
		works := m.Active && !(m.Resting && working)
		b.active.Store(works)
		b.depart(!m.Active, m.Drained, now)
		b.policy.Store(&p.policy)
		b.limit.Store(p.policy.Limit.PerBackend)
		b.setVia(sp.Transport)
		b.warm.Store(int32(sp.Warm))
		if !works {
			b.idle.closeAll()
			p.hashing.note(m, -1)
			continue
		}
		p.hashing.note(m, len(p.active))
		p.add(b, m, ramp)
		p.zoned.add(b, m, ramp)
	}
	return p
}

// forget drops a retired backend whose last use has ended.
func (r *Registry) forget(b *Backend) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.retired.Load() && b.inFlight.Load() == 0 && r.backends[b.id] == b {
		delete(r.backends, b.id)
	}
	b.idle.closeAll()
}

// Sweep closes idle upstream connections that have been idle for too long or
// whose backend has left the plan. Package l7 calls it about every second.
func (r *Registry) Sweep(now time.Time) {
	r.Load()
	r.compare()
	for _, b := range r.list() {
		b.sweepIdle(now.Add(-r.idleFor))
	}
}

// Close closes every idle upstream connection. The Registry stays usable.
func (r *Registry) Close() error {
	for _, b := range r.list() {
		b.idle.closeAll()
	}
	return nil
}

func (r *Registry) list() []*Backend {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*Backend, 0, len(r.backends))
	for _, b := range r.backends {
		all = append(all, b)
	}
	return all
}

// now is the registry's monotonic time in nanoseconds, never 0.
func (r *Registry) now() int64 { return int64(time.Since(r.start)) + 1 }

// Snapshot returns the state of every known backend, sorted by service and
// address: those of the newest plan, and those that have left it but are still
// in use.
func (r *Registry) Snapshot() []Status {
	r.Load()
	all := r.list()
	out := make([]Status, len(all))
	for i, b := range all {
		out[i] = b.status()
	}
	slices.SortFunc(out, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), a.Address.Compare(b.Address))
	})
	return out
}
