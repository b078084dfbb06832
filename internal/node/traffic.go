package node

import (
	"context"
	"net/netip"
	"time"

	"github.com/pharos-lb/pharos/internal/steer"
)

// trafficEvery is how often the traffic at the VIPs is looked at.
const trafficEvery = time.Second

// A count is what one listening address has seen so far.
type count struct {
	at    netip.Addr // unspecified = every address
	open  int
	begun uint64
}

// watchTraffic looks at the traffic at the VIPs, and tells the decider while something is drained: then it
// says when a stage is over.
func (n *Node) watchTraffic(ctx context.Context) error {
	tick := time.NewTicker(trafficEvery)
	defer tick.Stop()
	before, at := n.countTraffic(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := n.countTraffic()
		lasted := time.Since(at)
		if plan := n.board.Load(); plan != nil && plan.Draining() {
			n.decider.do(ctx, func() { n.noteTraffic(now, before, lasted) })
		}
		before, at = now, time.Now()
	}
}

// countTraffic reads the counters of the tiers, by what listens.
func (n *Node) countTraffic() map[string]count {
	n.mu.Lock()
	four, seven, datagrams, dns := n.l4, n.l7, n.udp, n.dns
	n.mu.Unlock()
	out := map[string]count{}
	if four != nil && seven != nil && datagrams != nil {
		for _, t := range four.Traffic() {
			out["tcp "+t.Address.String()] = count{t.Address.Addr(), int(t.Open), t.Begun}
		}
		for _, t := range datagrams.Traffic() {
			out["udp "+t.Address.String()] = count{t.Address.Addr(), int(t.Open), t.Begun}
		}
		for _, t := range seven.Traffic() {
			out["http "+t.Address.String()] = count{t.Address.Addr(), int(t.Open), t.Begun}
		}
	}
	if dns != nil {
		for _, t := range dns.Traffic() {
			// What asks at every address mostly asks for names that lead elsewhere by now: it would never fall silent.
			if !t.Address.Addr().IsUnspecified() {
				out["dns "+t.Address.String()] = count{t.Address.Addr(), 0, t.Queries}
			}
		}
	}
	return out
}

// noteTraffic hands over what came of two looks. It runs on the decider's goroutine.
func (n *Node) noteTraffic(now, before map[string]count, lasted time.Duration) {
	t := n.decider.core.Topology()
	prefixes := t.Prefixes()
	loads := make([]steer.Load, len(prefixes))
	for what, c := range now {
		begun := c.begun
		if was, known := before[what]; known && was.begun <= begun {
			begun -= was.begun
		}
		for i, p := range prefixes {
			if p.Contains(c.at) || c.at.IsUnspecified() {
				loads[i].Open += c.open
				loads[i].Rate += float64(begun) / lasted.Seconds()
			}
		}
	}
	pools := make([]int, len(t.Services))
	for _, b := range n.backends.Snapshot() {
		if i, ok := t.Service(b.Service); ok {
			pools[i] += int(b.InFlight)
		}
	}
	n.decider.core.SetTraffic(loads, pools)
}
