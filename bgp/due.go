package bgp

import (
	"net/netip"

	"github.com/pharos-lb/pharos/bgp/internal/engine"
)

// maxUnsent bounds PeerStatus.Unsent.
const maxUnsent = 1000

// dues are the installed routes that each peer should be sent.
type dues struct {
	paths  []engine.Path
	counts map[netip.Prefix]familyCount // by the peers' keys
}

// A familyCount counts routes.
type familyCount struct{ four, six int }

func newDues(desired []engine.Path, status []RouteStatus) dues {
	installed := make(map[netip.Prefix]bool, len(status))
	for _, r := range status {
		installed[r.Prefix] = r.Installed
	}
	d := dues{counts: map[netip.Prefix]familyCount{}}
	for _, p := range desired {
		if !installed[p.Prefix] {
			continue
		}
		d.paths = append(d.paths, p)
		for _, x := range p.Exports {
			for _, n := range x.Neighbors {
				c := d.counts[n]
				if p.Prefix.Addr().Is4() {
					c.four++
				} else {
					c.six++
				}
				d.counts[n] = c
			}
		}
	}
	return d
}

// A sender knows what it sends.
type sender interface {
	SentTo(neighbor netip.Addr) (map[netip.Prefix]bool, error)
}

// unsent returns what a neighbor should hear and is not sent, of the families that it takes. What it is sent is listed only
// when the counts disagree, since GoBGP judges every route anew for that.
func (d dues) unsent(e sender, s engine.Session) (out []netip.Prefix) {
	if s.State != "established" {
		return nil
	}
	key := netip.PrefixFrom(s.Address, s.Address.BitLen())
	if s.From.IsValid() {
		key = s.From
	}
	c := d.counts[key]
	if (!s.IPv4 || c.four == s.Sent4) && (!s.IPv6 || c.six == s.Sent-s.Sent4) {
		return nil
	}
	sent, err := e.SentTo(s.Address)
	if err != nil {
		sent = nil // its session ended a moment ago
	}
	for _, p := range d.paths {
		takes := s.IPv4
		if p.Prefix.Addr().Is6() {
			takes = s.IPv6
		}
		if takes && !sent[p.Prefix] && p.Reaches(key) && len(out) < maxUnsent {
			out = append(out, p.Prefix)
		}
	}
	return out
}
