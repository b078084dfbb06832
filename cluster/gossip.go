package cluster

import (
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// newsRetransmits scales how often a changed report is passed on by each
	// node: this many times the decimal logarithm of the number of nodes.
	newsRetransmits = 4
	// leastNodes is what that number is taken for at least: in a small fleet few
	// pass a thing on, so each has to do it more often for nobody to be missed
	// when links are cut.
	leastNodes = 100
	// newsMargin is what memberlist adds to a frame that shares its datagram.
	newsMargin = 8
	// newsRate and newsBurst bound the reports passed on, in bytes a second and in
	// bytes: so much that a few changes reach everybody around broken links. A small
	// fleet, in which little else is sent, may spend up to fastNewsRate; each node of
	// it leaves newsRatePerNode less. All of it is always spent: what changes leave is
	// filled with reports that are held, one observer after the other, so that a storm
	// costs what calm does. Overrides have no such bound, but are few.
	newsRate        = 1 << 10
	fastNewsRate    = 16 << 10
	newsRatePerNode = 160
	newsBurst       = 12 << 10
)

// grapevine is what is to be passed on by gossip.
type grapevine struct {
	reports, orders *memberlist.TransmitLimitedQueue // lock themselves

	nodes func() int

	mu      sync.Mutex // guards the rest
	left    float64    // bytes of reports that may be passed on
	counted time.Time
	filled  string // the observer whose report was the last to fill room
}

func newGrapevine(nodes func() int, now time.Time) *grapevine {
	queue := func() *memberlist.TransmitLimitedQueue {
		return &memberlist.TransmitLimitedQueue{
			RetransmitMult: newsRetransmits, NumNodes: func() int { return max(nodes(), leastNodes) },
		}
	}
	return &grapevine{reports: queue(), orders: queue(), nodes: nodes, left: newsBurst, counted: now}
}

// rate returns how many bytes of changed reports may be passed on a second.
func (g *grapevine) rate() float64 {
	return float64(max(newsRate, fastNewsRate-newsRatePerNode*g.nodes()))
}

// queued returns how much waits to be passed on.
func (g *grapevine) queued() int { return g.reports.NumQueued() + g.orders.NumQueued() }

// forget drops all that waits.
func (g *grapevine) forget() {
	g.reports.Reset()
	g.orders.Reset()
}

// take returns what goes into the next datagram: orders, changed reports, and in the
// room that these leave what fill returns of the observer after the one it is given;
// false when that is too large or there is nobody.
func (g *grapevine) take(overhead, limit int, now time.Time, fill func(after string, room int) (observer string, frame []byte, ok bool)) (orders, reports, filler [][]byte) {
	orders = g.orders.GetBroadcasts(overhead, limit)
	for _, b := range orders {
		limit -= overhead + len(b)
	}
	rate := g.rate()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = min(g.left+rate*now.Sub(g.counted).Seconds(), newsBurst)
	g.counted = now
	room := min(limit, int(g.left))
	if room > overhead {
		reports = g.reports.GetBroadcasts(overhead, room)
	}
	for _, b := range reports {
		room -= overhead + len(b)
		g.left -= float64(overhead + len(b))
	}
	for first := ""; room > overhead; {
		observer, frame, ok := fill(g.filled, room-overhead)
		if !ok || observer == first {
			break
		}
		if first == "" {
			first = observer
		}
		g.filled = observer
		filler = append(filler, frame)
		room -= overhead + len(frame)
		g.left -= float64(overhead + len(frame))
	}
	return orders, reports, filler
}

// gossip returns the frames that go into the next gossip datagram.
func (n *Node) gossip(overhead, limit int, now time.Time) [][]byte {
	wire := n.roster.lowestWire()
	n.mu.Lock()
	own := n.own
	n.mu.Unlock()
	orders, reports, filler := n.news.take(overhead, limit, now, func(after string, room int) (string, []byte, bool) {
		return n.table.fill(own, after, wire, room, now)
	})
	n.meters.messages.WithLabelValues("out", kindOverrides.String()).Add(float64(len(orders)))
	n.meters.messages.WithLabelValues("out", kindNews.String()).Add(float64(len(reports)))
	n.meters.messages.WithLabelValues("out", kindReport.String()).Add(float64(len(filler)))
	return append(append(orders, reports...), filler...)
}

// spreadNews has a report passed on, in place of an older one of the same
// observer, in the version that every member present reads. One that is too
// large goes its other ways only; memberlist would keep it for ever.
func (n *Node) spreadNews(h held) {
	wire := n.roster.lowestWire()
	e, ok := h.entryFor(wire, h.born)
	if !ok || frameHeaderLen+e.size(wire) > n.frameBudget()-newsMargin {
		return
	}
	n.news.reports.QueueBroadcast(&news{
		name:  h.report.Observer,
		frame: appendEntryFrame(nil, wire, kindNews, e),
		born:  h.born,
	})
}

// spreadOrder has an override register passed on, in place of an older one of
// the same scope. No node of the first wire version may get to see it.
func (n *Node) spreadOrder(r register) {
	frame := appendOverridesFrame(nil, []record{r.record})
	if len(frame) > n.frameBudget()-newsMargin || n.roster.lowestWire() < wireNow {
		return
	}
	n.news.orders.QueueBroadcast(&news{name: r.override.Scope.String(), frame: frame})
}

// news is a frame being passed on by gossip.
type news struct {
	// Immutable.
	name  string
	frame []byte
	born  time.Time // of a report; zero for what has no age
}

var _ memberlist.NamedBroadcast = (*news)(nil)

// Name implements memberlist.NamedBroadcast.
func (b *news) Name() string { return b.name }

// Invalidates implements memberlist.Broadcast.
func (b *news) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(*news)
	return ok && o.name == b.name
}

// Message implements memberlist.Broadcast: a report as old as it is now.
func (b *news) Message() []byte {
	if b.born.IsZero() {
		return b.frame
	}
	return withAge(b.frame, time.Since(b.born))
}

// Finished implements memberlist.Broadcast.
func (b *news) Finished() {}
