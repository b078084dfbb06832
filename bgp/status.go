package bgp

import (
	"net/netip"
	"slices"
	"time"
)

// A Status is what the speaker knows at one moment. It is a copy: the caller's.
type Status struct {
	Child  ChildStatus
	Peers  []PeerStatus  // sorted by Address, then those of Ranges, sorted by Address
	Ranges []RangeStatus // peers that stand for many
	Routes []RouteStatus // desired, installed or refused; sorted by Prefix

	// Seen is what peers with Look send of Config.Watch.
	Seen []Sighting
	// Strangers are the last addresses, at most 16, that connected without
	// being a peer, the newest last.
	Strangers []netip.Addr
}

// maxSightings bounds Status.Seen.
const maxSightings = 10_000

// A Sighting is one prefix that a peer sends.
type Sighting struct {
	Prefix  netip.Prefix
	Peer    netip.Addr
	NextHop netip.Addr
	ASPath  []uint32
}

// ChildStatus is the state of the child process.
type ChildStatus struct {
	PID       int    // 0 = none runs
	State     string // stopped, starting, running, lapsed (withdrew because its lease was not renewed), backoff
	Since     time.Time
	Restarts  int    // times it died or had to be killed
	LastError string // of its last death; empty = none
}

// RangeStatus is one Peer with From.
type RangeStatus struct {
	From     netip.Prefix
	ASN      uint32
	Most     int
	Sessions int    // established
	Full     bool   // no further router is let in
	Error    string // why nobody can connect; empty = they can
}

// PeerStatus is the session with one peer.
type PeerStatus struct {
	Address   netip.Addr
	From      netip.Prefix // the Peer.From that it connected from; zero = it is a peer itself
	ASN       uint32
	State     string // established, idle, connect, active, opensent, openconfirm; down while no child runs; quarantined
	Since     time.Time
	LastError string     // why it is not established, if known
	Sent      int        // routes sent on this session (adj-RIB-out); accepted or not is the peer's business
	BFD       *BFDStatus // nil = none

	Hint     string         // what is likely wrong and where to look; empty = nothing to say
	Sent4    int            // of Sent, IPv4
	Unsent   []netip.Prefix // installed routes that it should hear, of a family that it takes, and is not sent; at most 1000
	Received int            // prefixes that it sends
	RouterID netip.Addr     // its own; zero before it said so, as are the rest
	Hold     time.Duration  // agreed
	IPv4     bool           // it takes IPv4 prefixes
	IPv6     bool
	Refresh  bool // it can ask for all routes again (RFC 2918)
}

// RouteStatus is one route.
type RouteStatus struct {
	Prefix    netip.Prefix
	Installed bool   // in the child's table
	Error     string // why not; empty = none
	Peers     []RoutePeerStatus
}

// RoutePeerStatus is one route at one peer.
type RoutePeerStatus struct {
	Address netip.Addr
	Wanted  bool // false: the configuration denies it
	// Sent: the session is up, takes the family, and carries the route (it is in
	// the Adj-RIB-Out). Whether the peer accepts it BGP does not tell.
	Sent bool
	// What it says there.
	NextHop     netip.Addr
	MED         uint32
	LocalPref   uint32
	Prepend     int
	Communities []uint32
	Large       []LargeCommunity
	Extended    []string
}

// States of the child.
const (
	childStopped  = "stopped"
	childStarting = "starting"
	childRunning  = "running"
	childLapsed   = "lapsed"
	childBackoff  = "backoff"
)

// Status returns a copy of what is known now.
func (s *Speaker) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Status{Child: s.child}
	byPeer := map[netip.Addr]PeerStatus{}
	byRoute := map[netip.Prefix]RouteStatus{}
	if s.reported != nil {
		out.Seen, out.Strangers = s.reported.Seen, s.reported.Strangers
		for _, p := range s.reported.Peers {
			byPeer[p.Address] = p
		}
		for _, r := range s.reported.Routes {
			byRoute[r.Prefix] = r
		}
	}
	who := make([]Peer, 0, len(s.peers)) // as out.Peers
	for _, p := range s.peers {
		if p.From.IsValid() {
			continue
		}
		who = append(who, p)
		got, ok := byPeer[p.Address]
		if !ok {
			got = PeerStatus{Address: p.Address, State: "down", Since: s.child.Since}
		}
		got.ASN = p.ASN
		if q := s.quarantined[p.Address]; q.until.After(time.Now()) {
			got.State, got.Since, got.LastError = "quarantined", q.last, q.text()
		}
		got.Hint = hint(s.config, p, got, s.md5)
		out.Peers = append(out.Peers, got)
	}
	who = s.addGuests(&out, who)
	for _, r := range s.wanted {
		got, ok := byRoute[r.Prefix]
		if !ok {
			got = RouteStatus{Prefix: r.Prefix}
		}
		delete(byRoute, r.Prefix)
		out.Routes = append(out.Routes, got)
	}
	for _, r := range byRoute {
		out.Routes = append(out.Routes, r)
	}
	out.Routes = append(out.Routes, s.refused...)
	sortRoutes(out.Routes)
	s.addPeers(out.Routes, out.Peers, who)
	return out
}

