package cluster

import (
	"errors"
	"time"

	"github.com/hashicorp/memberlist"
)

// maxTableBytes is the largest table sent or read: 1024 observers of 30,000
// targets each, and less than half of what memberlist allows.
const maxTableBytes = 8 << 20

// delegate is how memberlist calls a Node. Its methods run on memberlist's
// goroutines, some with memberlist's locks held: they never block and never
// call back.
type delegate struct{ n *Node }

var (
	_ memberlist.Delegate         = delegate{}
	_ memberlist.EventDelegate    = delegate{}
	_ memberlist.ConflictDelegate = delegate{}
	_ memberlist.AliveDelegate    = delegate{}
	_ memberlist.PingDelegate     = delegate{}
)

var errNotAdmitted = errors.New("too many members, or an address that cannot be")

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(limit int) []byte {
	b := d.n.card().encode()
	if len(b) > limit { // cannot be: maxEncodedMeta is less
		return nil
	}
	return b
}

// NotifyMsg implements memberlist.Delegate. msg belongs to memberlist.
func (d delegate) NotifyMsg(msg []byte) {
	if len(msg) > maxFrame(msg) {
		d.n.meters.dropped.WithLabelValues(dropOversize).Inc()
		return
	}
	d.n.receive(letter{frame: append([]byte(nil), msg...), arrived: time.Now()})
}

// GetBroadcasts implements memberlist.Delegate.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.n.gossip(overhead, limit, time.Now())
}

// LocalState implements memberlist.Delegate. It is never empty: memberlist does
// not hand on an empty state.
func (d delegate) LocalState(join bool) []byte {
	return d.n.stateFrame(time.Now(), join)
}

// MergeRemoteState implements memberlist.Delegate. buf is ours to keep.
func (d delegate) MergeRemoteState(buf []byte, _ bool) {
	if len(buf) > maxTableBytes {
		d.n.meters.dropped.WithLabelValues(dropOversize).Inc()
		buf = nil // still an exchange
	}
	d.n.receive(letter{frame: buf, arrived: time.Now(), exchange: true})
}

// NotifyAlive implements memberlist.AliveDelegate: it refuses members that
// would break a limit.
func (d delegate) NotifyAlive(node *memberlist.Node) error {
	if node.Name == d.n.opt.Name {
		return nil
	}
	if node.Name == "" || len(node.Name) > maxNameLen || !addressOf(node).IsValid() || !d.n.roster.admits(node.Name) {
		d.n.meters.dropped.WithLabelValues(dropMembers).Inc()
		return errNotAdmitted
	}
	return nil
}

// NotifyJoin implements memberlist.EventDelegate: a newcomer gets our report at once.
func (d delegate) NotifyJoin(node *memberlist.Node) {
	if node.Name == d.n.opt.Name {
		return
	}
	addr := d.n.roster.join(node, time.Now())
	if d.n.roster.lowestWire() < wireNow {
		// It could not read what waits, which goes its other ways, too.
		d.n.news.forget()
	}
	d.n.log.Info("member joined", "member", node.Name, "address", addr)
	d.n.greet(node.Name)
}

// NotifyUpdate implements memberlist.EventDelegate.
func (d delegate) NotifyUpdate(node *memberlist.Node) {
	if node.Name != d.n.opt.Name {
		d.n.roster.join(node, time.Now())
	}
}

// NotifyLeave implements memberlist.EventDelegate. It changes what is shown and
// who is sent to over TCP; it is no evidence about anything.
func (d delegate) NotifyLeave(node *memberlist.Node) {
	if node.Name == d.n.opt.Name {
		return
	}
	d.n.roster.leave(node.Name, time.Now())
	d.n.log.Info("member gone", "member", node.Name)
}

// NotifyConflict implements memberlist.ConflictDelegate: a present node's name
// is claimed from another address.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	if existing.Name == d.n.opt.Name {
		d.n.rivalSeenAt(addressOf(other).String(), time.Now())
		return
	}
	d.n.meters.conflicts.WithLabelValues("name").Inc()
	if suppressed, ok := d.n.journal.admit("conflict "+existing.Name, time.Now()); ok {
		d.n.log.Warn("two nodes use one name", "member", existing.Name,
			"address", addressOf(existing), "other", addressOf(other), "suppressed", suppressed)
	}
}

// AckPayload implements memberlist.PingDelegate.
func (d delegate) AckPayload() []byte { return nil }

// NotifyPingComplete implements memberlist.PingDelegate.
func (d delegate) NotifyPingComplete(other *memberlist.Node, rtt time.Duration, _ []byte) {
	d.n.roster.pinged(other.Name, rtt)
}
