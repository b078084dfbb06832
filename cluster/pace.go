package cluster

import (
	"log"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// datagramSize is the largest datagram sent. It passes through the tunnels
	// that sites are commonly joined by (1280-byte links less headers).
	datagramSize = 1200
	// userOverhead is memberlist's type byte of a user message.
	userOverhead = 1
	// encryptOverhead is version, nonce and tag of an encrypted datagram.
	encryptOverhead = 29
	// labelOverhead is what comes before the label.
	labelOverhead = 2
)

// pace is how fast things happen. Tests have their own.
type pace struct {
	report   time.Duration   // between two sendings of our report at most; jittered by a tenth
	gap      time.Duration   // least time between sendings of changed reports
	steady   time.Duration   // least mean time between sendings, for few members
	retry    []time.Duration // before the first, second, … attempt to join a node; the last repeats
	pushPull time.Duration
	probe    time.Duration
	rtt      time.Duration // time for an answer before other ways are tried
	stream   time.Duration // for a whole TCP exchange
	leave    time.Duration // for the farewell
	reclaim  time.Duration // before a dead node's name may come from another address
	dead     time.Duration // for which a dead node is told that it is held dead
	discover time.Duration // between two searches for further nodes; jittered by a tenth
	repair   time.Duration // between two looks at who holds other overrides; jittered by a tenth
	tolerate time.Duration // for which a member may hold others before it is sent ours
	resend   time.Duration // least time between two such sendings to one member
}

// defaultPace is for sites on several continents and up to some 200 nodes.
func defaultPace() pace {
	return pace{
		report: time.Second,
		gap:    50 * time.Millisecond,
		steady: 300 * time.Millisecond,
		retry: []time.Duration{
			0, 200 * time.Millisecond, 500 * time.Millisecond, time.Second,
			2 * time.Second, 5 * time.Second, 10 * time.Second,
		},
		pushPull: 15 * time.Second,
		probe:    2 * time.Second,
		rtt:      time.Second,
		stream:   5 * time.Second,
		leave:    600 * time.Millisecond,
		reclaim:  2 * time.Second,
		dead:     time.Minute,
		discover: 12 * time.Second,
		repair:   500 * time.Millisecond,
		tolerate: time.Second,
		resend:   2 * time.Second,
	}
}

// jitter returns d give or take a tenth, so that nodes do not fall into step.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d - d/10 + rand.N(d/5+1)
}

const (
	// paceBurst is how many changed reports go out at once after a calm.
	paceBurst = 4
	// pacePerMember is, for each member, the mean time between two sendings of a
	// report, at least pace.steady and at most pace.report. It is the same whether
	// reports change or not, so that a storm costs what calm does.
	pacePerMember = 11 * time.Millisecond
)

// pacer holds changed reports back in a storm, and never a lone one. The zero
// pacer has no sending left.
type pacer struct {
	left    float64 // sendings
	counted time.Time
	last    time.Time
}

// every returns the mean time between two sendings.
func (pacer) every(p pace, members int) time.Duration {
	return min(max(time.Duration(members)*pacePerMember, p.steady), p.report)
}

// refill counts what time has brought.
func (pc *pacer) refill(p pace, members int, now time.Time) {
	pc.left = min(pc.left+now.Sub(pc.counted).Seconds()/pc.every(p, members).Seconds(), paceBurst)
	pc.counted = now
}

// wait returns how long a changed report is held back from now.
func (pc *pacer) wait(p pace, members int, now time.Time) time.Duration {
	pc.refill(p, members, now)
	wait := p.gap - now.Sub(pc.last)
	if pc.left < 1 {
		wait = max(wait, time.Duration((1-pc.left)*float64(pc.every(p, members))))
	}
	return wait
}

// sent counts a sending. A regular one costs nothing: each sending of a changed
// report puts the next regular one off by as much.
func (pc *pacer) sent(p pace, members int, changed bool, now time.Time) {
	pc.refill(p, members, now)
	pc.last = now
	if changed {
		pc.left = max(pc.left-1, 0)
	}
}

// memberlistConfig returns the settings of the membership protocol. It is used
// to find the other nodes and to reach them; failures of nodes are not read off
// it, so it may be slow to give one up.
func (n *Node) memberlistConfig() *memberlist.Config {
	p := n.pace
	c := memberlist.DefaultLANConfig()
	c.Name = n.opt.Name
	c.Label = n.opt.Label
	c.Transport = n.transport
	c.BindPort = int(n.advertise.Port())
	c.Logger = log.New(n.journal, "", 0)

	c.Keyring = n.keyring
	c.GossipVerifyIncoming = true
	c.GossipVerifyOutgoing = true

	d := delegate{n}
	c.Delegate, c.Events, c.Conflict, c.Alive, c.Ping = d, d, d, d, d

	// A probe waits for the slowest round trip on earth before it asks others.
	c.ProbeInterval = p.probe
	c.ProbeTimeout = p.rtt
	c.AwarenessMaxMultiplier = 4
	c.TCPTimeout = p.stream
	c.PushPullInterval = p.pushPull
	c.GossipInterval = 200 * time.Millisecond
	c.GossipNodes = 4
	c.RetransmitMult = newsRetransmits
	// A node that was cut off is told for a while that it is held dead, so that
	// it can object; later the joiner finds it again.
	c.GossipToTheDeadTime = p.dead
	c.DeadNodeReclaimTime = p.reclaim

	c.UDPBufferSize = datagramSize
	c.HandoffQueueDepth = maxInboxFrames
	// Messages have one size whatever they say; and nothing is to be unpacked.
	c.EnableCompression = false
	return c
}

// frameBudget is the largest frame that goes into one datagram.
func (n *Node) frameBudget() int {
	budget := datagramSize - userOverhead
	if n.opt.Label != "" {
		budget -= labelOverhead + len(n.opt.Label)
	}
	if len(n.opt.Keys) > 0 {
		budget -= encryptOverhead
	}
	return budget
}
