package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/internal/health"
)

// a world is what the injected probes find.
type world struct {
	start time.Time
	took  time.Duration
	mu    sync.Mutex // guards the rest
	down  map[health.Target]bool
	at    map[health.Target][]time.Duration // when each target was probed
	now   int                               // probes running
	most  int                               // most at a time
}

func newWorld() *world {
	return &world{start: time.Now(), down: map[health.Target]bool{}, at: map[health.Target][]time.Duration{}}
}

func (w *world) set(t health.Target, down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[t] = down
}

func (w *world) times(t health.Target) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.at[t])
}

func (w *world) probe(ctx context.Context, c Check) Result {
	w.mu.Lock()
	w.at[c.Target] = append(w.at[c.Target], time.Since(w.start))
	w.now++
	w.most = max(w.most, w.now)
	down := w.down[c.Target]
	w.mu.Unlock()
	defer func() { w.mu.Lock(); w.now--; w.mu.Unlock() }()
	select {
	case <-time.After(w.took):
	case <-ctx.Done():
		return Result{Err: "timeout"}
	}
	if down {
		return Result{Err: "connect refused"}
	}
	return Result{}
}

// checks makes n checks of distinct targets.
func checks(n int, like Check) []Check {
	var out []Check
	for i := range n {
		c := like
		c.Target = target(fmt.Sprintf("10.0.%d.%d:80", i/250, i%250+1))
		out = append(out, c)
	}
	return out
}

// start runs a runner until the function it returns is called, inside a bubble.
func start(t *testing.T, o Options) (*Runner, func()) {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// metricSum adds up the series of a metric, a histogram by its observations.
func metricSum(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

func statusOf(r *Runner, t health.Target) health.Status {
	for _, s := range r.States(nil) {
		if s.Target == t {
			return s.Status
		}
	}
	return 99
}

// TestFirstProbesArePromptAndSpread: every check has a result within half a
// second, and they do not all come at once.
func TestFirstProbesArePromptAndSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cs := checks(200, Check{Every: time.Minute, Timeout: time.Second})
		r, stop := start(t, Options{Checks: cs, Probe: w.probe, Seed: 1})
		defer stop()
		time.Sleep(startSpread)
		synctest.Wait()
		seen := map[time.Duration]int{}
		for _, c := range cs {
			if statusOf(r, c.Target) != health.StatusUp {
				t.Fatalf("%v is %v", c.Target, statusOf(r, c.Target))
			}
			seen[w.times(c.Target)[0].Truncate(startSpread/10)]++
		}
		if len(seen) != 10 {
			t.Errorf("not spread: %v", seen)
		}
	})
}

// TestIntervalsAreJittered: over many probes the interval averages Every and is
// never out of its share; two checks are not in lockstep; the same seed gives
// the same times.
func TestIntervalsAreJittered(t *testing.T) {
	watch := func(seed uint64) (out [2][]time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			cs := checks(2, Check{Every: time.Second, Jitter: 0.2})
			_, stop := start(t, Options{Checks: cs, Probe: w.probe, Seed: seed})
			time.Sleep(1000 * time.Second)
			stop()
			out = [2][]time.Duration{w.times(cs[0].Target), w.times(cs[1].Target)}
		})
		return out
	}
	a := watch(1)
	for _, times := range a {
		if n := len(times); n < 950 || n > 1050 {
			t.Errorf("%d probes in 1000 intervals", n)
		}
		distinct := map[time.Duration]bool{}
		for i := range times[1:] {
			gap := times[i+1] - times[i]
			distinct[gap] = true
			if gap < 800*time.Millisecond || gap > 1200*time.Millisecond {
				t.Fatalf("interval %v", gap)
			}
		}
		if len(distinct) < 900 {
			t.Errorf("only %d different intervals", len(distinct))
		}
	}
	if slices.Equal(a[0], a[1]) {
		t.Error("two checks in lockstep")
	}
	if b := watch(1); !slices.Equal(a[0], b[0]) || !slices.Equal(a[1], b[1]) {
		t.Error("the same seed gave other times")
	}
	if b := watch(2); slices.Equal(a[0], b[0]) {
		t.Error("another seed gave the same times")
	}
}

