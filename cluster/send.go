package cluster

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// maxCouriers is how many reports that are too large for a datagram are being
	// delivered over TCP at a time.
	maxCouriers = 4
)

// send sends our report to everybody every second, more often in a small fleet, at
// once when it says something else, and to newcomers when they come.
func (n *Node) send(ctx context.Context, protocol *memberlist.Memberlist) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	pacer := pacer{left: paceBurst, counted: time.Now()}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-n.stir:
			n.remind(protocol)
			if !n.hurries() {
				n.greetNewcomers(protocol)
				continue
			}
			// A storm of changes is sent as one.
			present, _ := n.roster.count()
			if wait := pacer.wait(n.pace, present, time.Now()); wait > 0 {
				timer.Reset(wait)
				continue
			}
		}
		changed := n.hurries()
		n.spread(protocol)
		present, _ := n.roster.count()
		pacer.sent(n.pace, present, changed, time.Now())
		timer.Reset(jitter(pacer.every(n.pace, present)))
	}
}

// hurries reports whether our report is to be sent at once.
func (n *Node) hurries() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.urgent
}

// spread sends our report to every member and every configured node, whether it
// is thought to live or not: the work is the same in good times and bad, and
// whoever comes back is up to date before the membership protocol has noticed.
func (n *Node) spread(protocol *memberlist.Memberlist) {
	n.mu.Lock()
	own, urgent := n.own, n.urgent
	n.urgent = false
	clear(n.greetings)
	n.mu.Unlock()
	if own == nil {
		return
	}
	if n.fitsDatagram(own) {
		for addr, wire := range n.targets() {
			n.sendDatagram(protocol, own, addr, wire)
		}
	} else {
		for _, p := range n.roster.all() {
			n.sendParcel(own, p)
		}
	}
	if urgent {
		n.spreadNews(*own)
	}
}

// targets returns where our report goes, and in which version.
func (n *Node) targets() map[netip.AddrPort]uint8 {
	targets, gone := n.roster.wires()
	for _, s := range n.otherSeeds() {
		if _, ok := targets[s]; !ok {
			targets[s] = n.wireTo(gone[s])
		}
	}
	delete(targets, n.advertise)
	return targets
}

// greet has our report sent to a newcomer. Called with memberlist's locks held.
func (n *Node) greet(name string) {
	n.mu.Lock()
	if len(n.greetings) < maxMembers {
		n.greetings[name] = true
	}
	n.mu.Unlock()
	wake(n.stir)
}

// greetNewcomers sends our report to those that came since the last time.
func (n *Node) greetNewcomers(protocol *memberlist.Memberlist) {
	n.mu.Lock()
	own, names := n.own, n.greetings
	n.greetings = make(map[string]bool)
	n.mu.Unlock()
	if own == nil || len(names) == 0 {
		return
	}
	for _, p := range n.roster.all() {
		switch {
		case !names[p.name] || !p.present:
		case n.fitsDatagram(own):
			n.sendDatagram(protocol, own, p.addr, p.wire)
		default:
			n.sendParcel(own, p)
		}
	}
}

// remind sends observers that speak below an epoch of theirs what we hold of them.
func (n *Node) remind(protocol *memberlist.Memberlist) {
	n.mu.Lock()
	names := n.forgetful
	if len(names) > 0 {
		n.forgetful = make(map[string]bool)
	}
	n.mu.Unlock()
	for name := range names {
		h, ok := n.table.get(name)
		p, known := n.roster.find(name)
		switch {
		case !ok || !known:
		case n.fitsDatagram(&h):
			n.sendDatagram(protocol, &h, p.addr, p.wire)
		default:
			n.sendParcel(&h, p)
		}
	}
}

func (n *Node) fitsDatagram(h *held) bool {
	e := entry{report: h.raw, seal: h.seal}
	return frameHeaderLen+e.size(wireNow) <= n.frameBudget()
}

// sendDatagram sends h once, unconfirmed.
func (n *Node) sendDatagram(protocol *memberlist.Memberlist, h *held, to netip.AddrPort, wire uint8) {
	if frame, ok := h.reportFrame(wire); ok {
		n.sendFrame(protocol, frame, kindReport, to)
	}
}

// reportFrame returns h as its observer sends it to a node of that version.
func (h *held) reportFrame(wire uint8) (frame []byte, ok bool) {
	wire = min(wire, wireNow)
	e, ok := h.entryFor(wire, time.Now())
	if !ok {
		return nil, false
	}
	return appendEntryFrame(make([]byte, 0, frameHeaderLen+e.size(wire)), wire, kindReport, e), true
}

// parcel is a report that is too large for a datagram, on its way to one member.
type parcel struct {
	held *held
	to   peer
}

// sendParcel leaves h to a courier. While the last one for the same member is
// not delivered it is dropped: the next second brings a newer one.
func (n *Node) sendParcel(h *held, to peer) {
	if !to.present {
		return
	}
	if !n.roster.reserve(to.name) {
		n.meters.dropped.WithLabelValues(dropCourier).Inc()
		return
	}
	select {
	case n.parcels <- parcel{held: h, to: to}:
	default:
		n.roster.release(to.name)
		n.meters.dropped.WithLabelValues(dropCourier).Inc()
	}
}

// deliverParcels is one courier: it delivers over TCP, which may take its time.
func (n *Node) deliverParcels(ctx context.Context, protocol *memberlist.Memberlist) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-n.parcels:
			n.deliverParcel(protocol, p)
		}
	}
}

func (n *Node) deliverParcel(protocol *memberlist.Memberlist, p parcel) {
	defer n.roster.release(p.to.name)
	frame, ok := p.held.reportFrame(p.to.wire)
	if !ok {
		return
	}
	to := &memberlist.Node{Name: p.to.name, Addr: net.IP(p.to.addr.Addr().AsSlice()), Port: p.to.addr.Port()}
	if err := protocol.SendReliable(to, frame); err != nil {
		n.meters.dropped.WithLabelValues(dropSend).Inc()
		n.complain("report cannot be sent", err)
		return
	}
	n.meters.messages.WithLabelValues("out", kindReport.String()).Inc()
}
