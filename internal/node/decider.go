package node

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/internal/decide"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/health/probe"
	"github.com/pharos-lb/pharos/internal/steer"
)

// A gossip takes to the others what this node reports and which orders it
// holds. Never blocks.
type gossip interface {
	Publish(r *health.Report)
	PublishOverrides(all []health.Override, digest uint64)
	Vouched(v health.Override) bool
	Synced() <-chan struct{}
}

// A prober knows what this node's own checks say.
type prober interface {
	Changed() <-chan struct{}
	States(dst []probe.State) []probe.State
}

// A decider is the single writer of the board: it brings the facts to the core,
// which judges and decides, and publishes what follows.
type decider struct {
	// Immutable.
	log     *slog.Logger
	board   *steer.Board
	prober  prober
	gossip  gossip
	doubts  func() doubt
	started time.Time
	inbox   *inbox
	views   *saver // the last known good
	heard   *saver // the registers of the observers
	orders  *saver // the overrides
	state   *stateDir
	name    string
	// commands run on the decider's goroutine.
	commands chan command
	// poolsKnown closes when this site's backends have a first verdict, allKnown
	// when every check of this node has one and gossip has been heard.
	poolsKnown, allKnown chan struct{}
	// view is the newest one, acks how far the overrides have come, doubting what
	// this node doubts of itself; read by status and explain.
	view     atomic.Pointer[health.View]
	acks     atomic.Pointer[acknowledgement]
	doubting atomic.Pointer[doubt]
	// observers is what is held of each node, as of the newest own report.
	observers atomic.Pointer[[]health.ObserverStatus]
	metrics   *metrics

	// handed is what the checks of the process that this one replaced said; immutable once Run runs.
	handed map[health.Target]ownState

	// Owned by Run.
	setup       *Setup
	core        *decide.Core
	epoch       uint64
	states      []probe.State
	statuses    []health.Status // of the newest states, indexed like the layout
	digest      uint64          // of the overrides published last
	lastHeard   time.Time
	poolsClosed bool // poolsKnown is closed
	allClosed   bool // allKnown is closed
}

func newDecider(setup *Setup, state *stateDir, epoch uint64, log *slog.Logger, board *steer.Board, m *metrics) *decider {
	d := &decider{
		log: log, board: board, state: state, setup: setup, name: setup.Self.Node.Name, epoch: epoch, metrics: m,
		started: time.Now(), inbox: newInbox(), doubts: func() doubt { return doubt{} },
		views: newSaver(state, viewFile), heard: newSaver(state, registersFile), orders: newSaver(state, overridesFile),
		commands:   make(chan command),
		poolsKnown: make(chan struct{}), allKnown: make(chan struct{}),
	}
	now := d.now()
	d.core = decide.New(decide.Options{
		Name: d.name, Topology: setup.Topology, Config: setup.Config.Hash, Epoch: epoch,
		View:      state.restoreView(setup.Topology.Layout, now),
		Overrides: state.restoreOverrides(),
		Registers: state.restoreRegisters(),
	})
	if view := d.core.View(); view != nil {
		d.view.Store(view)
	}
	d.acks.Store(&acknowledgement{})
	d.doubting.Store(&doubt{})
	return d
}

// now is the time that everything is decided by: the wall clock at the start,
// moved on by the monotonic one, so that a clock that jumps moves nothing.
func (d *decider) now() time.Time { return d.started.Add(time.Since(d.started)) }

// A command changes what the decider owns, on its own goroutine.
type command struct {
	do   func()
	done chan struct{} // closed when the plan that follows from it is published
}

// do has the decider run f and publish what follows; false if ctx ended first.
func (d *decider) do(ctx context.Context, f func()) bool {
	c := command{do: f, done: make(chan struct{})}
	select {
	case d.commands <- c:
		<-c.done
		return true
	case <-ctx.Done():
		return false
	}
}

