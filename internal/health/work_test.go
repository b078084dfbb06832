package health

import (
	"fmt"
	"testing"
	"time"
)

// tenThousand is a ledger of 10,000 services at three sites of two nodes each.
func tenThousand() *Ledger {
	var targets []Target
	for s := range 10_000 {
		for _, site := range []string{"fra", "iad", "sin"} {
			name := fmt.Sprintf("service-%05d", s)
			targets = append(targets, backend(name, site, 1), vip(name, site))
		}
	}
	return NewLedger(fleetOf("fra1", "fra2", "iad1", "iad2", "sin1", "sin2"), NewLayout(targets))
}

// sayAll merges a report of every node that says of() of each target it observes.
func sayAll(l *Ledger, seq uint64, of func(i int) Status) {
	for name, site := range l.fleet.Sites {
		r := NewReport(name, l.layout)
		r.Seq = seq
		for i, t := range l.layout.Targets {
			if (t.Site == site) == (t.Kind == KindBackend) {
				r.Set(i, of(i))
			}
		}
		l.Merge(r, 0, t0)
	}
}

func states() map[string]func(i int) Status {
	return map[string]func(int) Status{
		"all up":   func(int) Status { return StatusUp },
		"all down": func(int) Status { return StatusDown },
	}
}

// BenchmarkWork shows that a judgement costs the same whatever fails, when
// nothing changes and when everything has to be compared again.
func BenchmarkWork(b *testing.B) {
	for name, of := range states() {
		l := tenThousand()
		sayAll(l, 1, of)
		v := l.Judge(nil, Moment{Now: t0})
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				v = l.Judge(v, Moment{Now: t0})
			}
		})
		b.Run(name+", compared again", func(b *testing.B) {
			for b.Loop() {
				l.changes++
				v = l.Judge(v, Moment{Now: t0})
			}
		})
	}
}

// TestConstantWork: a judgement of a settled fleet allocates the same, and little,
// whatever the state is: an entry per site and per observer, nothing per target.
func TestConstantWork(t *testing.T) {
	for name, of := range states() {
		l := tenThousand()
		sayAll(l, 1, of)
		v := l.Judge(nil, Moment{Now: t0})
		got := testing.AllocsPerRun(5, func() { v = l.Judge(v, Moment{Now: t0.Add(time.Second)}) })
		// The view, its witnesses, which sites are heard, who is comparable, the
		// benches, and the voters of three sites twice as they grow to two.
		if want := 5 + 3*2*2; got > float64(want) {
			t.Errorf("%s: %v allocations, want at most %d", name, got, want)
		}
		if s := v.Verdicts[0].Status; s != of(0) {
			t.Errorf("%s: %v", name, s)
		}
	}
}