// addGuests adds the peers that stand for many and the routers that came. It returns who, which are the peers of out.Peers,
// with those. The caller holds mu.
func (s *Speaker) addGuests(out *Status, who []Peer) []Peer {
	type guest struct {
		Peer
		status PeerStatus
	}
	var guests []guest
	now := time.Now()
	for _, p := range s.peers {
		if !p.From.IsValid() {
			continue
		}
		r := RangeStatus{From: p.From, ASN: p.ASN, Most: p.Most, Error: "no BGP process runs"}
		if s.reported != nil {
			for _, got := range s.reported.Ranges {
				if got.From == p.From {
					r = got
				}
			}
			for _, got := range s.reported.Peers {
				if got.From == p.From && !s.quarantined[got.Address].until.After(now) {
					p.Address = got.Address
					got.Hint = hint(s.config, p, got, s.md5)
					guests = append(guests, guest{p, got})
				}
			}
		}
		for _, a := range s.barred(p.From, now) {
			q := s.quarantined[a]
			p.Address = a
			guests = append(guests, guest{p, PeerStatus{
				Address: a, From: p.From, ASN: p.ASN, State: "quarantined", Since: q.last, LastError: q.text(),
			}})
		}
		out.Ranges = append(out.Ranges, r)
	}
	slices.SortFunc(guests, func(a, b guest) int { return a.Address.Compare(b.Address) })
	for _, g := range guests {
		out.Peers, who = append(out.Peers, g.status), append(who, g.Peer)
	}
	return who
}

// addPeers fills in what each peer, who are those of peers, hears of each wanted route. The caller holds mu.
func (s *Speaker) addPeers(routes []RouteStatus, peers []PeerStatus, who []Peer) {
	rows := make(map[netip.Prefix][]RoutePeerStatus, len(s.wanted))
	for _, r := range s.wanted {
		for _, p := range who {
			a, ok := s.config.export(r, p)
			rows[r.Prefix] = append(rows[r.Prefix], RoutePeerStatus{
				Address: p.Address, Wanted: ok, NextHop: a.NextHop, MED: a.MED, LocalPref: a.LocalPref, Prepend: a.Prepend,
				Communities: a.Communities, Large: a.Large, Extended: a.Extended,
			})
		}
	}
	for i := range routes {
		r := &routes[i]
		r.Peers = rows[r.Prefix]
		for k := range r.Peers {
			p, row := &peers[k], &r.Peers[k]
			takes := p.IPv4
			if r.Prefix.Addr().Is6() {
				takes = p.IPv6
			}
			row.Sent = row.Wanted && r.Installed && p.State == "established" && takes && !slices.Contains(p.Unsent, r.Prefix)
		}
	}
}

// Watch receives (capacity 1) after Status may have changed. One reader.
func (s *Speaker) Watch() <-chan struct{} { return s.changed }

func (s *Speaker) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// count brings the gauges up to date.
func (s *Speaker) count(r report) {
	established, guests, installed, sessions, up := 0, 0, 0, 0, 0
	failures := uint64(0)
	for _, p := range r.Peers {
		switch {
		case p.State == "established" && p.From.IsValid():
			guests++
		case p.State == "established":
			established++
		}
		if p.BFD != nil {
			sessions++
			failures += p.BFD.Failures
			if p.BFD.State == "up" {
				up++
			}
		}
	}
	for _, r := range r.Routes {
		if r.Installed {
			installed++
		}
	}
	s.metrics.established.Set(float64(established))
	s.metrics.guests.Set(float64(guests))
	s.metrics.installed.Set(float64(installed))
	s.metrics.bfdSessions.Set(float64(sessions))
	s.metrics.bfdUp.Set(float64(up))
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Refused > s.strange {
		s.metrics.strangers.Add(float64(r.Refused - s.strange))
	}
	s.strange = r.Refused
	if failures > s.bfdFailures {
		s.metrics.bfdFailures.Add(float64(failures - s.bfdFailures))
	}
	s.bfdFailures = failures
}
