package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pharos-lb/pharos/internal/health"
)

// Orders of one request are given together or not at all.
func TestWriteAllOrNothing(t *testing.T) {
	b := newBench(t, "a1")
	b.give(t, b.order(t, "site/c", health.OrderUp, 0))
	b.look(0)
	before, digest := b.Overrides()
	long := b.order(t, "service/web", health.OrderDrain, 0)
	long.Reason = strings.Repeat("x", health.MaxOverrideReason+1)
	for name, orders := range map[string][]health.Override{
		"the last is bad":  {b.order(t, "site/a", health.OrderDrain, 0), long},
		"the first is bad": {long, b.order(t, "site/a", health.OrderDrain, 0)},
		"no scope":         {b.order(t, "site/a", health.OrderDrain, 0), {Order: health.OrderDown}},
	} {
		if written, err := b.WriteAll(orders); err == nil || written != nil {
			t.Errorf("%s: got %v, %v", name, texts(written), err)
		}
		if after, d := b.Overrides(); d != digest || !cmp.Equal(before, after, cmp.Comparer(func(x, y health.Scope) bool { return x == y })) {
			t.Errorf("%s: the set changed to %v", name, texts(after))
		}
		if _, s := b.look(time.Millisecond); s.Decided {
			t.Errorf("%s: decided again", name)
		}
	}
	written := b.give(t, b.order(t, "site/a", health.OrderDrain, 0), b.order(t, "service/web", health.OrderUp, 0))
	if len(written) != 2 || written[0].Writer != "a1" || written[1].Counter <= written[0].Counter || written[0].Counter <= before[0].Counter {
		t.Errorf("written %+v after %+v", written, before)
	}
}

// A preview shows what would stand and changes nothing.
func TestWithChangesNothing(t *testing.T) {
	b := newBench(t, "a1")
	b.give(t, b.order(t, "site/c", health.OrderUp, 0))
	b.look(0)
	_, digest := b.Overrides()
	next := b.With([]health.Override{
		b.order(t, "site/a", health.OrderDrain, 0), b.order(t, "site/c", health.OrderNone, 0), {Order: health.OrderDown},
	})
	if got := texts(next); !slices.Equal(got, []string{"site/a drain"}) {
		t.Errorf("would stand: %v", got)
	}
	if _, d := b.Overrides(); d != digest || !slices.Equal(texts(b.Standing()), []string{"site/c up"}) {
		t.Errorf("the preview changed what stands to %v", texts(b.Standing()))
	}
	if _, s := b.look(time.Millisecond); s.Decided {
		t.Error("the preview had something decided")
	}
}

// Only what is on disk counts, here and elsewhere.
func TestAcknowledgedCountsTheDurable(t *testing.T) {
	b := newBench(t, "a1")
	b.give(t, b.order(t, "site/c", health.OrderDrain, 0))
	_, digest := b.Overrides()
	seq := uint64(0)
	expect := func(what string, want int) {
		t.Helper()
		if k, n := b.Acknowledged(digest); k != want || n != 4 {
			t.Errorf("%s: %d of %d, want %d of 4", what, k, n, want)
		}
	}
	say := func(node string, digest uint64) {
		seq++
		r := health.NewReport(node, b.Topology().Layout)
		r.Epoch, r.Seq, r.Overrides = 1, seq, digest
		b.Merge(r, 0, b.now)
	}
	expect("in memory", 0)
	b.SetDurable(digest + 1)
	expect("something else is on disk", 0)
	b.SetDurable(digest)
	expect("on disk here", 1)
	b.look(0)
	expect("and reported", 1)
	say("b1", digest+1)
	expect("b1 holds something else", 1)
	say("b1", digest)
	say("a2", digest)
	expect("b1 and a2 too", 3)
	say("b1", 0)
	expect("b1 was wiped", 2)
	say("x9", digest)
	expect("a stranger does not count", 2)
	b.give(t, b.order(t, "site/c", health.OrderNone, 0))
	_, digest = b.Overrides()
	expect("another order", 0)
}

// Whatever the order of arrival and however often: the same set, and a decision
// only if it changed.
func TestMergeOverridesConverges(t *testing.T) {
	a, z := newBench(t, "a1"), newBench(t, "c1")
	var all []health.Override
	all = append(all, a.give(t, a.order(t, "site/a", health.OrderDrain, 0), a.order(t, "service/web", health.OrderUp, 0))...)
	all = append(all, z.give(t, z.order(t, "site/a", health.OrderDown, 0), z.order(t, "site/c", health.OrderDrain, 0))...)
	all = append(all, a.give(t, a.order(t, "site/a", health.OrderNone, 0))...)
	b := newBench(t, "b1")
	b.MergeOverrides(all)
	_, want := b.Overrides()
	topology := b.Topology()
	rapid.Check(t, func(t *rapid.T) {
		core := New(Options{Name: "b1", Topology: topology, Epoch: 1})
		core.Step(health.Moment{Now: t0})
		for range 2 {
			for _, v := range rapid.Permutation(all).Draw(t, "arrivals") {
				_, before := core.Overrides()
				changed, refused := core.MergeOverrides([]health.Override{v})
				_, after := core.Overrides()
				if changed != (before != after) || refused != 0 {
					t.Fatalf("changed %v, refused %d; digests %x, %x", changed, refused, before, after)
				}
				if s := core.Step(health.Moment{Now: t0}); s.Decided != changed {
					t.Fatalf("decided %v, changed %v", s.Decided, changed)
				}
			}
		}
		if _, got := core.Overrides(); got != want {
			t.Fatalf("digest %x, want %x", got, want)
		}
	})
	bad := all[0]
	bad.Writer = ""
	if changed, refused := b.MergeOverrides([]health.Override{bad, all[1]}); changed || refused != 1 {
		t.Errorf("a malformed one: changed %v, refused %d", changed, refused)
	}
}

