package lab

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Shape of a random schedule.
const (
	faultsLeast, faultsMost = 3, 6
	faultsFrom              = 200 * time.Millisecond
	faultsTo                = 5 * time.Second // faults happen in between
	healAt                  = 6 * time.Second
	// AgreeWithin is how long after everything is healed all plans must be the same.
	AgreeWithin = 30 * time.Second
)

// mostDead is how many nodes a schedule kills, freezes or wipes at most: one
// fewer than the nameservers that a resolver tries, because a fleet that is
// dead cannot answer.
func mostDead(l *Layout) int { return max(min(resolverTries, len(l.Nodes()))-1, 0) }

// RandomSchedule returns random faults for a fleet, at random moments, that are
// all healed at the end, and what must hold. The same seed and layout give the
// same schedule; its text replays it with [ParseScenario]. At most two nodes
// are dead at a time, and the backends of at most one site; cuts are between
// nodes and sites and never cut off the client.
func RandomSchedule(seed uint64, l *Layout) *Scenario {
	d := &dice{
		random: rand.New(rand.NewPCG(seed, 0x1ab)), layout: l, nodes: l.Nodes(), sites: l.SiteNames(),
		touched: map[string]bool{},
	}
	n := faultsLeast + d.random.IntN(faultsMost-faultsLeast+1)
	var moments []time.Duration
	for range n {
		span := int64((faultsTo - faultsFrom) / time.Millisecond)
		moments = append(moments, faultsFrom+time.Duration(d.random.Int64N(span))*time.Millisecond)
	}
	slices.Sort(moments)
	s := &Scenario{Always: []Always{AlwaysAnswered, NeverEmpty, NeverStale}}
	for _, at := range moments {
		fault := d.throw()
		s.Steps = append(s.Steps, Step{At: at, Fault: &fault})
	}
	s.Steps = append(s.Steps,
		Step{At: healAt, Fault: &Fault{Kind: FaultHeal}},
		Step{At: healAt, Expect: &Expectation{Within: AgreeWithin, SamePlan: true}})
	return s
}

// dice make random faults that go together.
type dice struct {
	random       *rand.Rand
	layout       *Layout
	nodes, sites []string
	touched      map[string]bool // nodes that something was done to: one thing each
	dead         int
	backends     bool // those of a site are down already
}

// throw returns the next fault.
func (d *dice) throw() Fault {
	for range 100 { // a kind that cannot be had any more is thrown again
		if f, ok := d.try(); ok && f.check(d.layout) == nil {
			return f
		}
	}
	return Fault{Kind: FaultHeal} // a fleet so small that nothing is left to break
}

func (d *dice) try() (Fault, bool) {
	kinds := []FaultKind{
		FaultKill, FaultFreeze, FaultCut, FaultCut, FaultCut, FaultDrop, FaultFillDisk, FaultClock, FaultWipe, FaultBackend,
	}
	f := Fault{Kind: kinds[d.random.IntN(len(kinds))]}
	switch f.Kind {
	case FaultCut, FaultDrop:
		return d.cut(f)
	case FaultBackend:
		f.A = d.sites[d.random.IntN(len(d.sites))]
		ok := !d.backends && len(d.sites) > 1
		d.backends = true
		return f, ok
	}
	f.A = d.nodes[d.random.IntN(len(d.nodes))]
	if d.touched[f.A] {
		return f, false
	}
	switch f.Kind {
	case FaultKill, FaultFreeze, FaultWipe:
		if d.dead >= mostDead(d.layout) {
			return f, false
		}
		d.dead++
	case FaultClock:
		jumps := []time.Duration{time.Hour, -time.Hour, 365 * 24 * time.Hour, -365 * 24 * time.Hour, 5 * time.Second, -5 * time.Second}
		f.Offset = jumps[d.random.IntN(len(jumps))]
	}
	d.touched[f.A] = true
	return f, true
}

// cut picks two places: sites half of the time, else nodes of different sites.
func (d *dice) cut(f Fault) (Fault, bool) {
	from := d.nodes
	if d.random.IntN(2) == 0 {
		from = d.sites
	}
	if len(from) < 2 {
		return f, false
	}
	a := d.random.IntN(len(from))
	b := (a + 1 + d.random.IntN(len(from)-1)) % len(from)
	f.A, f.B, f.OneWay = from[a], from[b], d.random.IntN(2) == 0
	if f.Kind == FaultDrop {
		f.Percent = 10 + d.random.IntN(81)
	}
	return f, true
}
