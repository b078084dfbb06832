package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/pharos-lb/pharos/bgp/bfd"
	"github.com/pharos-lb/pharos/bgp/internal/engine"
)

// Timing of the child.
const (
	reportEvery = time.Second            // reports also go out on changes
	retryEvery  = 2 * time.Second        // what failed to install is tried again
	lapseGrace  = 50 * time.Millisecond  // to read a renewal that waits in the pipe of a child that was itself stalled
	deadman     = 500 * time.Millisecond // after the lease ran out, the process ends if the withdrawal is not done
	stopWait    = 1500 * time.Millisecond
)

// ChildMain is the child: it reads orders from in, writes reports to out and logs (one JSON object a line) to errs. It
// returns nil after the parent told it to stop, closed in, or ctx ended, always with every route withdrawn and every
// session closed; an error when it cannot go on. The process must then exit, since GoBGP leaves a goroutine behind.
//
// It ignores SIGINT, SIGTERM and SIGHUP, which reach a whole control group: the parent ends the child in its own order.
func ChildMain(ctx context.Context, in io.Reader, out, errs io.Writer) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	lines := newLineQueue(errs)
	defer lines.flush()
	log := slog.New(slog.NewJSONHandler(lines, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := &child{log: log, confine: confine, armed: make(chan bool, 1), live: newLiveness(bfd.New(bfd.Options{Log: log})), die: func(reason string) {
		log.Error("the BGP child ends itself", "reason", reason)
		lines.flush()
		os.Exit(1)
	}}
	guard(c.armed)
	defer close(c.armed)
	err := c.run(ctx, in, out)
	if err != nil {
		log.Error("the BGP child cannot go on", "error", err)
	}
	return err
}

// child is the state of the child process.
type child struct {
	// Immutable.
	log   *slog.Logger
	die   func(reason string) // ends the process at once
	armed chan bool           // whether to die with the parent

	confine func(*slog.Logger) // gives privileges up, after the start

	// Owned by run.
	engine *engine.Engine // nil until the first state
	live   *liveness
	state  order // last one applied
	lapsed bool
	late   bool // the lease ran out less than lapseGrace ago
	lease  *time.Timer
	dead   *fuse
	routes []RouteStatus
	due    dues
	errors map[netip.Addr]string  // of peers that could not be added
	closed map[netip.Prefix]error // of those that stand for many
	seen   []Sighting
	looked time.Time // when seen was read
}

func (c *child) run(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	orders := make(chan order)
	// Not joined: it may sit in a read that nothing can interrupt. It ends
	// with in, or with the process.
	go readOrders(ctx, in, orders, c.log)
	reports := make(chan report, 1)
	go writeReports(ctx, out, reports, c.log)
	wg.Go(func() { c.startBFD(ctx) })

	c.lease = time.NewTimer(time.Hour)
	c.lease.Stop()
	defer func() {
		c.disarm()
		// When stopping hangs the process ends anyway, and the kernel
		// closes the sessions.
		watchdog := time.AfterFunc(2*stopWait, func() { c.die("stopping hung") })
		defer watchdog.Stop()
		cancel()
		wg.Wait()
		c.stop()
	}()
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	var changed <-chan struct{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case o, ok := <-orders:
			if !ok && c.state.Config.Restart > 0 {
				// The routers are to keep the routes for whoever comes next.
				c.die("the parent is gone, and the routers wait for another (graceful restart)")
			}
			if !ok || o.Kind == orderStop {
				return nil
			}
			if err := c.obey(o); err != nil {
				return err
			}
			if changed == nil && c.engine != nil {
				changed = c.engine.Changed()
				wg.Go(func() { c.engine.Run(ctx) })
			}
		case <-c.lease.C:
			if !c.late {
				c.late = true
				c.lease.Reset(lapseGrace)
				continue
			}
			if err := c.lapse(c.engine); err != nil {
				return err
			}
		case <-retry.C:
			if c.engine == nil || c.lapsed || !c.failing() {
				continue
			}
			if err := c.apply(c.state); err != nil {
				return err
			}
		case <-c.live.server.Changed():
			if c.engine == nil {
				continue
			}
			c.followBFD()
		case <-changed:
		case <-tick.C:
		}
		if c.engine != nil {
			offer(reports, c.report())
		}
	}
}

// obey carries one order out.
func (c *child) obey(o order) error {
	switch o.Kind {
	case orderRenew:
		if c.engine != nil && !c.lapsed {
			c.renew()
		}
		return nil
	case orderRelease, orderGuard:
		c.armed <- o.Kind == orderGuard
		return nil
	case orderState:
		if c.engine == nil {
			if err := c.start(o); err != nil {
				return err
			}
		}
		c.state = o
		c.renew()
		if c.lapsed {
			c.lapsed = false
			c.log.Info("the parent is back: announcing again")
		}
		return c.apply(o)
	default:
		return fmt.Errorf("unknown order %q", o.Kind)
	}
}

