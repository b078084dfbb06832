package probe

import (
	"container/heap"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/internal/health"
)

// Options says what a Runner runs and with what.
type Options struct {
	// Checks are the first checks; one per target, at most health.MaxTargets.
	Checks []Check
	// InFlight bounds how many probes run at a time, 1 … 65536; 0 is
	// DefaultInFlight. Probes that find no room start late, and are counted. Of
	// those that began just now there are a few hundred at most.
	InFlight int
	// Initial is what was known of targets before this process (the last known
	// good): the status that first results must argue against. It is not stated
	// before a probe confirms it.
	Initial map[health.Target]health.Status
	// Source returns the local address from which a target is probed; the zero
	// address leaves it to the system, as does one of the other family. nil: always.
	Source func(health.Target) netip.Addr
	// RootCAs are who HTTPS checks trust; nil is the system's.
	RootCAs *x509.CertPool
	// Probe runs one probe and must end soon after ctx does; nil is the real one.
	// The Runner fills in At and Latency.
	Probe func(ctx context.Context, c Check) Result
	// Keeper is the command line of a process that does nothing but run [KeeperMain]:
	// it runs the commands of Exec checks. nil: they say nothing.
	Keeper []string
	// Seed makes the jitter repeatable; 0 takes a random one, so that nodes do
	// not probe in lockstep.
	Seed uint64
	// Log gets a line per change of a status; nil discards.
	Log *slog.Logger
	// Registerer gets the metrics; nil registers none.
	Registerer prometheus.Registerer
}

// Runner runs checks. Its methods may be called from any goroutine.
type Runner struct {
	// Immutable.
	seed    uint64
	probe   func(context.Context, Check) Result
	cease   func() // frees what probing holds
	log     *slog.Logger
	metrics *metrics
	changed chan struct{} // capacity 1: some state changed
	wake    chan struct{} // capacity 1: the schedule changed

	// Atomic: outcomes finds the counter of each target's traffic, in a map that is
	// never changed, only replaced; told is the list of those with news.
	outcomes atomic.Pointer[map[health.Target]*Outcomes]
	told     atomic.Pointer[Outcomes]

	mu sync.Mutex // guards the rest
	// started: Run was called. stopped: it is ending; results are dropped.
	started, stopped bool
	jobs             map[health.Target]*job
	order            []*job // sorted by target
	queue            queue
	room             room
	owed             time.Time // when a new weight is to be signalled; zero if none is
	pulse            pulse
	hands            hands
	initial          map[health.Target]health.Status // nil after New
}

