package forward

import (
	"slices"
	"sync"
	"sync/atomic"
)

// A group is the runtime state of a service as a whole, which outlives editions as
// its backends do.
type group struct {
	service string

	inFlight atomic.Int64     // leases of all its backends
	spilled  atomic.Uint64    // leases of other sites' VIPs
	turns    [3]atomic.Uint64 // of RoundRobin: in the whole pool, in the own zone, in others
	stayed   atomic.Uint64    // leases in the own availability zone
	crossed  atomic.Uint64    // leases in others
	line     line             // who waits for a lease
	compared atomic.Int64     // registry time of the last look at success rates and latencies
	overRate atomic.Uint64    // units of work that Limit.Rate had no room for

	rate *Meter // of Limit.Rate; registry.mu is held

	mu     sync.Mutex // guards the tables, which cost too much to make for every plan
	tables [2]tables  // of all members, and of the active ones
}

// tables are what hashing looks into, made from shares.
type tables struct {
	shares []share
	ring   bool
	slots  []uint16
	points []point
}

// table returns the tables of shares, of kind 0 (all members) or 1 (the active
// ones), made only if the shares have changed since the last call.
func (g *group) table(kind int, shares []share, asRing bool) tables {
	g.mu.Lock()
	defer g.mu.Unlock()
	have := &g.tables[kind]
	if have.ring == asRing && have.shares != nil && slices.Equal(have.shares, shares) {
		return *have
	}
	*have = tables{shares: shares, ring: asRing}
	if asRing {
		have.points = ring(shares)
	} else {
		have.slots = maglev(shares)
	}
	return *have
}

// find returns the index of the share that a hash falls to, at a try from 0 on. There is one at least.
func (t *tables) find(h uint64, try int) int {
	if !t.ring {
		if try > 0 {
			h = again(h, try)
		}
		return int(t.slots[slot(h)])
	}
	i, end := 0, len(t.points)
	for i < end {
		if middle := (i + end) / 2; t.points[middle].hash < uint32(h) {
			i = middle + 1
		} else {
			end = middle
		}
	}
	return int(t.points[(i+try)%len(t.points)].index)
}
