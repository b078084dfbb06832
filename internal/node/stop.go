package node

import (
	"context"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/steer"
)

// stop takes the tiers down in the order in which nobody loses anything: names first, so that nobody new is led
// here, then routes, then connections; gossip says goodbye last.
func (n *Node) stop(parts *parts) {
	n.phase.Store("stopping")
	close(n.stopping)
	n.reloading.Lock() // a reload in hand ends first; no other begins
	defer n.reloading.Unlock()
	notifySystemd("STOPPING=1")
	setup := n.setup.Load()
	steps := stepsOf(setup.Config.Drain, setup.Topology.Leads())
	end := time.Now().Add(steps.total)
	n.log.Info("stopping", "node", n.opts.Name, "limit", steps.total.String())
	ctx, cancel := context.WithTimeout(context.Background(), steps.unanswered+steps.depreferenced+2*convergence+2*stopStep)
	defer cancel()
	n.leaveNames(ctx, steps)
	n.mu.Lock()
	announced := n.speaker != nil
	n.mu.Unlock()
	if announced && n.announces() {
		// Routers that know another way take it, and nothing is lost.
		n.decider.do(ctx, n.decider.core.SetStopping)
		n.log.Info("stopping: routes are less preferred", "for", steps.depreferenced.String())
		n.pause(ctx, steps.depreferenced)
	}
	n.decider.setReady(ctx, false)
	parts.stop(stopStep, "bgp", "bgp sessions")
	if announced {
		n.pause(ctx, convergence) // what the routers still send until they have converged is served
	}
	parts.stop(stopStep, "dns")
	n.finish(parts, end)
	n.releaseVIPs(parts)
	parts.stopAll(stopStep)
}

// leaveNames has all nodes answer with other sites, this one too, and waits until resolvers have noticed. It does
// not where this site is not led to, or is answered all the same because there is no other.
func (n *Node) leaveNames(ctx context.Context, steps stopSteps) {
	before := n.answered()
	n.decider.do(ctx, n.decider.core.SetLeaving)
	n.decider.do(ctx, func() {}) // what was told with the step before is decided on with this one
	if steps.unanswered == 0 || before == 0 {
		return
	}
	if n.answered() >= before && len(n.setup.Load().Self.Site.Nodes) > 1 {
		n.pause(ctx, convergence) // the site is stopping when its last node says so: that may be on its way
	}
	if n.answered() >= before {
		return
	}
	n.log.Info("stopping: names lead elsewhere", "for", steps.unanswered.String())
	n.pause(ctx, steps.unanswered)
}

// answered counts the services whose names lead to this node's site.
func (n *Node) answered() (count int) {
	plan := n.board.Load()
	if plan == nil {
		return 0
	}
	for i := range plan.Services {
		if home := plan.Topology.Services[i].Home; home >= 0 && plan.Services[i].Sites[home].Eligible {
			count++
		}
	}
	return count
}

// finish lets connections end, until a time.
func (n *Node) finish(parts *parts, end time.Time) {
	open := 0
	for _, c := range n.countTraffic() {
		open += c.open
	}
	limit := max(time.Until(end), stopStep)
	n.log.Info("stopping: connections are finishing", "open", open, "limit", limit.Round(time.Millisecond).String())
	tiers := []string{"l7", "l4", "udp"}
	parts.endWith(forward.Closing{Limit: limit}, tiers...)
	parts.join(context.Background(), limit+stopStep, tiers...)
	parts.stop(stopStep, tiers...)
}

// pause waits.
func (n *Node) pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// announces reports whether the newest plan has a route.
func (n *Node) announces() bool {
	plan := n.board.Load()
	return plan != nil && slices.ContainsFunc(plan.Routes, func(r steer.Route) bool { return r.Announce })
}

// stopSteps is how the time of a stop is shared out.
type stopSteps struct {
	total         time.Duration
	unanswered    time.Duration // names lead elsewhere, and resolvers notice
	depreferenced time.Duration // routes are announced less preferred
}

// What part of a stop its first stages take at most.
const (
	unansweredShare    = 3
	depreferencedShare = 5
)

// stepsOf shares the time of a stop out; leads is how long resolvers keep an answer that leads here.
func stepsOf(d config.Drain, leads time.Duration) stopSteps {
	return stopSteps{
		total: d.Stop, unanswered: min(leads, d.Stop/unansweredShare), depreferenced: min(d.Depreference, d.Stop/depreferencedShare),
	}
}