// New returns a Runner for valid Options. It starts nothing and holds nothing
// that must be freed, but for the metrics that it registers.
func New(o Options) (*Runner, error) {
	if o.InFlight == 0 {
		o.InFlight = DefaultInFlight
	}
	if o.InFlight < 1 || o.InFlight > 1<<16 {
		return nil, fmt.Errorf("new probe runner: %d in flight: want 1 to %d", o.InFlight, 1<<16)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	metrics := newMetrics()
	cease := func() {}
	if o.Probe == nil {
		commands := newCommands(metrics, o.Keeper)
		o.Probe = (&looker{prober: prober{source: o.Source, roots: o.RootCAs}, commands: commands}).look
		cease = commands.close
	}
	r := &Runner{
		room: room{most: o.InFlight}, seed: o.Seed, initial: o.Initial, probe: o.Probe, cease: cease, log: o.Log,
		metrics: metrics,
		changed: make(chan struct{}, 1),
		wake:    make(chan struct{}, 1),
		jobs:    make(map[health.Target]*job),
	}
	if err := r.SetChecks(o.Checks); err != nil {
		return nil, err
	}
	r.initial = nil // what was known before is not news for checks that come later
	if err := registerAll(o.Registerer, metrics.all()...); err != nil {
		return nil, fmt.Errorf("new probe runner: register metrics: %w", err)
	}
	return r, nil
}

// Changed returns a channel that receives after a status changed, or a weight,
// this at most once a second for each target. It is
// level-triggered and of capacity one: any number of changes before the
// receiver looks is one wake-up, after which States tells them all.
func (r *Runner) Changed() <-chan struct{} { return r.changed }

// States appends what this node says of every target to dst, sorted by target.
func (r *Runner) States(dst []State) []State {
	r.mu.Lock()
	defer r.mu.Unlock()
	dst = slices.Grow(dst, len(r.order))
	for _, j := range r.order {
		dst = append(dst, j.track.state)
	}
	return dst
}

// SetChecks replaces the checks (a reload). A check that stays as it is keeps
// its state and its place in the schedule; one that is defined differently
// keeps its status, starts its streak anew and is probed soon; one that is gone
// is forgotten, its probe in flight cancelled. On an error, which names every
// bad check, nothing changes.
func (r *Runner) SetChecks(checks []Check) error {
	want := make(map[health.Target]Check, len(checks))
	var errs []error
	for _, c := range checks {
		c = c.WithDefaults()
		if err := c.Validate(); err != nil {
			errs = append(errs, err)
		}
		if _, twice := want[c.Target]; twice {
			errs = append(errs, fmt.Errorf("check %s: defined twice", c.Target))
		}
		want[c.Target] = c
	}
	if len(checks) > health.MaxTargets {
		errs = append(errs, fmt.Errorf("%d checks: at most %d", len(checks), health.MaxTargets))
	}
	if len(errs) > 0 {
		return fmt.Errorf("set checks: %w", errors.Join(errs...))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for target, j := range r.jobs {
		if _, stays := want[target]; !stays {
			r.interrupt(j)
			delete(r.jobs, target)
			if j.track.state.Flapping {
				r.metrics.flapping.Dec()
			}
		}
	}
	r.order = r.order[:0:0]
	outcomes := make(map[health.Target]*Outcomes, len(want))
	for target, c := range want {
		j := r.adopt(target, c.own())
		r.order = append(r.order, j)
		outcomes[target] = j.outcomes
	}
	r.outcomes.Store(&outcomes)
	slices.SortFunc(r.order, func(a, b *job) int { return a.check.Target.Compare(b.check.Target) })
	r.metrics.checks.Set(float64(len(r.order)))
	signal(r.wake)
	signal(r.changed)
	return nil
}

// adopt returns the job for c, made or kept. Called with mu held.
func (r *Runner) adopt(target health.Target, c Check) *job {
	j := r.jobs[target]
	switch {
	case j == nil:
		j = newJob(c, r.initial[target], r.seed)
		j.outcomes = &Outcomes{target: target, runner: r}
		r.jobs[target] = j
	case reflect.DeepEqual(*j.check, c):
		return j
	default:
		r.interrupt(j)
		j.check, j.track.state.Streak, j.track.blind = &c, 0, 0
		j.trial, j.asked = false, false
	}
	if !j.active() && j.track.state.Status == health.StatusNone {
		j.track.held = health.StatusNone // nothing will argue: traffic alone tells
		j.track.say(health.StatusUnknown, time.Now())
	}
	j.arm()
	if r.started && !r.stopped {
		r.enter(j, time.Now())
	}
	return j
}

// enter puts a job that is not waiting on the schedule for the first time. Called
// with mu held.
func (r *Runner) enter(j *job, now time.Time) {
	switch {
	case j.active():
		r.schedule(j, now.Add(j.first()))
	case j.track.state.Status == health.StatusDown:
		r.awaitTrial(j, now)
	}
}

// schedule gives j its time, in place of the one it may have. Called with mu held.
func (r *Runner) schedule(j *job, due time.Time) {
	j.due = due
	if j.heapAt >= 0 {
		heap.Fix(&r.queue, j.heapAt)
	} else {
		heap.Push(&r.queue, j)
	}
}

// interrupt takes j out of the schedule and drops its probe in flight. Called
// with mu held.
func (r *Runner) interrupt(j *job) {
	if j.heapAt >= 0 {
		heap.Remove(&r.queue, j.heapAt)
	}
	if j.running != nil {
		j.running.cancel()
		j.running = nil
	}
}

// Run probes until ctx ends and then returns nil, with no probe left running.
// It can be called once.
func (r *Runner) Run(ctx context.Context) error {
	r.mu.Lock()
	if r.started {
		r.mu.Unlock()
		return errors.New("run probes: the runner was started before")
	}
	r.started = true
	for _, j := range r.order {
		r.enter(j, time.Now())
	}
	r.mu.Unlock()

	var probes sync.WaitGroup
	defer func() {
		r.mu.Lock()
		r.stopped = true
		for _, j := range r.jobs {
			r.interrupt(j)
		}
		r.hands.rest()
		r.mu.Unlock()
		probes.Wait()
		r.cease()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(r.startDue(ctx, &probes))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-r.wake:
		}
	}
}

// startDue heeds traffic, starts the probes that are due, as many as there is
// room for, and returns how long until it should be called again.
func (r *Runner) startDue(ctx context.Context, probes *sync.WaitGroup) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.pulse.beat(now)
	r.heedTraffic(now)
	wait := beatEvery
	if !r.owed.IsZero() {
		if wait = min(wait, r.owed.Sub(now)); wait <= 0 {
			r.owed, wait = time.Time{}, beatEvery
			signal(r.changed)
		}
	}
	r.room.age(now)
	for len(r.queue) > 0 {
		early := r.queue[0].due.Sub(now)
		if early > 0 {
			wait = min(wait, early)
			break
		}
		if r.room.full() {
			wait = min(wait, r.room.age(now))
			break
		}
		j := heap.Pop(&r.queue).(*job)
		if !j.active() {
			r.try(j, now)
			continue
		}
		if -early > lateAfter {
			r.metrics.late.Inc()
		}
		r.pulse.late(now, -early)
		r.launch(ctx, j, now, probes)
	}
	r.pulse.expect(now.Add(wait))
	return wait
}

