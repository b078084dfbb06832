package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// How long a peer is left out after its message ended the child.
const (
	quarantineFirst = time.Minute // then four times as long each time
	quarantineMost  = time.Hour
	quarantineClean = 2 * time.Hour // without a crash by it: forgiven
	maxQuarantined  = 1024
)

// A quarantine is a peer that ended the child. It is left out for a while, so that the others keep their sessions.
type quarantine struct {
	crashes int
	last    time.Time // of them
	until   time.Time
	reason  string
}

// blame puts a peer away and reports whether it is one of ours. The caller holds mu.
func (s *Speaker) blame(culprit netip.Addr, reason string, now time.Time) bool {
	if !culprit.IsValid() {
		return false
	}
	if _, known := s.quarantined[culprit]; !known {
		s.makeRoom(now)
	}
	q := s.quarantined[culprit]
	if now.Sub(q.last) > quarantineClean {
		q = quarantine{}
	}
	pause := min(quarantineFirst<<min(2*q.crashes, 12), quarantineMost)
	q.crashes++
	q.last, q.until, q.reason = now, now.Add(pause), reason
	s.quarantined[culprit] = q
	return true
}

// makeRoom forgets who is forgiven, and, if all places are taken, whose quarantine ends first: the newest culprit is the one
// that is there. The caller holds mu.
func (s *Speaker) makeRoom(now time.Time) {
	var first netip.Addr
	for a, q := range s.quarantined {
		if now.Sub(q.last) > quarantineClean {
			delete(s.quarantined, a)
		} else if !first.IsValid() || q.until.Before(s.quarantined[first].until) {
			first = a
		}
	}
	if len(s.quarantined) >= maxQuarantined {
		delete(s.quarantined, first)
	}
}

// admitted are the peers that are not in quarantine. The caller holds mu.
func (s *Speaker) admitted(now time.Time) []Peer {
	var out []Peer
	for _, p := range s.peers {
		if p.From.IsValid() {
			p.Barred = s.barred(p.From, now)
		}
		if !s.quarantined[p.Address].until.After(now) {
			out = append(out, p)
		}
	}
	return out
}

// barred are the routers of a prefix that are in quarantine. The caller holds mu.
func (s *Speaker) barred(in netip.Prefix, now time.Time) (out []netip.Addr) {
	for a, q := range s.quarantined {
		if in.Contains(a) && q.until.After(now) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// forgive lets the peers that an operator changed in again. The caller holds mu.
func (s *Speaker) forgive(old, peers []Peer) {
	before := map[netip.Prefix]Peer{}
	for _, p := range old {
		before[p.key()] = p
	}
	for _, p := range peers {
		if was, ok := before[p.key()]; ok && was.equal(p) {
			continue
		}
		for a := range s.quarantined {
			if p.key().Contains(a) {
				delete(s.quarantined, a)
			}
		}
	}
}

// text is what an operator should know.
func (q quarantine) text() string {
	times := "once"
	if q.crashes > 1 {
		times = fmt.Sprintf("%d times", q.crashes)
	}
	return fmt.Sprintf("what it sent ended the BGP process %s, the last time at %s (%s): left out until %s, or until its configuration changes",
		times, q.last.Format(time.TimeOnly), q.reason, q.until.Format(time.TimeOnly))
}
