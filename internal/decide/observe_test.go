package decide

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pharos-lb/pharos/internal/health"
)

func TestObserveReportsOnChangeAndOnTime(t *testing.T) {
	b := newBench(t, "a1")
	const ms = time.Millisecond
	for i, tt := range []struct {
		name   string
		after  time.Duration
		change func()
		flags  health.Flags
		want   bool
	}{
		{"the first look", 0, nil, 0, true},
		{"nothing new", 10 * ms, nil, 0, false},
		{"a state changed", 10 * ms, func() { b.all(health.StatusUp) }, 0, true},
		{"the same again", 10 * ms, nil, 0, false},
		{"not quite a second", ReportEvery - 11*ms, nil, 0, false},
		{"a second after the newest", ms, nil, 0, true},
		{"right after that", 10 * ms, nil, 0, false},
		{"a flag", 10 * ms, nil, health.FlagLeaving, true},
		{"the same flag", 10 * ms, nil, health.FlagLeaving, false},
		{"no flag any more", 10 * ms, nil, 0, true},
		{"orders on disk", 10 * ms, func() { b.SetDurable(42) }, 0, true},
		{"the same orders", 10 * ms, func() { b.SetDurable(42) }, 0, false},
	} {
		if tt.change != nil {
			tt.change()
		}
		b.now = b.now.Add(tt.after)
		r := b.Observe(b.states, tt.flags, b.now)
		if (r != nil) != tt.want {
			t.Errorf("%d, %s: reported %v, want %v", i, tt.name, r != nil, tt.want)
		}
		if r != nil && (r.Flags != tt.flags || r.Overrides != b.Durable() || r.Epoch != epoch0) {
			t.Errorf("%s: flags %v, overrides %x, epoch %d", tt.name, r.Flags, r.Overrides, r.Epoch)
		}
	}
}

// Every report is above the one before, states what it was given, and no pause
// between two is longer than ReportEvery and the caller's own.
func TestObserveProperties(t *testing.T) {
	topology := topologyOf(t, threeSites, "a1")
	rapid.Check(t, func(t *rapid.T) {
		b := &bench{Core: New(Options{Name: "a1", Topology: topology, Epoch: epoch0}), now: t0, states: make([]health.Status, len(topology.Layout.Targets))}
		var last *health.Report
		var lastAt time.Time
		for range rapid.IntRange(1, 40).Draw(t, "looks") {
			b.now = b.now.Add(time.Duration(rapid.Int64Range(0, int64(2*time.Second)).Draw(t, "pause")))
			i := rapid.IntRange(0, len(b.states)-1).Draw(t, "target")
			b.states[i] = health.Status(rapid.IntRange(0, 3).Draw(t, "status"))
			r := b.Observe(b.states, 0, b.now)
			if r == nil {
				if b.now.Sub(lastAt) >= ReportEvery {
					t.Fatalf("silent for %s", b.now.Sub(lastAt))
				}
				if last.Get(i) != b.states[i] {
					t.Fatal("a change was not reported at once")
				}
				continue
			}
			if last != nil && !r.Newer(last) {
				t.Fatalf("(%d, %d) after (%d, %d)", r.Epoch, r.Seq, last.Epoch, last.Seq)
			}
			for k, s := range b.states {
				if r.Get(k) != s {
					t.Fatalf("target %d reported %s, is %s", k, r.Get(k), s)
				}
			}
			last, lastAt = r, b.now
		}
	})
}

// Who was frozen holds a picture of another time: it says so until its checks
// have run again.
func TestStallIsDoubt(t *testing.T) {
	for _, tt := range []struct {
		name   string
		pause  time.Duration
		doubts bool
	}{
		{"a slow machine", stallAfter, false},
		{"frozen", stallAfter + 1, true},
		{"frozen for long", time.Hour, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, "a1")
			b.look(0)
			r, _ := b.look(tt.pause)
			if r == nil || (r.Flags == health.FlagDoubt) != tt.doubts || b.Stalled(b.now) != tt.doubts {
				t.Fatalf("report %+v, stalled %v, want doubt %v", r, b.Stalled(b.now), tt.doubts)
			}
			if !tt.doubts {
				return
			}
			if r, _ = b.look(Settle - 1); r == nil || r.Flags != health.FlagDoubt || !b.Stalled(b.now) {
				t.Errorf("before the checks had time to run: %+v", r)
			}
			if r, _ = b.look(1); r == nil || r.Flags != 0 || b.Stalled(b.now) {
				t.Errorf("settled, and not said at once: %+v", r)
			}
		})
	}
}

// A node without a vote in its own eyes: what it saw before it doubted stands.
func TestDoubtHasNoVoteHere(t *testing.T) {
	b := newBench(t, "a1")
	b.all(health.StatusUp)
	b.look(0)
	for range 8 { // it takes some time to come up
		b.look(time.Second)
	}
	target := b.Topology().Probes("a1")[0].Target
	if got := b.View().Of(target).Status; got != health.StatusUp {
		t.Fatalf("%s is %s, want up", target, got)
	}
	b.all(health.StatusDown)
	b.now = b.now.Add(time.Second)
	b.Observe(b.states, health.FlagDoubt, b.now)
	b.Step(health.Moment{Now: b.now})
	if got := b.View().Of(target).Status; got != health.StatusUp {
		t.Errorf("%s is %s on the word of one that doubts itself", target, got)
	}
	b.look(time.Second)
	if got := b.View().Of(target).Status; got != health.StatusDown {
		t.Errorf("%s is %s without doubt, want down", target, got)
	}
}