func (c *child) start(o order) error {
	e, err := engine.Start(engine.Options{
		ASN: o.Config.ASN, RouterID: o.Config.RouterID,
		Listen: listens(o.Config, o.Peers), Port: o.Config.ListenPort,
		Socket: o.Config.Socket, Log: c.log, Fatal: c.die,
	})
	if err != nil {
		return fmt.Errorf("listen on %v port %d: %w", listens(o.Config, o.Peers), o.Config.ListenPort, err)
	}
	c.engine = e
	c.confine(c.log)
	return nil
}

// renew starts the lease anew. The fuse does not depend on run or GoBGP being responsive.
func (c *child) renew() {
	c.disarm()
	c.lease.Reset(c.state.Config.Lease)
	c.dead = lightFuse(c.state.Config.Lease+lapseGrace, deadman, func() {
		c.die("the lease ran out and withdrawing hung")
	})
}

func (c *child) disarm() {
	c.late = false
	c.lease.Stop()
	if c.dead != nil {
		c.dead.cut()
	}
}

// A withdrawer is what lapse needs of the engine.
type withdrawer interface {
	WithdrawAll() error
	Paths() ([]engine.Path, error)
}

// lapse withdraws everything because the parent is silent. Sessions stay, so that a parent that comes back announces at
// once; they carry nothing. A withdrawal that fails or hangs ends the process, which withdraws for certain: the fuse
// burns until it is done.
func (c *child) lapse(server withdrawer) error {
	c.lapsed = true
	c.log.Warn("the lease ran out: withdrawing everything", "lease", c.state.Config.Lease.String())
	if err := server.WithdrawAll(); err != nil {
		return err
	}
	left, err := server.Paths()
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("%d routes are left after withdrawing all", len(left))
	}
	c.disarm()
	c.routes, c.due = nil, dues{}
	return nil
}

// apply makes the server look like the state. Only a server that cannot be read is an error.
func (c *child) apply(o order) error {
	desired := make([]engine.Path, len(o.Routes))
	for i, r := range o.Routes {
		desired[i] = o.Config.path(r, o.Peers)
	}
	routes, _, err := reconcile(c.engine, desired)
	if err != nil {
		return err
	}
	c.routes, c.due = routes, newDues(desired, routes)
	c.live.set(o.Peers)
	c.applyPeers(o.Peers)
	return nil
}

// applyPeers makes the neighbors equal to peers. One that fails stops no other.
func (c *child) applyPeers(peers []Peer) {
	c.errors = map[netip.Addr]string{}
	c.admit(peers)
	have := c.engine.Neighbors()
	want := make(map[netip.Addr]engine.Neighbor, len(peers))
	for _, p := range peers {
		if !c.live.holds(p) && !p.From.IsValid() {
			want[p.Address] = neighbor(c.state.Config, p)
		}
	}
	for a, n := range have {
		if want[a] == n {
			continue
		}
		if n, ok := want[a]; ok && c.engine.Retime(n) {
			have[a] = n
			continue
		}
		if err := c.engine.Remove(a); err != nil {
			c.errors[a] = err.Error()
			c.log.Warn("cannot remove peer", "peer", a, "error", err)
		}
	}
	for _, p := range peers {
		if p.From.IsValid() || c.live.holds(p) || have[p.Address] == want[p.Address] || c.errors[p.Address] != "" {
			continue
		}
		if err := c.engine.Add(want[p.Address]); err != nil {
			c.errors[p.Address] = err.Error()
			c.log.Warn("cannot add peer", "peer", p, "error", err)
		}
	}
}

// admit makes the ranges of neighbors those of peers.
func (c *child) admit(peers []Peer) {
	var ranges []engine.Range
	var barred []netip.Addr
	for _, p := range peers {
		if !p.From.IsValid() {
			continue
		}
		ranges = append(ranges, engine.Range{
			Prefix: p.From, Local: p.LocalAddress, ASN: p.ASN, Password: p.Password, Hold: p.Hold, Multihop: p.Multihop,
			TTLSecurity: p.TTLSecurity, MaxPrefixes: p.MaxPrefixes, Most: p.Most,
		})
		barred = append(barred, p.Barred...)
	}
	c.closed = c.engine.Admit(ranges, barred)
	for in, err := range c.closed {
		c.log.Warn("cannot admit peers", "from", in, "error", err)
	}
}

