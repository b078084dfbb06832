package cluster

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// newsRetransmits scales how often a changed report is passed on by each
	// node: this many times the decimal logarithm of the number of nodes.
	newsRetransmits = 4
	// newsMargin is what memberlist adds to a frame that shares its datagram.
	newsMargin = 8
	// maxCouriers is how many reports that are too large for a datagram are being
	// delivered over TCP at a time.
	maxCouriers = 4
)

// send sends our report to everybody every second, at once when it says
// something else, and to newcomers when they come.
func (n *Node) send(ctx context.Context, protocol *memberlist.Memberlist) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-n.stir:
			if !n.hurries() {
				n.greetNewcomers(protocol)
				continue
			}
			// A storm of changes is sent as one.
			if wait := n.pace.gap - time.Since(last); wait > 0 {
				timer.Reset(wait)
				continue
			}
		}
		n.spread(protocol)
		last = time.Now()
		timer.Reset(jitter(n.pace.report))
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
		for addr := range n.targets() {
			n.sendDatagram(protocol, own, addr)
		}
	} else {
		for _, p := range n.roster.all() {
			n.sendParcel(own, p)
		}
	}
	if urgent {
		n.spreadNews(n.opt.Name, own.raw, own.born)
	}
}

// targets returns where our report goes.
func (n *Node) targets() map[netip.AddrPort]bool {
	targets := n.roster.presentAddrs()
	for _, s := range n.otherSeeds() {
		targets[s] = true
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
			n.sendDatagram(protocol, own, p.addr)
		default:
			n.sendParcel(own, p)
		}
	}
}

func (n *Node) fitsDatagram(h *held) bool {
	return frameHeaderLen+entryHeaderLen+len(h.raw) <= n.frameBudget()
}

// sendDatagram sends h once, unconfirmed.
func (n *Node) sendDatagram(protocol *memberlist.Memberlist, h *held, to netip.AddrPort) {
	frame := appendEntryFrame(nil, kindReport, h.ageAt(time.Now()), h.raw)
	if err := protocol.SendToAddress(memberlist.Address{Addr: to.String()}, frame); err != nil {
		n.meters.dropped.WithLabelValues(dropSend).Inc()
		n.complain("report cannot be sent", err)
		return
	}
	n.meters.messages.WithLabelValues("out", kindReport.String()).Inc()
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
	frame := appendEntryFrame(nil, kindReport, p.held.ageAt(time.Now()), p.held.raw)
	to := &memberlist.Node{Name: p.to.name, Addr: net.IP(p.to.addr.Addr().AsSlice()), Port: p.to.addr.Port()}
	if err := protocol.SendReliable(to, frame); err != nil {
		n.meters.dropped.WithLabelValues(dropSend).Inc()
		n.complain("report cannot be sent", err)
		return
	}
	n.meters.messages.WithLabelValues("out", kindReport.String()).Inc()
}

// spreadNews has a report passed on by gossip, in place of an older one of the
// same observer. One that is too large goes its other ways only; memberlist
// would keep it for ever.
func (n *Node) spreadNews(observer string, raw []byte, born time.Time) {
	if frameHeaderLen+entryHeaderLen+len(raw) > n.frameBudget()-newsMargin {
		return
	}
	n.news.QueueBroadcast(&news{
		observer: observer,
		frame:    appendEntryFrame(nil, kindNews, 0, raw),
		born:     born,
	})
}

// news is a report being passed on by gossip.
type news struct {
	// Immutable.
	observer string
	frame    []byte
	born     time.Time
}

var _ memberlist.NamedBroadcast = (*news)(nil)

// Name implements memberlist.NamedBroadcast.
func (b *news) Name() string { return b.observer }

// Invalidates implements memberlist.Broadcast.
func (b *news) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(*news)
	return ok && o.observer == b.observer
}

// Message implements memberlist.Broadcast: the report as old as it is now.
func (b *news) Message() []byte { return withAge(b.frame, time.Since(b.born)) }

// Finished implements memberlist.Broadcast.
func (b *news) Finished() {}

// tableFrame returns every report held, our own first, the oldest left out if
// they are too many.
func (n *Node) tableFrame(now time.Time) []byte {
	n.mu.Lock()
	own := n.own
	n.mu.Unlock()
	var entries []entry
	size := 0
	if own != nil {
		entries = append(entries, entry{age: own.ageAt(now), report: own.raw})
		size += len(own.raw)
	}
	for _, h := range n.table.all(now) {
		entries = append(entries, entry{age: h.ageAt(now), report: h.raw})
		size += len(h.raw)
	}
	size += frameHeaderLen + tableCountLen + len(entries)*(tableSizeLen+entryHeaderLen)
	frame, left := appendTableFrame(make([]byte, 0, min(size, maxTableBytes)), entries, maxTableBytes)
	if left > 0 {
		n.meters.dropped.WithLabelValues(dropTruncated).Add(float64(left))
	}
	n.meters.messages.WithLabelValues("out", kindTable.String()).Inc()
	return frame
}