// Somebody who remembers a later life of ours is outbid, within bounds and not
// more often than RaiseEvery.
func TestEchoRaises(t *testing.T) {
	for _, tt := range []struct {
		name       string
		epoch, seq uint64
		want       uint64
	}{
		{"an older life", epoch0 - 1, 1 << 50, epoch0},
		{"what was said", epoch0, 1, epoch0},
		{"more than was said", epoch0, 2, epoch0 + 1},
		{"a later life", 900, 0, 901},
		{"the last that can be exceeded", maxEpoch - 2, 1, maxEpoch - 1},
		{"no room above", maxEpoch - 1, 1, epoch0},
		{"would wrap", ^uint64(0), 1, epoch0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, "a1")
			b.look(0)
			echo := health.NewReport("a1", b.Topology().Layout)
			echo.Epoch, echo.Seq = tt.epoch, tt.seq
			want := health.OutcomeOld
			if tt.want != epoch0 {
				want = health.OutcomeNew
			}
			if got := b.Merge(echo, 0, b.now); got != want || b.Epoch() != tt.want {
				t.Errorf("%s, epoch %d, want %s, %d", got, b.Epoch(), want, tt.want)
			}
			if r, _ := b.look(time.Millisecond); (r != nil) != (tt.want != epoch0) || r != nil && r.Epoch != tt.want {
				t.Errorf("reported %+v", r)
			}
			echo.Epoch = b.Epoch() + 5
			if b.Merge(echo, 0, b.now); tt.want != epoch0 && b.Epoch() != tt.want {
				t.Errorf("raised to %d right after", b.Epoch())
			}
			if echo.Epoch > maxEpoch-2 {
				return
			}
			b.now = b.now.Add(RaiseEvery)
			if b.Merge(echo, 0, b.now); b.Epoch() != echo.Epoch+1 {
				t.Errorf("epoch %d a second later, want %d", b.Epoch(), echo.Epoch+1)
			}
		})
	}
}

// An echo of our own name is not evidence for anything.
func TestEchoIsNotMerged(t *testing.T) {
	b := newBench(t, "a1")
	b.look(0)
	echo := health.NewReport("a1", b.Topology().Layout)
	echo.Epoch = 1 << 40
	for i := range b.states {
		echo.Set(i, health.StatusDown)
	}
	b.Merge(echo, 0, b.now)
	if held := b.Ledger().Held("a1"); held == nil || held.Epoch != epoch0 {
		t.Errorf("held of ourselves: %+v", held)
	}
}

// What is replayed to a node that restarted is old.
func TestRegistersAreFloors(t *testing.T) {
	b := newBench(t, "a1", func(o *Options) { o.Registers = []health.Register{{Observer: "b1", Epoch: 3, Seq: 9}} })
	for _, tt := range []struct {
		epoch, seq uint64
		want       health.Outcome
	}{{3, 9, health.OutcomeOld}, {2, 99, health.OutcomeOld}, {3, 10, health.OutcomeNew}} {
		r := health.NewReport("b1", b.Topology().Layout)
		r.Epoch, r.Seq = tt.epoch, tt.seq
		if got := b.Merge(r, 0, b.now); got != tt.want {
			t.Errorf("(%d, %d): %s, want %s", tt.epoch, tt.seq, got, tt.want)
		}
	}
}

// Who lost its disk while its clock is behind, and of whom nobody holds a report,
// is refused for some seconds, not for ever.
func TestFloorIsLiftedForWhoGoesOn(t *testing.T) {
	b := newBench(t, "a1", func(o *Options) {
		o.Registers = []health.Register{{Observer: "b1", Epoch: 900, Seq: 5}}
	})
	for second := range 15 {
		r := health.NewReport("b1", b.Topology().Layout)
		r.Epoch, r.Seq = 7, uint64(second+1)
		got := b.Merge(r, 0, b.now.Add(time.Duration(second)*time.Second))
		want := health.OutcomeOld
		if second > 11 {
			want = health.OutcomeNew
		}
		if got != want && second != 11 {
			t.Errorf("after %d s: %s, want %s", second, got, want)
		}
	}
}

// A life whose epoch did not reach the disk is gone above all the same, if the registers did: else nobody would listen
// here to what this node says itself.
func TestOwnRegisterIsExceeded(t *testing.T) {
	for _, tt := range []struct{ saved, want uint64 }{{epoch0 - 1, epoch0}, {epoch0, epoch0 + 1}, {epoch0 + 5, epoch0 + 6}, {1<<64 - 1, maxEpoch + 1}} {
		b := newBench(t, "a1", func(o *Options) { o.Registers = []health.Register{{Observer: "a1", Epoch: tt.saved, Seq: 99}} })
		r, _ := b.look(0)
		if r == nil || r.Epoch != tt.want || b.Ledger().Held("a1") != r {
			t.Errorf("saved %d: reports %+v, want epoch %d, and that it is held", tt.saved, r, tt.want)
		}
	}
}

// A stall holds the routes while it is doubted, but one after the other does not.
func TestStallHoldsRoutesOnce(t *testing.T) {
	b := newBench(t, "a1")
	b.look(0)
	b.look(stallAfter + 1)
	first := b.facts.Stalled
	if want := b.now.Add(Settle); !first.Equal(want) {
		t.Fatalf("held until %s, want %s", first, want)
	}
	b.look(Settle + stallAfter)
	if got := b.facts.Stalled; !got.Equal(first) {
		t.Errorf("the next stall holds until %s", got)
	}
	b.look(holdAgain)
	if got := b.facts.Stalled; !got.Equal(b.now.Add(Settle)) {
		t.Errorf("one much later holds until %s", got)
	}
}
