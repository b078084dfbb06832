package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/pharos-lb/pharos/internal/health"
)

const (
	// maxNewsOverrides is how many changed registers of one set are passed on by
	// gossip; the rest goes its other ways.
	maxNewsOverrides = 32
	// maxRepairs is how many members are sent our whole set at a time, and
	// repairers how many of those who agree do so for each member that does not.
	maxRepairs = 8
	repairers  = 4
)

// PublishOverrides makes all, the whole set, the override registers that are
// told to the others; digest is health.Overrides.Digest of it. A register that
// this node wrote and that is new here is sent to every member at once, every
// changed one is passed on by gossip, every exchanged state carries them all,
// and a member whose report keeps saying another digest is sent them all. What
// is published before the first report counts as restored and is not news. A
// register that cannot be encoded is left out and counted. The slice may be
// changed afterwards. PublishOverrides never blocks.
func (n *Node) PublishOverrides(all []health.Override, digest uint64) {
	changed, bad := n.registers.replace(all, digest, n.sealFor)
	if bad > 0 {
		n.meters.dropped.WithLabelValues(dropRefused).Add(float64(bad))
		n.log.Error("overrides cannot be sent", "overrides", bad)
	}
	n.mu.Lock()
	restored := n.own == nil
	if !restored {
		for _, r := range changed {
			if r.override.Writer == n.opt.Name {
				n.orders[r.override.Scope] = r.record // at most one each: bounded by the set
			}
		}
	}
	n.mu.Unlock()
	if restored || len(changed) == 0 {
		return
	}
	wake(n.ordered)
	if len(changed) > maxNewsOverrides {
		return
	}
	for _, r := range changed {
		n.spreadOrder(r)
	}
}

// takeOverrides reads registers and delivers those that could replace ours. One
// that cannot be read says nothing about the others.
func (n *Node) takeOverrides(records []record) {
	if n.opt.DeliverOverrides == nil {
		return
	}
	var all []health.Override
	for _, rec := range records {
		v, err := health.ParseOverride(rec.override)
		if err != nil {
			n.refuse("override cannot be read", err)
			continue
		}
		if held, otherSeal := n.registers.holds(&v, rec); held {
			n.meters.duplicates.WithLabelValues("override").Inc()
			if otherSeal && n.verify(sealOverride, v.Writer, rec.override, rec.seal) == authentic {
				n.registers.reseal(&v, rec)
			}
			continue
		}
		if !n.registers.supersedes(&v) { // whether it is genuine is of no interest
			n.meters.duplicates.WithLabelValues("override").Inc()
			continue
		}
		if n.verify(sealOverride, v.Writer, rec.override, rec.seal) == forged && !n.vouched(rec.override, rec.seal) {
			n.refuseSignature("override", v.Writer)
			continue
		}
		n.registers.remember(rec)
		all = append(all, v)
	}
	if len(all) > 0 {
		n.opt.DeliverOverrides(all)
	}
}

// carryOverrides tells our own orders as they come, and repairs.
func (n *Node) carryOverrides(ctx context.Context, protocol *memberlist.Memberlist) {
	lags := make(map[string]*lag)
	timer := time.NewTimer(jitter(n.pace.repair))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.ordered:
			n.tellOrders(protocol)
		case <-timer.C:
			n.repair(protocol, lags, time.Now())
			timer.Reset(jitter(n.pace.repair))
		}
	}
}

// tellOrders sends the registers that we wrote since the last time to everybody.
func (n *Node) tellOrders(protocol *memberlist.Memberlist) {
	n.mu.Lock()
	orders := n.orders
	n.orders = make(map[health.Scope]record)
	n.mu.Unlock()
	if len(orders) == 0 {
		return
	}
	records := make([]record, 0, len(orders))
	for _, rec := range orders {
		records = append(records, rec)
	}
	frame := appendOverridesFrame(nil, records)
	for _, p := range n.roster.all() {
		if p.present && p.wire >= wireNow {
			n.sendOverrides(protocol, frame, p, len(frame) > n.frameBudget(), nil)
		}
	}
}

