package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/bgp/internal/engine"
)

// Limits and timing.
const (
	maxNeighbors = 256
	defaultHold  = 9 * time.Second
	stopWait     = 2 * time.Second
	settle       = 250 * time.Millisecond // the table is read again at least this often
)

// A Neighbor is one speaker that the router hears.
type Neighbor struct {
	Address  netip.Addr
	ASN      uint32
	Port     uint16        // dialled unless Passive; 0 = 179
	Password string        // TCP MD5; empty = none; needs GODEBUG=multipathtcp=0 in the process
	Hold     time.Duration // whole seconds from 3 s; 0 = 9 s
	Passive  bool          // wait for it to dial
}

// Options makes a Router. ASN and Listen are required.
type Options struct {
	ASN       uint32
	RouterID  netip.Addr     // IPv4; zero = Listen's address if that is IPv4
	Listen    netip.AddrPort // also the source of sessions that the router dials
	Neighbors []Neighbor     // at most 256
	Log       *slog.Logger   // nil discards
}

// A Route is one route of one neighbor.
type Route struct {
	Prefix      netip.Prefix
	From        netip.Addr // neighbor
	NextHop     netip.Addr
	ASPath      []uint32
	Communities []uint32 // RFC 1997, high 16 bits first
	MED         uint32
}

// A Session is the state of one neighbor.
type Session struct {
	Address   netip.Addr
	ASN       uint32
	State     string // idle, active, opensent, openconfirm, established
	Since     time.Time
	LastError string // why it is not established, if known
	Received  int    // prefixes
}

// A Router is one receive-only BGP router. All methods may be called at any time by several goroutines.
type Router struct {
	// Immutable.
	opts  Options
	watch chan struct{} // capacity 1

	mu       sync.Mutex // guards the rest
	routes   []Route
	sessions []Session
	ran      bool
}

