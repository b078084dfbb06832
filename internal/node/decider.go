package node

import (
	"bytes"
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/health/probe"
	"github.com/pharos-lb/pharos/internal/steer"
)

// reportEvery is how often this node's report goes out even if nothing
// changed: freshness is what tells a calm node from a dead one.
const reportEvery = time.Second

// A gossip takes this node's newest report to the others. Never blocks.
type gossip interface {
	Publish(r *health.Report)
	Synced() <-chan struct{}
}

// A prober knows what this node's own checks say.
type prober interface {
	Changed() <-chan struct{}
	States(dst []probe.State) []probe.State
}

// A decider is the single writer of the board: it gathers reports, judges
// them, decides, publishes. Everything else hands it facts.
type decider struct {
	// Immutable.
	log    *slog.Logger
	board  *steer.Board
	prober prober
	gossip gossip
	inbox  *inbox
	saver  *saver
	state  *stateDir
	name   string
	// commands run on the decider's goroutine.
	commands chan command
	// poolsKnown closes when this site's backends have a first verdict, allKnown
	// when every check of this node has one and gossip has been heard.
	poolsKnown, allKnown chan struct{}
	// view is the newest one, read by status and explain.
	view    atomic.Pointer[health.View]
	metrics *metrics

	// Owned by Run.
	setup       *Setup
	ledger      *health.Ledger
	epoch, seq  uint64
	facts       steer.Facts
	plan        *steer.Plan
	states      []probe.State
	lastStates  []byte
	lastReport  time.Time
	lastRaise   time.Time
	redecide    bool // facts or topology changed
	restored    bool // the view began as the last known good
	unconfirmed int  // verdicts that are still only restored
	poolsClosed bool // poolsKnown is closed
	allClosed   bool // allKnown is closed
}

func newDecider(setup *Setup, state *stateDir, epoch uint64, log *slog.Logger, board *steer.Board, m *metrics) *decider {
	d := &decider{
		log: log, board: board, state: state, setup: setup, name: setup.Self.Node.Name, epoch: epoch, metrics: m,
		inbox: newInbox(), saver: newSaver(state),
		commands:   make(chan command),
		poolsKnown: make(chan struct{}), allKnown: make(chan struct{}),
		ledger:   health.NewLedger(setup.Topology.Fleet, setup.Topology.Layout),
		redecide: true,
	}
	d.restore(time.Now())
	return d
}

// restore starts from the verdicts on disk, if there are any.
func (d *decider) restore(now time.Time) {
	data := d.state.loadView()
	if data == nil {
		return
	}
	view, err := health.RestoreView(data, d.setup.Topology.Layout, now)
	if err != nil {
		d.state.setAside(viewFile, err)
		return
	}
	d.view.Store(view)
	for _, v := range view.Verdicts {
		d.restored = d.restored || v.Status == health.StatusUp || v.Status == health.StatusDown
		if v.Restored {
			d.unconfirmed++
		}
	}
}

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
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var c command
		select {
		case <-ctx.Done():
			return nil
		case <-d.prober.Changed():
		case <-d.inbox.wake:
		case c = <-d.commands:
			c.do()
		case <-timer.C:
		}
		now := time.Now()
		d.step(now)
		if c.done != nil {
			close(c.done)
		}
		timer.Reset(d.pause(now))
	}
}

// pause is how long nothing needs doing unless somebody wakes us.
func (d *decider) pause(now time.Time) time.Duration {
	next := d.lastReport.Add(reportEvery)
	if view := d.view.Load(); view != nil && !view.Recheck.IsZero() && view.Recheck.Before(next) {
		next = view.Recheck
	}
	return max(next.Sub(now), time.Millisecond)
}

// step is one pass: facts in, plan out.
func (d *decider) step(now time.Time) {
	d.observe(now)
	for _, arrivals := range d.inbox.take() {
		for _, a := range arrivals {
			d.merge(a, now)
		}
	}
	prev := d.view.Load()
	view := d.ledger.Judge(prev, now)
	d.view.Store(view)
	changed := d.logChanges(prev, view)
	if changed || d.redecide || d.confirms(view) {
		d.decide(view, now)
	}
	d.openGates()
}

// observe turns this node's own checks into its report, publishing it when it
// changed or is due.
func (d *decider) observe(now time.Time) {
	layout := d.setup.Topology.Layout
	r := health.NewReport(d.name, layout)
	d.states = d.prober.States(d.states[:0])
	for _, s := range d.states {
		if i, ok := layout.Index(s.Target); ok {
			r.Set(i, s.Status)
		}
	}
	changed := !bytes.Equal(r.States, d.lastStates)
	if !changed && now.Sub(d.lastReport) < reportEvery {
		return
	}
	if changed {
		d.facts.Own = make([]health.Status, len(layout.Targets))
		for i := range d.facts.Own {
			d.facts.Own[i] = r.Get(i)
		}
		d.redecide = true
	}
	d.seq++
	r.Epoch, r.Seq, r.Config = d.epoch, d.seq, d.setup.Config.Hash
	d.lastStates, d.lastReport = r.States, now
	d.ledger.Merge(r, 0, now)
	d.gossip.Publish(r)
}

