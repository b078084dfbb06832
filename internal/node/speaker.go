package node

import (
	"net/netip"

	"github.com/pharos-lb/pharos/bgp"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/steer"
)

// speakerConfig returns what this node's BGP speaker runs with; ok is false
// when the site has no peers.
func (s *Setup) speakerConfig() (cfg bgp.Config, peers []bgp.Peer, ok bool) {
	b := s.Config.BGP
	for _, p := range b.Peers {
		if p.Site != s.Self.Site.Name {
			continue
		}
		peers = append(peers, bgp.Peer{
			Address: p.Address, From: p.From, Most: p.MaxPeers, ASN: p.ASN, Port: p.Port, Password: p.Password.Reveal(),
			Hold: p.Hold, Multihop: p.Multihop, TTLSecurity: p.TTLSecurity, Passive: p.Passive,
			MaxPrefixes: p.MaxPrefixes, Look: p.Look, BFD: bgp.BFD(p.BFD), Attributes: attributes(p.Attributes),
		})
	}
	if b.ASN == 0 || len(peers) == 0 {
		return bgp.Config{}, nil, false
	}
	port := -1
	if b.Listen {
		port = int(b.Port)
	}
	var watch []netip.Prefix
	for _, p := range b.Prefixes {
		watch = append(watch, p.Prefix)
	}
	return bgp.Config{
		Socket: b.Socket, Watch: watch,
		ASN: b.ASN, RouterID: RouterID(s.Self.Node), LocalAddress: s.Self.Node.Address, SecondAddress: s.Self.Node.Second,
		ListenPort: port, Lease: b.Lease, Restart: b.Restart,
		Depreference: bgp.Depreference{
			Prepend: b.Depreference.Prepend, MED: b.Depreference.MED, LocalPref: b.Depreference.LocalPref,
		},
	}, peers, true
}

// desiredRoutes is what the newest plan announces from here.
func (n *Node) desiredRoutes() []bgp.Route {
	plan := n.board.Load()
	if plan == nil {
		return nil
	}
	var out []bgp.Route
	for _, r := range plan.Routes {
		if r.Announce {
			out = append(out, speakerRoute(&plan.Topology.Config.BGP, r))
		}
	}
	return out
}

// speakerRoute is a route of the plan with what the configuration has it say.
func speakerRoute(b *config.BGP, r steer.Route) bgp.Route {
	out := bgp.Route{Prefix: r.Prefix, Standing: standingOf(r.Level), LocalOnly: r.LocalOnly}
	for i := range b.Prefixes {
		p := &b.Prefixes[i]
		if p.Prefix != r.Prefix {
			continue
		}
		out.Attributes = attributes(p.Attributes)
		for _, to := range p.To {
			out.To = append(out.To, bgp.Override{
				Peers: to.Peers, Deny: to.Deny, NextHop: to.NextHop, Attributes: attributes(to.Attributes),
			})
		}
	}
	return out
}

// standingOf is a level of the plan in the words of the speaker.
func standingOf(l steer.Level) bgp.Standing {
	switch l {
	case steer.LevelPreferred:
		return bgp.Preferred
	case steer.LevelStandby:
		return bgp.Standby
	default: // what is about to go, and what cannot serve
		return bgp.Leaving
	}
}

func attributes(a config.Attributes) bgp.Attributes {
	out := bgp.Attributes{MED: a.MED, LocalPref: a.LocalPref, Prepend: a.Prepend, Extended: a.Extended}
	for _, c := range a.Communities {
		out.Communities = append(out.Communities, uint32(c.High)<<16|uint32(c.Low))
	}
	for _, c := range a.Large {
		out.Large = append(out.Large, bgp.LargeCommunity(c))
	}
	return out
}

// RouterID is the node's IPv4 address, or for an IPv6-only node four bytes
// derived from its address (RFC 6286 asks only that it be unique and not zero).
func RouterID(n config.Node) netip.Addr {
	if n.Address.Is4() {
		return n.Address
	}
	a := n.Address.As16()
	var id [4]byte
	for i, b := range a {
		id[i%4] = id[i%4]*31 + b
	}
	id[0] |= 1
	return netip.AddrFrom4(id)
}

func bfdStatus(b *bgp.BFDStatus) *admin.BFDStatus {
	if b == nil {
		return nil
	}
	return &admin.BFDStatus{
		State: b.State, PeerState: b.PeerState, Since: b.Since, DetectionMS: b.Detection.Milliseconds(),
		TransmitMS: b.Transmit.Milliseconds(), Failures: b.Failures, LastError: b.LastError,
	}
}