// sendOverrides sends a frame to one member, by TCP or in a datagram.
func (n *Node) sendOverrides(protocol *memberlist.Memberlist, frame []byte, to peer, reliably bool, failed func()) {
	if reliably {
		n.dispatch(dispatch{frame: frame, kind: kindOverrides, to: to, failed: failed})
		return
	}
	n.sendFrame(protocol, frame, kindOverrides, to.addr)
}

// sendFrame sends one datagram, unconfirmed.
func (n *Node) sendFrame(protocol *memberlist.Memberlist, frame []byte, kind frameKind, to netip.AddrPort) {
	if err := protocol.SendToAddress(memberlist.Address{Addr: to.String()}, frame); err != nil {
		n.meters.dropped.WithLabelValues(dropSend).Inc()
		n.complain(kind.String()+" cannot be sent", err)
		return
	}
	n.meters.messages.WithLabelValues("out", kind.String()).Inc()
}

// lag is what is remembered of a member whose report says another digest.
// Owned by carryOverrides but for blocked.
type lag struct {
	since time.Time
	sent  time.Time
	tries int
	// blocked is until when no stream to it is tried again, since n.born.
	blocked atomic.Int64
}

// repair sends our whole set to members that have said another digest for a
// while. Where many agree with us only a few of them do so each time, chosen by
// chance, and everybody once it lasts: some may not reach the member.
func (n *Node) repair(protocol *memberlist.Memberlist, lags map[string]*lag, now time.Time) {
	digest, published := n.registers.current()
	if !published {
		return
	}
	behind, agree := n.compareDigests(digest, lags, now)
	var frame []byte
	sent := 0
	for _, p := range behind {
		l := lags[p.name]
		since := now.Sub(l.since)
		if since < n.pace.tolerate || now.Sub(l.sent) < n.pace.resend {
			continue
		}
		if since < n.pace.tolerate+3*n.pace.repair && rand.N(agree) >= repairers {
			continue
		}
		if sent == maxRepairs {
			break // the others' turn comes: their order is random
		}
		if frame == nil {
			frame = appendOverridesFrame(nil, n.registers.all())
		}
		reliably := len(frame) > n.frameBudget() || l.tries%2 == 1
		if reliably && now.Sub(n.born) < time.Duration(l.blocked.Load()) {
			continue
		}
		l.sent, l.tries = now, l.tries+1
		sent++
		n.meters.repairs.Inc()
		n.sendOverrides(protocol, frame, p, reliably, func() {
			l.blocked.Store(int64(time.Since(n.born) + n.pace.dead/4))
		})
	}
}

// compareDigests brings lags up to date. It returns the members whose fresh
// report says another digest, in random order, and how many nodes say ours.
func (n *Node) compareDigests(digest uint64, lags map[string]*lag, now time.Time) (behind []peer, agree int) {
	agree = 1
	present := make(map[string]bool)
	for _, h := range n.table.all(now) {
		name := h.report.Observer
		p, ok := n.roster.find(name)
		if !ok || p.wire < wireNow || reportWire(h.raw) < wireNow || h.ageAt(now) > health.FreshFor {
			continue
		}
		if h.report.Overrides == digest {
			agree++
			delete(lags, name)
			continue
		}
		present[name] = true
		if lags[name] == nil {
			lags[name] = &lag{since: now}
		}
		behind = append(behind, p)
	}
	for name := range lags {
		if !present[name] {
			delete(lags, name)
		}
	}
	rand.Shuffle(len(behind), func(i, j int) { behind[i], behind[j] = behind[j], behind[i] })
	return behind, agree
}

// refuse counts and logs what cannot be read.
func (n *Node) refuse(what string, err error) {
	reason := dropMalformed
	if newer := (*health.VersionError)(nil); errors.As(err, &newer) || errors.Is(err, errFrameVersion) {
		reason = dropVersion
	}
	n.meters.dropped.WithLabelValues(reason).Inc()
	n.complain(what, err)
}

// refuseSignature counts and logs what is not signed by whom it says it is from.
func (n *Node) refuseSignature(what, name string) {
	n.meters.dropped.WithLabelValues(dropSignature).Inc()
	if suppressed, ok := n.journal.admit("signature "+what, time.Now()); ok {
		n.log.Warn("not signed with the key of its node, ignored", "what", what, "node", name, "suppressed", suppressed,
			"hint", "either its key here is another one, or somebody else who has the gossip key speaks for it")
	}
}