// Run decides until ctx ends.
func (d *decider) Run(ctx context.Context) error {
	d.publishOrders()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var c command
		select {
		case <-ctx.Done():
			return nil
		case <-d.prober.Changed():
		case <-d.inbox.wake:
		case digest := <-d.orders.saved:
			d.core.SetDurable(digest)
		case c = <-d.commands:
			c.do()
		case <-timer.C:
		}
		d.step(d.now())
		if c.done != nil {
			close(c.done)
		}
		timer.Reset(d.pause(d.now()))
	}
}

// pause is how long nothing needs doing unless somebody wakes us.
func (d *decider) pause(now time.Time) time.Duration {
	return max(d.core.Next().Sub(now), time.Millisecond)
}

// step is one pass: facts in, plan out.
func (d *decider) step(now time.Time) {
	doubt := d.doubts()
	d.observe(doubt, now)
	reports, orders := d.inbox.take()
	for _, arrivals := range reports {
		for _, a := range arrivals {
			d.merge(a, now)
		}
	}
	d.mergeOrders(orders)
	s := d.core.Step(health.Moment{Now: now, Connected: doubt.connected})
	d.view.Store(s.View)
	if len(s.Ended) > 0 {
		d.logOrders(s.Ended)
		d.publishOrders()
	}
	d.tell(s)
	d.noteAcks()
	d.saveHeard(now)
	d.openGates()
}

// tell publishes a step's plan, and says and saves what changed.
func (d *decider) tell(s decide.Step) {
	if s.Decided {
		d.logRoutes(d.board.Load(), s.Plan)
		d.board.Publish(s.Plan)
		d.metrics.generation.Set(float64(s.Plan.Generation))
		d.metrics.noteSafety(s.Plan)
	}
	if len(s.Changed) > 0 {
		d.logChanges(s)
	}
	d.metrics.noteView(s.View)
}

// observe turns this node's own checks into its report, publishing it when it
// changed or is due.
func (d *decider) observe(doubt doubt, now time.Time) {
	layout := d.core.Topology().Layout
	d.states = d.prober.States(d.states[:0])
	d.statuses = resize(d.statuses, len(layout.Targets))
	site := d.core.SelfSite()
	var weights []uint8
	for _, s := range d.states {
		i, ok := layout.Index(s.Target)
		if !ok {
			continue
		}
		if h, ok := d.handed[s.Target]; ok && !decided(s.Status) {
			s.Status, s.Weight = h.Status, h.Weight
		}
		d.statuses[i] = doubt.about(s.Target, site, s.Status)
		if s.Weight != fullWeight {
			if weights == nil {
				weights = make([]uint8, len(layout.Targets))
				for k := range weights {
					weights[k] = fullWeight
				}
			}
			weights[i] = s.Weight
		}
	}
	d.core.SetWeights(weights)
	if r := d.core.Observe(d.statuses, doubt.flags(), now); r != nil {
		d.gossip.Publish(r)
		observers := d.core.Ledger().Observers(now)
		d.observers.Store(&observers)
	}
	if doubt.text == "" && d.core.Stalled(now) {
		doubt.text = "it stood still for some seconds, so what it found before does not count"
	}
	d.noteDoubt(doubt)
}

// noteDoubt keeps what this node holds of itself, for status.
func (d *decider) noteDoubt(doubt doubt) {
	if was := d.doubting.Load(); was.text != doubt.text {
		d.log.Warn("this node's trust in itself changed", "doubt", doubt.text, "before", was.text)
	}
	d.doubting.Store(&doubt)
	d.metrics.doubting.Set(gaugeOf(doubt.text != ""))
}

// fullWeight is the share of a backend that asks for no less, in percent.
const fullWeight = 100

// resize returns s emptied and n long.
func resize(s []health.Status, n int) []health.Status {
	if cap(s) < n {
		return make([]health.Status, n)
	}
	s = s[:n]
	clear(s)
	return s
}

func (d *decider) merge(a arrival, now time.Time) {
	outcome := d.core.Merge(a.report, a.age+now.Sub(a.at), now)
	if a.report.Observer != d.name {
		d.metrics.reports.WithLabelValues(outcome.String()).Inc()
		return
	}
	if d.core.Epoch() == d.epoch {
		return
	}
	d.epoch = d.core.Epoch()
	d.state.saveEpoch(d.epoch)
}

