package health

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A site is leaving when each of its nodes has said so itself, and until one says otherwise: silence says neither.
func TestLeaving(t *testing.T) {
	layout := NewLayout([]Target{backend("web", "fra", 1), backend("web", "iad", 1)})
	l := NewLedger(fleetOf("fra1", "fra2", "iad1"), layout)
	now, seq := t0, uint64(0)
	say := func(node string, flags Flags) {
		seq++
		r := saying(node, layout, 1, seq, nil)
		r.Flags = flags
		l.Merge(r, 0, now)
	}
	for _, step := range []struct {
		name string
		do   func()
		want []string
	}{
		{"nobody was heard", func() {}, nil},
		{"one of two leaves", func() { say("fra1", FlagLeaving); say("iad1", 0) }, nil},
		{"the other doubts itself", func() { say("fra2", FlagDoubt) }, nil},
		{"the other leaves", func() { say("fra2", FlagLeaving|FlagDoubt) }, []string{"fra"}},
		{"both are silent for long", func() { now = now.Add(time.Hour) }, []string{"fra"}},
		{"so is the other site", func() { say("iad1", FlagLeaving); now = now.Add(time.Hour) }, []string{"fra", "iad"}},
		{"one is back", func() { say("fra1", 0) }, []string{"iad"}},
		{"it falls silent", func() { now = now.Add(time.Hour) }, []string{"iad"}},
	} {
		step.do()
		if diff := cmp.Diff(step.want, l.Judge(nil, Moment{Now: now}).Leaving); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
}