// What was on disk stands before anything was heard, and is acknowledged here.
func TestRestoredOrdersStandFromTheFirstStep(t *testing.T) {
	first := newBench(t, "a1")
	first.give(t, first.order(t, "pool/web/c", health.OrderDown, 0), first.order(t, "site/b", health.OrderDrain, 0))
	first.give(t, first.order(t, "site/b", health.OrderNone, 0))
	all, digest := first.Overrides()
	second := newBench(t, "a1", func(o *Options) { o.Overrides = all })
	if second.Durable() != digest {
		t.Errorf("durable %x, want %x", second.Durable(), digest)
	}
	r, s := second.look(0)
	if got := answered(s.Plan); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("answered with %v, want without c", got)
	}
	if r.Overrides != digest {
		t.Errorf("reported digest %x, want %x", r.Overrides, digest)
	}
	if changed, _ := second.MergeOverrides(first.clearedAgo(all)); changed {
		t.Error("an older register came back")
	}
}

// clearedAgo are registers as they were before the newest was written over them.
func (b *bench) clearedAgo(all []health.Override) (old []health.Override) {
	for _, v := range all {
		if v.Order == health.OrderNone {
			v.Order, v.Counter = health.OrderDrain, v.Counter-1
			old = append(old, v)
		}
	}
	return old
}

// An order is ended by its keeper's site, and by the others only long after.
func TestOrdersEndAtTheirKeepers(t *testing.T) {
	for _, tt := range []struct {
		node  string
		after time.Duration
		ends  bool
	}{
		{"c1", time.Minute - 1, false},
		{"c1", time.Minute, true},
		{"a1", time.Minute, false},
		{"b1", time.Minute + health.KeeperGrace - 1, false},
		{"b1", time.Minute + health.KeeperGrace, true},
	} {
		writer, b := newBench(t, "a1"), newBench(t, tt.node)
		b.MergeOverrides(writer.give(t, writer.order(t, "site/c", health.OrderDrain, time.Minute)))
		b.look(0)
		_, s := b.look(tt.after)
		if (len(s.Ended) == 1) != tt.ends {
			t.Errorf("%s after %s: ended %v, want %v", tt.node, tt.after, texts(s.Ended), tt.ends)
			continue
		}
		if want := len(b.Standing()) == 0; want != tt.ends {
			t.Errorf("%s after %s: standing %v", tt.node, tt.after, texts(b.Standing()))
		}
		if !tt.ends {
			continue
		}
		v := s.Ended[0]
		if v.Order != health.OrderNone || v.Writer != tt.node || v.Counter < 2 || !v.Until.IsZero() || v.Keeper != "c" {
			t.Errorf("ended with %+v", v)
		}
		if !s.Decided {
			t.Errorf("%s: nothing was decided when the order ended", tt.node)
		}
		if changed, _ := writer.MergeOverrides(s.Ended); !changed || len(writer.Standing()) != 0 {
			t.Errorf("%s: the writer still holds %v", tt.node, texts(writer.Standing()))
		}
		if _, s := b.look(time.Hour); len(s.Ended) != 0 {
			t.Errorf("%s: ended once more: %v", tt.node, texts(s.Ended))
		}
	}
}

// Orders of a node that left the fleet are written anew, by one node.
func TestOrdersOfWhoLeftAreAdopted(t *testing.T) {
	left := health.Override{Scope: health.Scope{Kind: health.ScopeSite, Site: "a"}, Order: health.OrderDrain, Counter: 7, Writer: "gone1", By: "anna", Reason: "power", Keeper: "a"}
	for _, tt := range []struct {
		node string
		want string
	}{{"a1", "a1"}, {"b1", "gone1"}} {
		core := New(Options{Name: tt.node, Topology: topologyOf(t, threeSites, tt.node), Overrides: []health.Override{left}})
		all, _ := core.Overrides()
		if len(all) != 1 || all[0].Writer != tt.want || all[0].Order != left.Order || all[0].By != "anna" || all[0].Reason != "power" {
			t.Errorf("%s holds %+v, want it written by %s", tt.node, all, tt.want)
		}
		if tt.want != "gone1" && all[0].Counter <= left.Counter {
			t.Errorf("counter %d does not replace %d", all[0].Counter, left.Counter)
		}
	}
}
