package bgp

import (
	"net/netip"
	"time"
)

// A Status is what the speaker knows at one moment. It is a copy: the caller's.
type Status struct {
	Child  ChildStatus
	Peers  []PeerStatus  // sorted by Address
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

// PeerStatus is the session with one peer.
type PeerStatus struct {
	Address   netip.Addr
	ASN       uint32
	State     string // established, idle, connect, active, opensent, openconfirm; down while no child runs; quarantined
	Since     time.Time
	LastError string     // why it is not established, if known
	Sent      int        // routes sent on this session (adj-RIB-out); accepted or not is the peer's business
	BFD       *BFDStatus // nil = none

	Hint     string        // what is likely wrong and where to look; empty = nothing to say
	Sent4    int           // of Sent, IPv4
	Received int           // prefixes that it sends
	RouterID netip.Addr    // its own; zero before it said so, as are the rest
	Hold     time.Duration // agreed
	IPv4     bool          // it takes IPv4 prefixes
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
	// Sent: the session is up, takes the family, and the child counts as many
	// routes of the family sent on it as are wanted. Whether the peer accepts
	// it BGP does not tell.
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
	for _, p := range s.peers {
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
	s.addPeers(out.Routes, out.Peers)
	return out
}

// addPeers fills in what each peer hears of each wanted route. The caller holds mu.
func (s *Speaker) addPeers(routes []RouteStatus, peers []PeerStatus) {
	type count struct{ four, six int }
	wanted := make([]count, len(s.peers))
	rows := make(map[netip.Prefix][]RoutePeerStatus, len(s.wanted))
	installed := map[netip.Prefix]bool{}
	for _, r := range routes {
		installed[r.Prefix] = r.Installed
	}
	for _, r := range s.wanted {
		for i, p := range s.peers {
			a, ok := s.config.export(r, p)
			if ok && installed[r.Prefix] && r.Prefix.Addr().Is4() {
				wanted[i].four++
			} else if ok && installed[r.Prefix] {
				wanted[i].six++
			}
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
			p, of, row := &peers[k], wanted[k], &r.Peers[k]
			takes, sent := p.IPv4 && p.Sent4 == of.four, r.Prefix.Addr().Is4()
			if !sent {
				takes = p.IPv6 && p.Sent-p.Sent4 == of.six
			}
			row.Sent = row.Wanted && r.Installed && p.State == "established" && takes
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
	established, installed, sessions, up := 0, 0, 0, 0
	failures := uint64(0)
	for _, p := range r.Peers {
		if p.State == "established" {
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
	s.metrics.installed.Set(float64(installed))
	s.metrics.bfdSessions.Set(float64(sessions))
	s.metrics.bfdUp.Set(float64(up))
	s.mu.Lock()
	defer s.mu.Unlock()
	if failures > s.bfdFailures {
		s.metrics.bfdFailures.Add(float64(failures - s.bfdFailures))
	}
	s.bfdFailures = failures
}
