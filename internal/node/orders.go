package node

import (
	"context"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// An acknowledgement is how far the overrides have come: have of nodes hold the
// set with this digest on disk. Immutable.
type acknowledgement struct {
	digest      uint64
	have, nodes int
	here        bool              // this node is one of them
	all         []health.Override // the set, cleared registers too
}

// majority reports whether more than half of the nodes hold the set.
func (a acknowledgement) majority() bool { return 2*a.have > a.nodes }

// ackWithin bounds the wait for a majority, or for this node's disk, to hold an
// order.
const ackWithin = 5 * time.Second

// ackPoll is how often a waiting order looks whether it is acknowledged.
const ackPoll = 5 * time.Millisecond

// publishOrders gives the whole set to the others and to the disk.
func (d *decider) publishOrders() {
	all, digest := d.core.Overrides()
	d.digest = digest
	d.gossip.PublishOverrides(all, digest)
	d.metrics.overrides.Set(float64(len(d.core.Standing())))
	if digest == d.core.Durable() {
		return
	}
	data, err := health.EncodeOverrides(all)
	if err != nil {
		d.log.Error("overrides cannot be saved", "error", err)
		return
	}
	d.orders.put(data, digest)
}

// mergeOrders takes what others ordered.
func (d *decider) mergeOrders(all []health.Override) {
	if all = d.proven(all); len(all) == 0 {
		return
	}
	before := d.acks.Load().all
	changed, refused := d.core.MergeOverrides(all)
	d.metrics.ordersRefused.Add(float64(refused))
	if changed {
		d.logHeard(before)
		d.publishOrders()
	}
}

// proven returns the orders that a node of the fleet is known to have given, or
// to hold if it was given by one that is not in the fleet any more. Where every
// node of the fleet signs, nobody else can give any, whatever gossip key they
// hold; cluster has checked the signatures of those whose writers sign.
func (d *decider) proven(all []health.Override) []health.Override {
	if !d.setup.allSign() {
		return all
	}
	fleet := d.core.Topology().Fleet
	known := slices.DeleteFunc(slices.Clone(all), func(v health.Override) bool { return fleet.Sites[v.Writer] == "" && !d.gossip.Vouched(v) })
	d.metrics.ordersRefused.Add(float64(len(all) - len(known)))
	return known
}

// noteAcks keeps how far the overrides have come, for whoever waits.
func (d *decider) noteAcks() {
	have, nodes := d.core.Acknowledged(d.digest)
	here := d.core.Durable() == d.digest
	was := d.acks.Load()
	if was.digest == d.digest && was.have == have && was.nodes == nodes && was.here == here {
		return
	}
	a := &acknowledgement{digest: d.digest, have: have, nodes: nodes, here: here, all: was.all}
	if was.digest != d.digest {
		a.all, _ = d.core.Overrides()
	}
	d.acks.Store(a)
}

// maxLoggedOrders is how many orders that come together are logged one by one.
const maxLoggedOrders = 100

// logOrders says which orders were given, or ended, and where: what acts on every node is in every node's log.
func (d *decider) logOrders(orders []health.Override) {
	for _, v := range orders[:min(len(orders), maxLoggedOrders)] {
		about := []any{"scope", v.Scope.String(), "order", v.Order.String(), "by", v.By, "reason", v.Reason, "node", v.Writer, "counter", v.Counter}
		if !v.Until.IsZero() {
			about = append(about, "until", v.Until)
		}
		d.log.Info("override", about...)
	}
	if more := len(orders) - maxLoggedOrders; more > 0 {
		d.log.Info("more overrides, see `pharos overrides --all`", "count", more)
	}
}

// logHeard logs the orders of other nodes that are not among those held before, sorted by scope; what was cleared
// before this node ever heard of it is no news.
func (d *decider) logHeard(before []health.Override) {
	all, _ := d.core.Overrides()
	d.logOrders(slices.DeleteFunc(slices.Clone(all), func(v health.Override) bool {
		i, held := slices.BinarySearchFunc(before, v.Scope, func(o health.Override, s health.Scope) int { return o.Scope.Compare(s) })
		return v.Writer == d.name || held && before[i] == v || !held && v.Order == health.OrderNone
	}))
}

// overtaken returns the orders that stand where others were written: somebody
// ordered something else at the same moment, elsewhere, and theirs won.
func (a *acknowledgement) overtaken(written []health.Override) (by []health.Override) {
	for _, v := range written {
		i, ok := slices.BinarySearchFunc(a.all, v.Scope, func(o health.Override, s health.Scope) int { return o.Scope.Compare(s) })
		if ok && a.all[i].Compare(v) != 0 {
			by = append(by, a.all[i])
		}
	}
	return by
}

// awaitHeld waits until what was written is held on disk, by more than half of
// the nodes or, if local, by this one; at most ackWithin or until it is overtaken.
// It returns how far the overrides have come.
func (d *decider) awaitHeld(ctx context.Context, written []health.Override, local bool) acknowledgement {
	ctx, cancel := context.WithTimeout(ctx, ackWithin)
	defer cancel()
	poll := time.NewTicker(ackPoll)
	defer poll.Stop()
	for {
		if a := *d.acks.Load(); a.majority() || local && a.here || len(a.overtaken(written)) > 0 {
			return a
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return *d.acks.Load()
		}
	}
}
