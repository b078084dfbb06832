package cluster

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// State is how a member is seen from here. It is for display: nothing may be
// concluded from a member's absence.
type State uint8

// The states of a member.
const (
	// StateAlive: present, and its report is fresh.
	StateAlive State = iota + 1
	// StateSuspect: present as far as the membership protocol has noticed, but no
	// fresh report of it is held.
	StateSuspect
	// StateLeft: it said that it was leaving.
	StateLeft
	// StateDead: the membership protocol has given it up.
	StateDead
	// StateHearsay: not a member, but others passed its report on.
	StateHearsay
)

// String returns "alive", "suspect", "left", "dead" or "hearsay".
func (s State) String() string {
	switch s {
	case StateAlive:
		return "alive"
	case StateSuspect:
		return "suspect"
	case StateLeft:
		return "left"
	case StateDead:
		return "dead"
	case StateHearsay:
		return "hearsay"
	default:
		return "none"
	}
}

// Member is one node of the cluster as seen from here.
type Member struct {
	Name string
	// Address is where it listens for gossip; invalid for hearsay.
	Address netip.AddrPort
	// Meta is what it says of itself.
	Meta
	State State
	// Self marks this node.
	Self bool
	// Since is when it was first seen in its presence or absence.
	Since time.Time
	// Keys are the fingerprints of the gossip keys that it says it holds, as
	// Node.KeyFingerprints gives them, the one it sends with first; empty if it
	// tells none.
	Keys []string
	// Wire is the newest wire version it understands: 1 if it tells none, 0 for
	// hearsay.
	Wire uint8
	// RTT is the last round trip to it; zero if none was measured.
	RTT time.Duration
	// Reported says that a report of it is held; the fields below describe it.
	Reported   bool
	Age        time.Duration
	Epoch, Seq uint64
	Flags      health.Flags
	// Overrides is the digest of the overrides it holds durably, and Signed says
	// that its report is signed with the key that its name has here.
	Overrides uint64
	Signed    bool
	// ReportedConfig is the configuration hash in the report, which is newer than
	// the one in Meta.
	ReportedConfig uint64
}

// Status is the state of this node's part in the cluster.
type Status struct {
	// Present is how many other nodes the membership protocol holds present.
	Present int
	// Synced says that Synced is closed.
	Synced bool
	// LastExchange is when the last table was received by push/pull; zero for never.
	LastExchange time.Time
	// NameConflict describes another node that uses this node's name, seen within
	// the last minute; empty if none.
	NameConflict string
}

// Members returns this node, every member present or lately gone, and every
// observer whose report was passed on, sorted by name. Safe for concurrent use.
func (n *Node) Members() []Member {
	now := time.Now()
	byName := map[string]*Member{n.opt.Name: n.self(now)}
	for _, p := range n.roster.all() {
		m := &Member{
			Name: p.name, Address: p.addr, Meta: p.Meta, Since: p.since, RTT: p.rtt, State: StateDead,
			Wire: p.wire, Keys: spellFingerprints([]byte(p.keys)),
		}
		if p.present {
			m.State = StateSuspect
		}
		byName[p.name] = m
	}
	for _, h := range n.table.all(now) {
		m := byName[h.report.Observer]
		if m == nil {
			m = &Member{Name: h.report.Observer, State: StateHearsay}
			byName[m.Name] = m
		}
		m.describe(h, now)
	}
	members := make([]Member, 0, len(byName))
	for _, m := range byName {
		members = append(members, *m)
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return members
}

// describe adds what h, m's newest report, says.
func (m *Member) describe(h held, now time.Time) {
	m.Reported, m.Age = true, h.ageAt(now)
	m.Epoch, m.Seq, m.Flags = h.report.Epoch, h.report.Seq, h.report.Flags
	m.ReportedConfig = h.report.Config
	m.Overrides, m.Signed = h.report.Overrides, h.signed
	leaving := m.Flags&health.FlagLeaving != 0
	switch {
	case m.Self:
	case leaving && m.State != StateHearsay:
		m.State = StateLeft
	case m.State == StateSuspect && m.Age <= health.FreshFor:
		m.State = StateAlive
	}
}

// self describes this node.
func (n *Node) self(now time.Time) *Member {
	n.mu.Lock()
	meta, own := n.meta, n.own
	n.mu.Unlock()
	m := &Member{
		Name: n.opt.Name, Address: n.advertise, Meta: meta,
		State: StateAlive, Self: true, Since: n.born, Wire: wireNow, Keys: n.KeyFingerprints(),
	}
	if own != nil {
		m.describe(*own, now)
	}
	return m
}

// Status returns the state of this node's part in the cluster. Safe for concurrent use.
func (n *Node) Status() Status {
	present, _ := n.roster.count()
	n.mu.Lock()
	defer n.mu.Unlock()
	s := Status{Present: present, LastExchange: n.lastExchange}
	if time.Since(n.rivalSeen) < rivalMemory {
		s.NameConflict = n.rival
	}
	select {
	case <-n.synced:
		s.Synced = true
	default:
	}
	return s
}
