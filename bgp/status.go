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
}

// RouteStatus is one route.
type RouteStatus struct {
	Prefix    netip.Prefix
	Installed bool   // in the child's table, so sent to every established peer
	Error     string // why not; empty = none
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
	return out
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
