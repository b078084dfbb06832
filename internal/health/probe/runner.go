package probe

import (
	"container/heap"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/internal/health"
)

// DefaultInFlight is how many probes run at a time if Options does not say.
const DefaultInFlight = 256

// Options says what a Runner runs and with what.
type Options struct {
	// Checks are the first checks; one per target, at most health.MaxTargets.
	Checks []Check
	// InFlight bounds how many probes run at a time, 1 … 65536; 0 is
	// DefaultInFlight. Probes that find no room start late, and are counted.
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
	inFlight int
	seed     uint64
	probe    func(context.Context, Check) Result
	log      *slog.Logger
	metrics  *metrics
	changed  chan struct{} // capacity 1: some state changed
	wake     chan struct{} // capacity 1: the schedule changed

	mu sync.Mutex // guards the rest
	// started: Run was called. stopped: it is ending; results are dropped.
	started, stopped bool
	jobs             map[health.Target]*job
	order            []*job // sorted by target
	queue            queue
	flying           int
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
	if o.Probe == nil {
		o.Probe = (&prober{source: o.Source, roots: o.RootCAs}).probe
	}
	r := &Runner{
		inFlight: o.InFlight, seed: o.Seed, initial: o.Initial, probe: o.Probe, log: o.Log,
		metrics: newMetrics(),
		changed: make(chan struct{}, 1),
		wake:    make(chan struct{}, 1),
		jobs:    make(map[health.Target]*job),
	}
	if err := r.SetChecks(o.Checks); err != nil {
		return nil, err
	}
	r.initial = nil // what was known before is not news for checks that come later
	if err := r.metrics.register(o.Registerer); err != nil {
		return nil, fmt.Errorf("new probe runner: register metrics: %w", err)
	}
	return r, nil
}

// Changed returns a channel that receives after a status changed. It is
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

// Lag returns how long the probe that should start next is overdue; 0 if the
// schedule is kept. A node that lags should doubt itself.
func (r *Runner) Lag() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.started || r.stopped || len(r.queue) == 0 {
		return 0
	}
	return max(time.Since(r.queue[0].due), 0)
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
		c.Headers, c.Status = slices.Clone(c.Headers), slices.Clone(c.Status)
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
		}
	}
	r.order = r.order[:0:0]
	for target, c := range want {
		r.order = append(r.order, r.adopt(target, c))
	}
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
		r.jobs[target] = j
	case reflect.DeepEqual(j.check, c):
		return j
	default:
		r.interrupt(j)
		j.check, j.track.state.Streak, j.track.blind = c, 0, 0
	}
	if r.started && !r.stopped {
		j.due = time.Now().Add(j.first())
		heap.Push(&r.queue, j)
	}
	return j
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
	now := time.Now()
	for _, j := range r.order {
		j.due = now.Add(j.first())
		heap.Push(&r.queue, j)
	}
	r.mu.Unlock()

	var probes sync.WaitGroup
	defer func() {
		r.mu.Lock()
		r.stopped = true
		for _, j := range r.jobs {
			r.interrupt(j)
		}
		r.mu.Unlock()
		probes.Wait()
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

// idle is how long Run sleeps when nothing waits for a time; it is then woken.
const idle = time.Hour

// startDue starts the probes that are due, as many as there is room for, and
// returns how long until it should be called again.
func (r *Runner) startDue(ctx context.Context, probes *sync.WaitGroup) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for len(r.queue) > 0 && r.flying < r.inFlight {
		wait := r.queue[0].due.Sub(now)
		if wait > 0 {
			return wait
		}
		j := heap.Pop(&r.queue).(*job)
		if -wait > lateAfter {
			r.metrics.late.Inc()
		}
		r.flying++
		r.metrics.inFlight.Set(float64(r.flying))
		probeCtx, cancel := context.WithTimeout(ctx, j.check.Timeout)
		f := &flight{started: now, cancel: cancel}
		j.running = f
		check := j.check
		probes.Go(func() {
			defer cancel()
			result := r.probe(probeCtx, check)
			result.At = time.Now()
			result.Latency = result.At.Sub(f.started)
			r.finish(j, f, result, ctx.Err() != nil)
		})
	}
	return idle // a probe that ends, or new checks, will wake Run
}

// finish takes the result of a probe and schedules the next one.
func (r *Runner) finish(j *job, f *flight, result Result, dropped bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	full := r.flying == r.inFlight
	r.flying--
	r.metrics.inFlight.Set(float64(r.flying))
	if full {
		defer signal(r.wake)
	}
	if dropped || j.running != f {
		return
	}
	j.running = nil
	r.metrics.observe(j.check.Kind, result)
	was := j.track.state.Status
	changed, soon := j.track.observe(result, j.check.Rise, j.check.Fall)
	if changed {
		signal(r.changed)
		r.log.Info("probe status changed", "target", j.check.Target.String(), "from", was.String(),
			"to", j.track.state.Status.String(), "code", result.Code, "error", result.Err, "latency", result.Latency)
	}
	j.due = f.started.Add(j.interval(soon))
	if j.due.Before(result.At) { // it took longer than its interval: no catching up
		j.due = result.At
	}
	heap.Push(&r.queue, j)
	if j.heapAt == 0 {
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