// TestFastRecheck: a result that contradicts is checked again at the pace of
// Recheck until it is settled, then the old pace is back.
func TestFastRecheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cs := checks(1, Check{Every: 10 * time.Second, Recheck: 100 * time.Millisecond, Rise: 2, Fall: 3})
		r, stop := start(t, Options{Checks: cs, Probe: w.probe, Seed: 1})
		defer stop()
		x := cs[0].Target
		time.Sleep(5 * time.Second)
		w.set(x, true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := r.States(nil)[0]; s.Status != health.StatusDown || s.Last.Err != "connect refused" || s.Streak != -3 {
			t.Fatalf("after 10 s of failures: %+v", s)
		}
		w.set(x, false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if statusOf(r, x) != health.StatusUp {
			t.Fatal("did not come up")
		}
		times := w.times(x)
		var short []bool
		for i := range times[1:] {
			gap := times[i+1] - times[i]
			short = append(short, gap >= 90*time.Millisecond && gap <= 110*time.Millisecond)
			if !short[i] && gap != 10*time.Second {
				t.Errorf("interval %v", gap)
			}
		}
		// up; fail, fail, fail → down; ok, ok → up
		if diff := cmp.Diff([]bool{false, true, true, false, true}, short); diff != "" {
			t.Error(diff)
		}
	})
}

// TestReadyInASecond: with a target that is down from the beginning the node
// knows within a second.
func TestReadyInASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cs := checks(2, Check{Every: 30 * time.Second})
		w.set(cs[1].Target, true)
		r, stop := start(t, Options{Checks: cs, Probe: w.probe})
		defer stop()
		if s := statusOf(r, cs[0].Target); s != health.StatusNone {
			t.Errorf("before the first probe: %v", s)
		}
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if a, b := statusOf(r, cs[0].Target), statusOf(r, cs[1].Target); a != health.StatusUp || b != health.StatusDown {
			t.Errorf("after 1.1 s: %v and %v", a, b)
		}
	})
}

// TestInitialIsNotStated: what was on disk is nothing that this node has seen.
func TestInitialIsNotStated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cs := checks(1, Check{Every: 10 * time.Second, Recheck: time.Second, Fall: 3})
		w.set(cs[0].Target, true)
		r, stop := start(t, Options{Checks: cs, Probe: w.probe, Initial: map[health.Target]health.Status{cs[0].Target: health.StatusUp}})
		defer stop()
		if s := statusOf(r, cs[0].Target); s != health.StatusNone {
			t.Errorf("at the start: %v", s)
		}
		time.Sleep(startSpread)
		synctest.Wait()
		if s := statusOf(r, cs[0].Target); s != health.StatusUnknown {
			t.Errorf("contradicted once: %v", s)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s := statusOf(r, cs[0].Target); s != health.StatusDown {
			t.Errorf("contradicted thrice: %v", s)
		}
	})
}

// TestConstantWork: whether all is up or all is down, the number of probes is
// the same once it is settled.
func TestConstantWork(t *testing.T) {
	count := func(down bool) (n int) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			cs := checks(50, Check{Every: time.Second, Jitter: 0.1})
			for _, c := range cs {
				w.set(c.Target, down)
			}
			_, stop := start(t, Options{Checks: cs, Probe: w.probe, Seed: 1})
			time.Sleep(100 * time.Second)
			stop()
			for _, c := range cs {
				for _, at := range w.times(c.Target) {
					if at > 5*time.Second {
						n++
					}
				}
			}
		})
		return n
	}
	up, down := count(false), count(true)
	if diff := up - down; up < 4000 || diff > up/100 || -diff > up/100 {
		t.Errorf("%d probes when all is up, %d when all is down", up, down)
	}
}

// TestInFlightIsBounded: too much work is late and counted, never more at once,
// and each check gets its turn.
func TestInFlightIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.took = time.Second
		cs := checks(20, Check{Every: time.Second, Timeout: 2 * time.Second})
		reg := prometheus.NewRegistry()
		r, stop := start(t, Options{Checks: cs, Probe: w.probe, InFlight: 4, Registerer: reg})
		time.Sleep(50 * time.Second)
		if lag := r.Lag(); lag < time.Second || lag > 5*time.Second {
			t.Errorf("lag %v with five times too much work", lag)
		}
		stop()
		if w.most != 4 {
			t.Errorf("%d in flight, want 4", w.most)
		}
		for _, c := range cs {
			if n := len(w.times(c.Target)); n < 9 || n > 11 {
				t.Errorf("%v was probed %d times, want 10", c.Target, n)
			}
		}
		if late := metricSum(t, reg, "pharos_probe_late_total"); late < 150 {
			t.Errorf("%v late", late)
		}
		if r.Lag() != 0 {
			t.Error("a stopped runner lags")
		}
	})
}