// launch starts a probe of j. Called with mu held.
func (r *Runner) launch(ctx context.Context, j *job, now time.Time, probes *sync.WaitGroup) {
	probeCtx, cancel := context.WithTimeout(ctx, j.check.Timeout)
	f := &flight{started: now, cancel: cancel}
	r.room.enter(f)
	r.metrics.inFlight.Set(float64(r.room.flying))
	j.running, j.probed = f, now
	check := j.check
	r.hands.do(probes, func() {
		defer cancel()
		result := r.probe(probeCtx, *check)
		result.At = time.Now()
		result.Latency = result.At.Sub(f.started)
		r.finish(j, f, result, ctx.Err() != nil)
	})
}

// finish takes the result of a probe and schedules the next one.
func (r *Runner) finish(j *job, f *flight, result Result, dropped bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	full := r.room.full()
	r.room.leave(f)
	r.metrics.inFlight.Set(float64(r.room.flying))
	if full {
		defer signal(r.wake)
	}
	if dropped || j.running != f {
		return
	}
	j.running = nil
	r.metrics.observe(j.check.Kind, result)
	soon := r.take(j, result) || j.asked
	j.asked = false
	j.arm()
	due := f.started.Add(j.interval(soon))
	if due.Before(result.At) { // it took longer than its interval: no catching up
		due = result.At
	}
	r.schedule(j, due)
	if j.heapAt == 0 {
		signal(r.wake)
	}
}

// take takes a result, of a probe or of traffic, and reports whether the next
// probe should come soon. Called with mu held.
func (r *Runner) take(j *job, result Result) (soon bool) {
	was, wasFlapping := j.track.state.Status, j.track.state.Flapping
	n := j.track.observe(result, j.check)
	now := &j.track.state
	if n.suppressed {
		r.metrics.suppressed.Inc()
	}
	if now.Flapping != wasFlapping {
		if now.Flapping {
			r.metrics.flapping.Inc()
		} else {
			r.metrics.flapping.Dec()
		}
		r.log.Info("flap damping changed", "target", j.check.Target.String(), "flapping", now.Flapping, "penalty", math.Round(100*now.Penalty)/100)
	}
	if n.status {
		signal(r.changed)
		r.log.Info("probe status changed", "target", j.check.Target.String(), "from", was.String(),
			"to", now.Status.String(), "code", result.Code, "error", result.Err, "latency", result.Latency)
	}
	if n.weight {
		r.metrics.weights.Inc()
		r.tellWeight(j, result.At)
	}
	return n.soon
}

// tellWeight signals a new weight, at most once a second for each target. Called
// with mu held.
func (r *Runner) tellWeight(j *job, now time.Time) {
	switch {
	case now.Before(j.told): // it will be told together with the one before
		return
	case now.Sub(j.told) >= weightEvery:
		j.told = now
		signal(r.changed)
		return
	}
	j.told = j.told.Add(weightEvery)
	if r.owed.IsZero() || j.told.Before(r.owed) {
		r.owed = j.told
		signal(r.wake)
	}
}

// signal wakes the receiver of a channel of capacity one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
