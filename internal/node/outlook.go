package node

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/bgp"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/config"
)

// What other nodes' routers send of a prefix is the only proof that a router took it: BGP itself does not say. So nodes
// with peers to look at (`look: true`) tell the others, when asked, what those send.

const (
	// lookEvery is how often the others are asked.
	lookEvery = 10 * time.Second
	// settleTime is how long a session or a route has to stand before its absence elsewhere means something: the
	// routers between need theirs.
	settleTime = 30 * time.Second
	// outlookLasts is how long an answer counts.
	outlookLasts = 3 * lookEvery
	// maxOutlook bounds the sightings of one answer.
	maxOutlook = 300
)

// An outlook is what one node sees of the fleet's prefixes.
type outlook struct {
	// Announces are the prefixes that it announces itself: its routers then prefer its own and cannot tell.
	Announces []netip.Prefix `json:"announces"`
	// Looks are the families of sessions that have been up for long enough to tell, with peers to look at.
	IPv4 bool       `json:"ipv4,omitempty"`
	IPv6 bool       `json:"ipv6,omitempty"`
	Seen []sighting `json:"seen"`
}

type sighting struct {
	Prefix  netip.Prefix `json:"prefix"`
	Peer    netip.Addr   `json:"peer"`
	NextHop netip.Addr   `json:"next_hop"`
	ASPath  []uint32     `json:"as_path"`
}

// outlooks are the newest answers of all nodes, by name.
type outlooks struct {
	heard map[string]outlook
	at    time.Time
}

// outlook is this node's own.
func (n *Node) outlook() outlook {
	n.mu.Lock()
	speaker := n.speaker
	n.mu.Unlock()
	if speaker == nil {
		return outlook{}
	}
	return outlookOf(speaker.Status(), &n.setup.Load().Config.BGP, n.setup.Load().Self.Site.Name, time.Now())
}

func outlookOf(st bgp.Status, b *config.BGP, site string, now time.Time) outlook {
	out := outlook{}
	for _, r := range st.Routes {
		if r.Installed {
			out.Announces = append(out.Announces, r.Prefix)
		}
	}
	for _, p := range st.Peers {
		looks := slices.ContainsFunc(b.Peers, func(c config.Peer) bool { return c.Site == site && c.Address == p.Address && c.Look })
		if looks && p.State == "established" && now.Sub(p.Since) >= settleTime {
			out.IPv4, out.IPv6 = out.IPv4 || p.IPv4, out.IPv6 || p.IPv6
		}
	}
	for _, s := range st.Seen {
		if len(out.Seen) < maxOutlook {
			out.Seen = append(out.Seen, sighting{s.Prefix, s.Peer, s.NextHop, s.ASPath})
		}
	}
	return out
}

// encodeOutlook leaves sightings out until the rest fits into an answer.
func encodeOutlook(o outlook) []byte {
	for {
		raw, err := json.Marshal(o)
		if err != nil {
			return nil
		}
		if len(raw) <= maxEvidence {
			return raw
		}
		o.Seen, o.Announces = o.Seen[:len(o.Seen)/2], o.Announces[:min(len(o.Announces), 500)]
	}
}

// watchRoutes asks the nodes that look what they see, for as long as this one announces.
func (n *Node) watchRoutes(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		n.askOutlooks(ctx)
		n.metrics.unseen.Set(float64(countUnseen(n.routeViews())))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (n *Node) askOutlooks(ctx context.Context) {
	lookers := n.lookers()
	out := &outlooks{heard: map[string]outlook{}, at: time.Now()}
	defer n.outlooks.Store(out)
	if len(lookers) == 0 {
		return
	}
	if slices.Contains(lookers, n.opts.Name) {
		out.heard[n.opts.Name] = n.outlook()
	}
	raw, err := json.Marshal(question{Routes: true})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*evidenceWithin)
	defer cancel()
	lookers = slices.DeleteFunc(lookers, func(name string) bool { return name == n.opts.Name })
	for node, reply := range n.gossip.Ask(ctx, lookers, raw) {
		var o outlook
		if json.Unmarshal(reply, &o) == nil && len(o.Seen) <= maxOutlook {
			out.heard[node] = o
		}
	}
}

// lookers are the nodes at sites with a peer to look at.
func (n *Node) lookers() (out []string) {
	c := n.setup.Load().Config
	for _, site := range c.Sites {
		if !slices.ContainsFunc(c.BGP.Peers, func(p config.Peer) bool { return p.Site == site.Name && p.Look }) {
			continue
		}
		for _, node := range site.Nodes {
			out = append(out, node.Name)
		}
	}
	return out
}