// TestTimeout: a probe is told to end when its time is up, and one that takes
// longer than its interval is not caught up on.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.took = time.Hour
		cs := checks(1, Check{Every: time.Second, Timeout: 3 * time.Second})
		reg := prometheus.NewRegistry()
		r, stop := start(t, Options{Checks: cs, Probe: w.probe, Registerer: reg})
		defer stop()
		time.Sleep(30500 * time.Millisecond)
		synctest.Wait()
		s := r.States(nil)[0]
		if s.Last.Latency != 3*time.Second || s.Status != health.StatusDown {
			t.Errorf("got %+v", s)
		}
		if n := len(w.times(cs[0].Target)); n != 11 && n != 10 {
			t.Errorf("%d probes in 30 s", n)
		}
		if late := metricSum(t, reg, "pharos_probe_late_total"); late != 0 {
			t.Errorf("%v late: a slow target is not our delay", late)
		}
	})
}

// TestSetChecks: a reload keeps what is known of checks that stay.
func TestSetChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		like := Check{Kind: HTTP, Every: 10 * time.Second, Recheck: time.Second, Fall: 3}
		cs := checks(4, like)
		kept, redefined, removed, added := cs[0], cs[1], cs[2], cs[3]
		w.set(kept.Target, true)
		r, stop := start(t, Options{Checks: []Check{kept, redefined, removed}, Probe: w.probe, Seed: 1})
		defer stop()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		before := r.States(nil)
		probes := len(w.times(kept.Target))

		if err := r.SetChecks([]Check{added, {Target: kept.Target, Rise: -1}}); err == nil {
			t.Fatal("took a bad check")
		}
		if diff := cmp.Diff(before, r.States(nil), cmp.Comparer(func(a, b health.Target) bool { return a == b })); diff != "" {
			t.Fatalf("a refused reload changed something: %s", diff)
		}
		redefined.Path = "/other"
		w.set(redefined.Target, true)
		if err := r.SetChecks([]Check{added, redefined, kept}); err != nil {
			t.Fatal(err)
		}
		after := r.States(nil)
		if len(after) != 3 || after[0] != before[0] {
			t.Errorf("the check that stays: %+v, was %+v", after[0], before[0])
		}
		if after[1].Status != health.StatusUp || after[1].Streak != 0 {
			t.Errorf("the redefined check: %+v", after[1])
		}
		if after[2].Status != health.StatusNone {
			t.Errorf("the new check: %+v", after[2])
		}
		time.Sleep(startSpread)
		synctest.Wait()
		if n := len(w.times(kept.Target)); n != probes {
			t.Errorf("the check that stays was probed out of turn: %d, then %d", probes, n)
		}
		if s := r.States(nil)[1]; s.Status != health.StatusUp || s.Streak != -1 {
			t.Errorf("the redefined check was not probed soon, or lost its status: %+v", s)
		}
		if statusOf(r, added.Target) != health.StatusUp {
			t.Error("the new check was not probed soon")
		}
		gone := len(w.times(removed.Target))
		time.Sleep(time.Minute)
		if len(w.times(removed.Target)) != gone {
			t.Error("a removed check is still probed")
		}
	})
}

// TestSetChecksCancels: the probe of a removed check ends at once and its result
// counts for nothing.
func TestSetChecksCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.took = time.Hour
		cs := checks(1, Check{Every: time.Minute, Timeout: time.Minute})
		r, stop := start(t, Options{Checks: cs, Probe: w.probe})
		defer stop()
		time.Sleep(startSpread)
		synctest.Wait()
		if w.now != 1 {
			t.Fatal("no probe in flight")
		}
		if err := r.SetChecks(nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if w.now != 0 || len(r.States(nil)) != 0 || r.room.flying != 0 {
			t.Errorf("%d probes in flight, states %+v", w.now, r.States(nil))
		}
	})
}

// TestChangedWakes: one wake-up however many changes, none without.
func TestChangedWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cs := checks(30, Check{Every: time.Second})
		r, stop := start(t, Options{Checks: cs, Probe: w.probe})
		defer stop()
		time.Sleep(time.Second)
		synctest.Wait()
		woken := func() bool {
			select {
			case <-r.Changed():
				return true
			default:
				return false
			}
		}
		if !woken() || woken() {
			t.Error("want exactly one wake-up for the first results")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if woken() {
			t.Error("woken for nothing")
		}
		w.set(cs[0].Target, true)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if !woken() || woken() {
			t.Error("want exactly one wake-up for the change")
		}
	})
}

