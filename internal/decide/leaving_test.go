package decide

import (
	"slices"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// A node that is about to stop says so at once, and leads nobody to itself any more; the others do as it says.
func TestLeavingIsSaidAndObeyed(t *testing.T) {
	b := newBench(t, "c1")
	b.all(health.StatusUp)
	_, s := b.look(time.Second)
	if !slices.Contains(answered(s.Plan), "c") {
		t.Fatalf("answered before: %v", answered(s.Plan))
	}
	b.SetLeaving()
	r, s := b.look(time.Millisecond)
	if r == nil || r.Flags&health.FlagLeaving == 0 {
		t.Fatalf("reported %+v", r)
	}
	_, s = b.look(time.Millisecond)
	if got := answered(s.Plan); slices.Contains(got, "c") || len(got) == 0 {
		t.Errorf("answered with %v by itself", got)
	}

	other := newBench(t, "b1")
	other.all(health.StatusUp)
	other.look(time.Second)
	other.Merge(r, 0, other.now)
	if _, s := other.look(time.Millisecond); slices.Contains(answered(s.Plan), "c") {
		t.Errorf("answered with %v by another", answered(s.Plan))
	}
}
