package cluster

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// discoverTimeout is how long Options.Discover may take.
const discoverTimeout = 5 * time.Second

// discover asks for further nodes to join, for ever.
func (n *Node) discover(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		asking, cancel := context.WithTimeout(ctx, discoverTimeout)
		found := n.opt.Discover(asking)
		cancel()
		n.discovered(found)
		timer.Reset(jitter(n.pace.discover))
	}
}

// discovered notes what was found. Nothing found is no evidence that nobody is
// there: what was found before stands.
func (n *Node) discovered(found []netip.AddrPort) {
	if len(found) > maxSeeds {
		n.meters.dropped.WithLabelValues(dropMembers).Add(float64(len(found) - maxSeeds))
		found = found[:maxSeeds]
	}
	n.mu.Lock()
	if len(found) > 0 {
		n.found = slices.Clone(found)
	}
	n.mu.Unlock()
	if len(n.wanted()) == 0 {
		n.markSynced()
	}
	wake(n.seedsSet)
}