// New checks the options. It binds nothing: GoBGP binds when Run starts it.
func New(opts Options) (*Router, error) {
	if opts.ASN == 0 {
		return nil, errors.New("router: ASN is missing")
	}
	if !opts.Listen.IsValid() || opts.Listen.Port() == 0 {
		return nil, fmt.Errorf("router: listen address %q needs an address and a port", opts.Listen)
	}
	if !opts.RouterID.IsValid() {
		opts.RouterID = opts.Listen.Addr()
	}
	if !opts.RouterID.Is4() {
		return nil, fmt.Errorf("router: router ID %s is not an IPv4 address", opts.RouterID)
	}
	if len(opts.Neighbors) > maxNeighbors {
		return nil, fmt.Errorf("router: %d neighbors, at most %d", len(opts.Neighbors), maxNeighbors)
	}
	seen := map[netip.Addr]bool{}
	for _, n := range opts.Neighbors {
		switch {
		case !n.Address.IsValid() || n.ASN == 0:
			return nil, fmt.Errorf("router: neighbor %s needs an address and an ASN", n.Address)
		case n.Address.Is4() != opts.Listen.Addr().Is4():
			return nil, fmt.Errorf("router: neighbor %s and listen address %s differ in family", n.Address, opts.Listen.Addr())
		case n.Hold != 0 && (n.Hold < 3*time.Second || n.Hold%time.Second != 0):
			return nil, fmt.Errorf("router: neighbor %s: hold %s is not whole seconds from 3 s", n.Address, n.Hold)
		case seen[n.Address]:
			return nil, fmt.Errorf("router: neighbor %s appears twice", n.Address)
		}
		seen[n.Address] = true
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Router{opts: opts, watch: make(chan struct{}, 1)}, nil
}

// Run binds the listener and hears neighbors until ctx ends; it may be called once. An address in use is returned as an
// error at once. Several routers in one process are run by RunAll.
func (r *Router) Run(ctx context.Context) error { return RunAll(ctx, r) }

// RunAll runs several routers in one process until ctx ends or one fails. GoBGP keeps some options in package variables
// that every start writes, so all servers start before any of them speaks. For the same reason nothing else in the
// process may start a router meanwhile.
func RunAll(ctx context.Context, routers ...*Router) error {
	var engines []*engine.Engine
	defer func() {
		for i, e := range engines {
			routers[i].stop(e)
		}
	}()
	for _, r := range routers {
		e, err := r.start()
		if err != nil {
			return err
		}
		engines = append(engines, e)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make([]error, len(routers))
	var wg sync.WaitGroup
	for i, r := range routers {
		wg.Go(func() {
			defer cancel()
			failed[i] = r.serve(ctx, engines[i])
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}

// start binds the listener.
func (r *Router) start() (*engine.Engine, error) {
	r.mu.Lock()
	ran := r.ran
	r.ran = true
	r.mu.Unlock()
	if ran {
		return nil, errors.New("router: Run was called twice")
	}
	e, err := engine.Start(engine.Options{
		ASN: r.opts.ASN, RouterID: r.opts.RouterID, Receive: true, Log: r.opts.Log,
		Listen: []netip.Addr{r.opts.Listen.Addr()}, Port: int(r.opts.Listen.Port()),
	})
	if err != nil {
		return nil, fmt.Errorf("router %s: %w", r.opts.Listen, err)
	}
	return e, nil
}

// serve hears neighbors until ctx ends.
func (r *Router) serve(ctx context.Context, e *engine.Engine) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { e.Run(ctx) })
	for _, n := range r.opts.Neighbors {
		if err := e.Add(engine.Neighbor{
			Address: n.Address, Local: r.opts.Listen.Addr(), ASN: n.ASN, Port: n.Port,
			Password: n.Password, Hold: cmp.Or(n.Hold, defaultHold), Passive: n.Passive,
		}); err != nil {
			return fmt.Errorf("router %s: %w", r.opts.Listen, err)
		}
	}
	tick := time.NewTicker(settle)
	defer tick.Stop()
	for {
		r.look(e)
		select {
		case <-ctx.Done():
			return nil
		case <-e.Changed():
		case <-tick.C:
		}
	}
}

// stop says goodbye to the neighbors and empties the table.
func (r *Router) stop(e *engine.Engine) {
	if err := e.Stop(stopWait); err != nil {
		r.opts.Log.Warn("router did not stop cleanly", "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.routes, r.sessions = nil, nil
}

// Routes returns the table, sorted by prefix and neighbor; empty before and after Run. It is the caller's.
func (r *Router) Routes() []Route {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Route, len(r.routes))
	copy(out, r.routes)
	return out
}

// Sessions returns every neighbor's session, sorted by address; empty before and after Run. It is the caller's.
func (r *Router) Sessions() []Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Session, len(r.sessions))
	copy(out, r.sessions)
	return out
}

// Watch receives (capacity 1) after Routes or Sessions changed. One reader.
func (r *Router) Watch() <-chan struct{} { return r.watch }

// look reads the table and wakes the watcher when something differs.
func (r *Router) look(e *engine.Engine) {
	paths, err := e.Paths()
	if err != nil {
		r.opts.Log.Warn("read routes", "error", err)
		return
	}
	routes := make([]Route, 0, len(paths))
	for _, p := range paths {
		if p.From.IsValid() {
			routes = append(routes, Route{
				Prefix: p.Prefix, From: p.From, NextHop: p.NextHop,
				ASPath: p.ASPath, Communities: p.Communities, MED: p.MED,
			})
		}
	}
	states := e.Sessions()
	sessions := make([]Session, 0, len(states))
	for _, s := range states {
		sessions = append(sessions, Session{
			Address: s.Address, ASN: s.ASN, State: s.State, Since: s.Since,
			LastError: s.LastError, Received: s.Received,
		})
	}
	r.mu.Lock()
	changed := !equalRoutes(r.routes, routes) || !slices.Equal(r.sessions, sessions)
	r.routes, r.sessions = routes, sessions
	r.mu.Unlock()
	if changed {
		select {
		case r.watch <- struct{}{}:
		default:
		}
	}
}

func equalRoutes(a, b []Route) bool {
	return slices.EqualFunc(a, b, func(x, y Route) bool {
		return x.Prefix == y.Prefix && x.From == y.From && x.NextHop == y.NextHop && x.MED == y.MED &&
			slices.Equal(x.ASPath, y.ASPath) && slices.Equal(x.Communities, y.Communities)
	})
}