func (d *decider) merge(a arrival, now time.Time) {
	if a.report.Observer != d.name {
		outcome := d.ledger.Merge(a.report, a.age+now.Sub(a.at), now)
		d.metrics.reports.WithLabelValues(outcome.String()).Inc()
		return
	}
	d.raise(a.report, now)
}

// raiseEvery bounds how often an epoch may be raised: two nodes of one name
// would otherwise outbid each other without end.
const raiseEvery = time.Second

// raise answers an echo: somebody remembers a later life of ours, so our state
// folder is older than what we once said. Go above it, or nobody will listen.
func (d *decider) raise(echo *health.Report, now time.Time) {
	if !(echo.Epoch > d.epoch || echo.Epoch == d.epoch && echo.Seq > d.seq) || now.Sub(d.lastRaise) < raiseEvery {
		return
	}
	d.lastRaise = now
	if echo.Epoch >= maxEpoch-1 {
		d.log.Error("a report in our name has an epoch that nothing can exceed; is another node called the same, or the gossip key stolen?", "epoch", echo.Epoch)
		return
	}
	d.epoch = max(d.epoch, echo.Epoch) + 1
	d.lastReport = time.Time{}
	if err := d.state.saveEpoch(d.epoch); err != nil {
		d.log.Warn("cannot save the raised epoch", "error", err)
	}
}

// logChanges says and saves which verdicts changed.
func (d *decider) logChanges(prev, view *health.View) bool {
	changed := view.Changed(prev)
	for _, i := range changed {
		v := view.Verdicts[i]
		level := slog.LevelInfo
		if v.Status == health.StatusUnknown {
			level = slog.LevelDebug // every target begins so
		}
		d.log.Log(context.Background(), level, "verdict", "target", view.Layout.Targets[i].String(), "status", v.Status.String(),
			"why", v.Why.String(), "up", v.Up, "down", v.Down, "abstain", v.Abstain)
		d.metrics.verdicts.WithLabelValues(v.Status.String()).Inc()
	}
	if len(changed) > 0 {
		if data, err := health.EncodeView(view); err != nil {
			d.log.Warn("cannot save the last known good verdicts", "error", err)
		} else {
			d.saver.put(data)
		}
	}
	return len(changed) > 0
}

// confirms reports whether the first measurements replaced restored verdicts,
// which changes no status but what may be announced.
func (d *decider) confirms(view *health.View) bool {
	if !d.restored {
		return false
	}
	left := 0
	for i := range view.Verdicts {
		if view.Verdicts[i].Restored {
			left++
		}
	}
	fewer := left < d.unconfirmed
	d.unconfirmed = left
	return fewer
}

// decide publishes the plan of what is known now.
func (d *decider) decide(view *health.View, now time.Time) {
	d.facts.Now = now
	plan := steer.Decide(d.setup.Topology, view, d.facts, d.plan)
	d.redecide = false
	d.logRoutes(d.plan, plan)
	d.plan = plan
	d.board.Publish(plan)
	d.metrics.generation.Set(float64(plan.Generation))
}

func (d *decider) logRoutes(prev, plan *steer.Plan) {
	was := map[string]bool{}
	if prev != nil {
		for _, r := range prev.Routes {
			was[r.Prefix.String()] = r.Announce
		}
	}
	for _, r := range plan.Routes {
		if was[r.Prefix.String()] != r.Announce {
			d.log.Info("route", "prefix", r.Prefix.String(), "announce", r.Announce, "why", r.Why.String(), "service", r.Blame)
		}
	}
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
		all = all && d.restored // what the others know is on disk too
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
	ok = d.do(ctx, func() {
		view := d.view.Load()
		for _, p := range d.setup.Topology.Probes(d.name) {
			if !decided(view.Of(p.Target).Status) {
				n++
			}
		}
	})
	return n, ok
}

// setReady tells the plan that this node's listeners are open, or no longer.
func (d *decider) setReady(ctx context.Context, ready bool) {
	d.do(ctx, func() {
		d.facts.Ready = ready
		d.redecide = true
	})
}

// swap puts a new setup in force; what is known of the targets in both stays.
func (d *decider) swap(ctx context.Context, setup *Setup) bool {
	return d.do(ctx, func() {
		d.setup = setup
		d.ledger = d.ledger.Rebase(setup.Topology.Fleet, setup.Topology.Layout)
		d.lastStates, d.lastReport = nil, time.Time{}
		d.redecide = true
	})
}