func neighbor(c Config, p Peer) engine.Neighbor {
	return engine.Neighbor{
		Restart: c.Restart,
		Address: p.Address, Local: p.LocalAddress, ASN: p.ASN, Port: p.Port, Password: p.Password,
		Hold: p.Hold, Multihop: p.Multihop, TTLSecurity: p.TTLSecurity, Passive: p.Passive, MaxPrefixes: p.MaxPrefixes,
	}
}

// failing reports whether something of the state is not in force.
func (c *child) failing() bool {
	return len(c.errors) > 0 || len(c.closed) > 0 || len(c.live.errors) > 0 || slices.ContainsFunc(c.routes, func(r RouteStatus) bool { return r.Error != "" })
}

func (c *child) report() report {
	r := report{
		Generation: c.state.Generation, Lapsed: c.lapsed, Routes: c.routes,
		Seen: c.look(), Strangers: c.engine.Strangers(), Refused: c.engine.Refused(),
	}
	seen, live := map[netip.Addr]bool{}, c.live.status()
	for _, s := range c.engine.Sessions() {
		seen[s.Address] = true
		p := PeerStatus{
			Address: s.Address, From: s.From, ASN: s.ASN, State: s.State, Since: s.Since, Sent: s.Sent, Sent4: s.Sent4, BFD: live[s.Address],
			Received: s.Received, RouterID: s.RouterID, Hold: s.Hold, IPv4: s.IPv4, IPv6: s.IPv6, Refresh: s.Refresh,
			LastError: cmp.Or(c.errors[s.Address], s.LastError),
		}
		if why := c.live.reason(s); why != "" {
			p.LastError = why
		}
		p.Unsent = c.due.unsent(c.engine, s)
		r.Peers = append(r.Peers, p)
	}
	r.Ranges = c.ranges()
	for _, p := range c.state.Peers {
		if !seen[p.Address] && !p.From.IsValid() {
			why := c.errors[p.Address]
			if why == "" && c.live.holds(p) {
				why = "waits for BFD (strict)"
			}
			r.Peers = append(r.Peers, PeerStatus{
				Address: p.Address, ASN: p.ASN, State: "idle", LastError: why, BFD: live[p.Address],
			})
		}
	}
	return r
}

// ranges are the peers that stand for many.
func (c *child) ranges() (out []RangeStatus) {
	have := map[netip.Prefix]engine.RangeState{}
	for _, r := range c.engine.Ranges() {
		have[r.Prefix] = r
	}
	for _, p := range c.state.Peers {
		if !p.From.IsValid() {
			continue
		}
		r := RangeStatus{From: p.From, ASN: p.ASN, Most: p.Most, Sessions: have[p.From].Sessions, Full: have[p.From].Full}
		if err := c.closed[p.From]; err != nil {
			r.Error = err.Error()
		}
		out = append(out, r)
	}
	return out
}

// lookEvery is how often what peers sent is looked at.
const lookEvery = 2 * time.Second

// look returns what the peers with Look sent of the prefixes to look for.
func (c *child) look() []Sighting {
	if time.Since(c.looked) < lookEvery {
		return c.seen
	}
	c.looked, c.seen = time.Now(), nil
	for _, p := range c.state.Peers {
		if !p.Look {
			continue
		}
		paths, err := c.engine.Heard(p.Address, c.state.Config.Watch)
		if err != nil {
			continue // it is not there yet
		}
		for _, path := range paths {
			if len(c.seen) == maxSightings {
				return c.seen
			}
			c.seen = append(c.seen, Sighting{Prefix: path.Prefix, Peer: p.Address, NextHop: path.NextHop, ASPath: path.ASPath})
		}
	}
	return c.seen
}

// stop withdraws and closes the sessions.
func (c *child) stop() {
	if c.engine == nil {
		return
	}
	if err := errors.Join(c.engine.WithdrawAll(), c.engine.Stop(stopWait)); err != nil {
		c.log.Warn("sessions were cut, not closed", "error", err)
	}
}

// readOrders closes orders when in ends: the parent is gone.
func readOrders(ctx context.Context, in io.Reader, orders chan<- order, log *slog.Logger) {
	defer close(orders)
	for {
		var o order
		if err := readMessage(in, &o); err != nil {
			if !errors.Is(err, io.EOF) {
				log.Warn("cannot read from the parent", "error", err)
			}
			return
		}
		select {
		case orders <- o:
		case <-ctx.Done():
			return
		}
	}
}

// writeReports has a goroutine of its own so that a parent that reads nothing cannot keep the child from withdrawing.
func writeReports(ctx context.Context, out io.Writer, reports <-chan report, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-reports:
			if err := writeMessage(out, r); err != nil {
				log.Warn("cannot write to the parent", "error", err)
				return
			}
		}
	}
}

// offer puts the newest report into the slot, replacing one not yet taken.
func offer(reports chan report, r report) {
	select {
	case <-reports:
	default:
	}
	reports <- r
}