// routeViews are the announced prefixes at each peer, with what is seen of them.
func (n *Node) routeViews() []admin.RouteStatus {
	n.mu.Lock()
	speaker := n.speaker
	n.mu.Unlock()
	if speaker == nil {
		return nil
	}
	st := speaker.Status()
	var out []admin.RouteStatus
	for _, r := range st.Routes {
		out = append(out, admin.RouteStatus{Prefix: r.Prefix})
	}
	n.markPeers(out, st)
	return out
}

func countUnseen(routes []admin.RouteStatus) (count int) {
	for _, r := range routes {
		for _, p := range r.Peers {
			if p.Seen == admin.SeenNot {
				count++
			}
		}
	}
	return count
}

// markPeers adds to each route what each peer hears of it, and who sees it elsewhere.
func (n *Node) markPeers(routes []admin.RouteStatus, st bgp.Status) {
	heard, now := n.outlooks.Load(), time.Now()
	asn := n.setup.Load().Config.BGP.ASN
	peers := make(map[netip.Addr]bgp.PeerStatus, len(st.Peers))
	for _, p := range st.Peers {
		peers[p.Address] = p
	}
	for i := range routes {
		for _, r := range st.Routes {
			if r.Prefix != routes[i].Prefix {
				continue
			}
			for _, p := range r.Peers {
				row := routePeer(p)
				if p.Sent && heard != nil && now.Sub(heard.at) < outlookLasts {
					peer := peers[p.Address]
					row.Seen, row.SeenBy = judgeSeen(r.Prefix, peer.ASN, asn, now.Sub(peer.Since), p.Communities, heard.heard)
					row.Accepted = accepted(row.Seen)
				}
				routes[i].Peers = append(routes[i].Peers, row)
			}
		}
	}
}

func routePeer(p bgp.RoutePeerStatus) admin.RoutePeerStatus {
	return admin.RoutePeerStatus{
		Address: p.Address, Wanted: p.Wanted, Sent: p.Sent, Accepted: admin.AcceptedUnknown, Seen: admin.SeenUnknown,
		NextHop: p.NextHop, MED: p.MED, LocalPref: p.LocalPref, Prepend: p.Prepend,
		Communities: bgp.CommunityTexts(p.Communities, p.Large, p.Extended),
	}
}

// accepted is what a sighting says of the router's decision.
func accepted(seen string) string {
	switch seen {
	case admin.SeenYes:
		return admin.AcceptedYes
	case admin.SeenNot:
		return admin.AcceptedNo
	}
	return admin.AcceptedUnknown
}

// judgeSeen says whether others see what a peer was sent.
//
// It is seen when a path elsewhere came to our AS through the peer's AS. It is not seen when nodes that could see it see
// no path to it at all. Everything else is unknown: nobody looks, all who look announce it themselves (their routers
// prefer that), they see it through somebody else, which hides this peer's path, or the peer is asked to keep it to
// itself. What an iBGP peer does with a route no AS path tells.
func judgeSeen(prefix netip.Prefix, peer, own uint32, sentFor time.Duration, says []uint32, heard map[string]outlook) (string, []admin.SeenBy) {
	var by []admin.SeenBy
	able, elsewhere := false, false
	for node, o := range heard {
		mine := slices.Contains(o.Announces, prefix)
		if !mine && (prefix.Addr().Is4() && o.IPv4 || prefix.Addr().Is6() && o.IPv6) {
			able = true
		}
		for _, s := range o.Seen {
			if s.Prefix != prefix {
				continue
			}
			elsewhere = true
			if peer != own && through(s.ASPath, own) == peer {
				by = append(by, admin.SeenBy{Node: node, Peer: s.Peer, NextHop: s.NextHop, ASPath: s.ASPath})
			}
		}
	}
	slices.SortFunc(by, admin.CompareSeenBy)
	switch {
	case len(by) > 0:
		return admin.SeenYes, by
	case able && !elsewhere && peer != own && sentFor >= settleTime && !keptThere(says):
		return admin.SeenNot, nil
	}
	return admin.SeenUnknown, nil
}

// keptThere says whether the peer is asked to keep what it hears in its own AS: that nobody elsewhere sees it then
// tells nothing.
func keptThere(communities []uint32) bool {
	return slices.ContainsFunc(communities, func(c uint32) bool {
		return c == bgp.NoExport || c == bgp.NoAdvertise || c == bgp.NoExportSubconfed
	})
}

// through is the AS from which a path enters ours; 0 = none.
func through(path []uint32, own uint32) uint32 {
	end := len(path)
	for end > 0 && path[end-1] == own {
		end--
	}
	if end == 0 || end == len(path) {
		return 0
	}
	return path[end-1]
}
