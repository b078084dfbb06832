package health

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestRewritten: what the judge says that it rewrote is what a comparison finds, and
// it says so only of the view that it began with.
func TestRewritten(t *testing.T) {
	var targets []Target
	for i := range 40 {
		targets = append(targets, backend(string(rune('a'+i%20)), "fra", uint16(1+i/20)))
	}
	layout := NewLayout(targets)
	l := NewLedger(fleetOf("fra1", "fra2"), layout)
	random := rand.New(rand.NewPCG(3, 9))
	view, older := l.Judge(nil, Moment{Now: t0}), (*View)(nil)
	known, shared := 0, 0
	for step := range 200 {
		now := t0.Add(time.Duration(step+1) * 100 * time.Millisecond)
		for _, name := range []string{"fra1", "fra2"} {
			r := NewReport(name, layout)
			r.Seq = uint64(step + 1)
			for i := range targets {
				r.Set(i, StatusUp)
				if random.IntN(60) == 0 && step%3 > 0 {
					r.Set(i, StatusDown)
				}
			}
			l.Merge(r, 0, now)
		}
		next := l.Judge(view, Moment{Now: now})
		var want []int
		for i := range next.Verdicts {
			if next.Verdicts[i] != view.Verdicts[i] {
				want = append(want, i)
			}
		}
		got, ok := next.Rewritten(view)
		if !ok || !slices.Equal(got, want) {
			t.Fatalf("step %d: %v, %v; compared: %v", step, got, ok, want)
		}
		if len(want) > 0 {
			known++
			copied := *next
			copied.Verdicts = slices.Clone(next.Verdicts)
			if _, ok := copied.Rewritten(view); ok {
				t.Fatal("a copy with verdicts of its own is taken for the judge's")
			}
			if older != nil && &older.Verdicts[0] != &view.Verdicts[0] {
				if _, ok := next.Rewritten(older); ok {
					t.Fatal("it claims to know what differs from the view before the last")
				}
			}
		} else {
			shared++
		}
		view, older = next, view
	}
	if known < 20 || shared < 5 {
		t.Errorf("%d views with changes, %d without: the test sees too little", known, shared)
	}
	flipped := view.With(7, Verdict{Status: StatusDown})
	if got, ok := flipped.Rewritten(view); !ok || !slices.Equal(got, []int{7}) || view.Verdicts[7].Status == StatusDown {
		t.Errorf("With: %v, %v", got, ok)
	}
}