// TestRunJoins: when Run returns no probe is left, and their ends are no findings.
func TestRunJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.took = time.Hour
		cs := checks(10, Check{Every: time.Minute, Timeout: time.Minute, Fall: 1})
		r, stop := start(t, Options{Checks: cs, Probe: w.probe})
		time.Sleep(startSpread)
		synctest.Wait()
		if w.now != 10 {
			t.Errorf("%d in flight", w.now)
		}
		stop()
		if w.now != 0 {
			t.Errorf("%d in flight after Run", w.now)
		}
		for _, s := range r.States(nil) {
			if s.Status != health.StatusNone {
				t.Errorf("stopping became a finding: %+v", s)
			}
		}
		if err := r.Run(t.Context()); err == nil {
			t.Error("ran twice")
		}
		if err := r.SetChecks(cs[:1]); err != nil || len(r.queue) != 0 {
			t.Errorf("after Run: %v, %d waiting", err, len(r.queue))
		}
	})
}

func TestNewRefuses(t *testing.T) {
	c := Check{Target: target("10.0.0.1:80")}
	used := prometheus.NewRegistry()
	if _, err := New(Options{Registerer: used}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		o    Options
		want string
	}{
		{"in flight", Options{InFlight: -1}, "-1 in flight: want 1 to 65536"},
		{"bad checks, all of them", Options{Checks: []Check{{}, {Target: c.Target, Rise: 101}}}, "rise 101"},
		{"twice", Options{Checks: []Check{c, c}}, "check web/fra/backend/10.0.0.1:80: defined twice"},
		{"metrics", Options{Registerer: used}, "register metrics"},
	} {
		r, err := New(tt.o)
		if r != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	var already prometheus.AlreadyRegisteredError
	if _, err := New(Options{Registerer: used}); !errors.As(err, &already) {
		t.Errorf("got %v", err)
	}
}

// TestRealRun: real probes of a real listener that comes, goes and comes back.
func TestRealRun(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	c := Check{Target: target(addr), Every: 20 * time.Millisecond, Recheck: 10 * time.Millisecond, Timeout: time.Second}
	reg := prometheus.NewRegistry()
	r, stop := start(t, Options{Checks: []Check{c}, Registerer: reg})
	defer stop()
	await := func(want health.Status) {
		t.Helper()
		for deadline := time.After(20 * time.Second); statusOf(r, c.Target) != want; {
			select {
			case <-r.Changed():
			case <-deadline:
				t.Fatalf("never became %v", want)
			}
		}
	}
	await(health.StatusUp)
	l.Close()
	await(health.StatusDown)
	if s := r.States(nil)[0]; s.Last.Err != "connect refused" {
		t.Errorf("got %+v", s)
	}
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	await(health.StatusUp)
	total := metricSum(t, reg, "pharos_probe_probes_total")
	if observed := metricSum(t, reg, "pharos_probe_duration_seconds"); total < 6 || observed < total {
		t.Errorf("%v probes counted, %v timed", total, observed)
	}
	if n := metricSum(t, reg, "pharos_probe_configured_checks"); n != 1 {
		t.Errorf("%v checks", n)
	}
}

func BenchmarkTCPProbe(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	at := health.Target{Kind: health.KindBackend, Addr: netip.MustParseAddrPort(l.Addr().String())}
	c := Check{Target: at}.WithDefaults()
	p := &prober{}
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithTimeout(b.Context(), time.Second)
		if r := p.probe(ctx, c); !r.OK() {
			b.Fatal(r.Err)
		}
		cancel()
	}
}

// BenchmarkSchedule is the cost of a probe that costs nothing: heap, goroutine,
// bookkeeping, with 20,000 checks.
func BenchmarkSchedule(b *testing.B) {
	left := make(chan struct{}, 1)
	n := 0
	var mu sync.Mutex
	r, err := New(Options{
		Checks: checks(20_000, Check{Every: 10 * time.Millisecond, Timeout: time.Second}),
		Probe: func(context.Context, Check) Result {
			mu.Lock()
			defer mu.Unlock()
			if n++; n == b.N {
				signal(left)
			}
			return Result{}
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	b.ResetTimer()
	go func() { done <- r.Run(ctx) }()
	<-left
	cancel()
	<-done
}