// logChanges says and saves which verdicts changed.
func (d *decider) logChanges(s decide.Step) {
	for _, i := range s.Changed {
		v := s.View.Verdicts[i]
		level := slog.LevelInfo
		if t := s.View.Layout.Targets[i]; v.Status == health.StatusUnknown || t.Kind.Stated() {
			level = slog.LevelDebug // every target begins so; of routes each node says itself what it does
		}
		d.log.Log(context.Background(), level, "verdict", "target", s.View.Layout.Targets[i].String(), "status", v.Status.String(),
			"why", v.Why.String(), "up", v.Up, "down", v.Down, "abstain", v.Abstain)
		d.metrics.verdicts.WithLabelValues(v.Status.String()).Inc()
	}
	if data, err := health.EncodeView(s.View); err != nil {
		d.log.Warn("cannot save the last known good verdicts", "error", err)
	} else {
		d.views.put(data, 0)
	}
}

// saveHeardEvery is how often the registers of the observers go to disk: what
// was recorded since then could be replayed to this node after a restart.
const saveHeardEvery = 5 * time.Second

// saveHeard keeps how far each observer has come.
func (d *decider) saveHeard(now time.Time) {
	if now.Sub(d.lastHeard) < saveHeardEvery {
		return
	}
	d.lastHeard = now
	if data, err := health.EncodeRegisters(d.core.Ledger().Registers()); err != nil {
		d.log.Warn("cannot save how far the observers have come", "error", err)
	} else {
		d.heard.put(data, 0)
	}
}

func (d *decider) logRoutes(prev, plan *steer.Plan) {
	was := map[netip.Prefix]string{}
	for _, r := range plan.Routes {
		was[r.Prefix] = routeText(&steer.Route{}) // nothing is said of what was never announced
	}
	if prev != nil {
		for _, r := range prev.Routes {
			was[r.Prefix] = routeText(&r)
		}
	}
	for _, r := range plan.Routes {
		if text := routeText(&r); was[r.Prefix] != text {
			d.log.Info("route", "prefix", r.Prefix.String(), "announce", r.Announce, "level", r.Level.String(), "why", r.Why.String(), "service", r.Blame)
		}
	}
}

// routeText is what of a route is worth a line in the log when it changes.
func routeText(r *steer.Route) string {
	if !r.Announce {
		return "withdrawn"
	}
	return r.Level.String()
}

// openGates closes poolsKnown and allKnown when it is time.
func (d *decider) openGates() {
	if d.allClosed {
		return
	}
	pools, all := true, true
	view := d.view.Load()
	for _, s := range d.states {
		if decided(s.Status) || decided(view.Of(s.Target).Status) {
			continue // measured, or known from before the restart
		}
		all = false
		pools = pools && s.Target.Kind != health.KindBackend
	}
	if pools && !d.poolsClosed {
		d.poolsClosed = true
		close(d.poolsKnown)
	}
	select {
	case <-d.gossip.Synced():
	default:
		all = all && d.core.Restored() // what the others know is on disk too
	}
	if all {
		d.allClosed = true
		close(d.allKnown)
	}
}

func decided(s health.Status) bool { return s == health.StatusUp || s == health.StatusDown }

// undecided returns how many of this node's own checks have no verdict yet,
// neither measured nor known from before.
func (d *decider) undecided(ctx context.Context) (n int, ok bool) {
	ok = d.do(ctx, func() { n = d.core.Undecided() })
	return n, ok
}

// setReady tells the plan that this node's listeners are open, or no longer.
func (d *decider) setReady(ctx context.Context, ready bool) {
	d.do(ctx, func() { d.core.SetReady(ready) })
}

// swap puts a new setup in force; what is known of the targets in both stays.
func (d *decider) swap(ctx context.Context, setup *Setup) bool {
	return d.do(ctx, func() {
		d.setup = setup
		d.core.SetTopology(setup.Topology, setup.Config.Hash)
		d.publishOrders() // those of nodes that are gone may have been written anew
	})
}
