package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/pharos-lb/pharos/internal/config"
)

// A RouterChoice says whether the lab has routers, and which.
type RouterChoice string

// The choices.
const (
	RoutersAuto  RouterChoice = ""      // mixed if the configuration has BGP peers and the programs are here, else none
	RoutersNone  RouterChoice = "none"  // BGP sessions stay down
	RoutersBIRD  RouterChoice = "bird"  // BIRD everywhere
	RoutersFRR   RouterChoice = "frr"   // FRR at the sites, BIRD as the transit
	RoutersMixed RouterChoice = "mixed" // BIRD and FRR by turns at the sites, BIRD as the transit
)

// ParseRouterChoice reads a choice.
func ParseRouterChoice(text string) (RouterChoice, error) {
	c := RouterChoice(text)
	if text == "auto" {
		c = RoutersAuto
	}
	if !slices.Contains([]RouterChoice{RoutersAuto, RoutersNone, RoutersBIRD, RoutersFRR, RoutersMixed}, c) {
		return "", fmt.Errorf("routers %q: want auto, none, bird, frr or mixed", text)
	}
	return c, nil
}

// decide reports whether there are to be routers, and what to say about it.
func (c RouterChoice) decide(cfg *config.Config) (with bool, why string, err error) {
	peers := slices.ContainsFunc(cfg.BGP.Peers, func(p config.Peer) bool { return !p.Address.IsUnspecified() && p.Address.IsValid() })
	missing := c.missing()
	switch {
	case c == RoutersNone:
		return false, "", nil
	case cfg.BGP.ASN == 0 || !peers:
		if c != RoutersAuto {
			return false, "", errors.New("routers: the configuration has no BGP peers that they could be")
		}
		return false, "", nil
	case missing != nil && c == RoutersAuto:
		return false, fmt.Sprintf("the BGP sessions stay down: %v", missing), nil
	}
	return missing == nil, "", missing
}

// missing says which program is not here.
func (c RouterChoice) missing() error {
	if _, err := findRouterTool("bird", "bird2"); err != nil {
		return err
	}
	if c == RoutersBIRD || c == RoutersAuto {
		return nil // auto takes what is there
	}
	for _, name := range []string{"zebra", "bgpd", "vtysh"} {
		if _, err := findRouterTool(name, "frr"); err != nil {
			return err
		}
	}
	return nil
}

// findRouterTool finds a program, also where FRR keeps its own.
func findRouterTool(name, pkg string) (string, error) {
	if path, err := findTool(name); err == nil {
		return path, nil
	}
	path := "/usr/lib/frr/" + name
	if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
		return path, nil
	}
	return "", fmt.Errorf("the program %s is not installed (Debian: apt-get install %s)", name, pkg)
}

// transitASN is the AS of the transit: the last but one of four bytes for private use
// (RFC 6996), for the configuration to use any other.
const transitASN = 4294967293

// maxRouters bounds the routers of a lab.
const maxRouters = 32

// transitAddr is the transit's own address, of benchmarking space like the client's.
var transitAddr = netip.MustParseAddr("198.18.255.54")

// A RouterPlan is one BGP peer of the configuration, or the transit.
type RouterPlan struct {
	Member int
	Name   string
	Site   string
	ASN    uint32
	ID     netip.Addr // its router ID
	// Sessions are with the nodes of its site, and with the transit.
	Sessions []SessionPlan
}

// A SessionPlan is one BGP session of a router, over a link of its own.
type SessionPlan struct {
	Name     string // "fra1"; of BIRD's protocol with a letter in front
	Node     bool   // with a node of the fleet; else between routers
	Member   int    // the other end
	Link     string // the router's interface
	Far      string // the other end's interface
	Local    netip.Addr
	Remote   netip.Addr
	Local6   netip.Addr // for next hops of IPv6
	Remote6  netip.Addr
	LocalASN uint32
	ASN      uint32 // the other end's
	Peer     config.Peer
	NodePort uint16
}

// addRouters makes a router of each BGP peer, and the transit behind them.
func (l *Layout) addRouters() error {
	var errs []error
	count := map[string]int{}
	for _, p := range l.Config.BGP.Peers {
		if !p.Address.IsValid() || p.Address.IsUnspecified() || !slices.Contains(l.SiteNames(), p.Site) {
			continue
		}
		if l.taken(p.Address) {
			errs = append(errs, fmt.Errorf("BGP peer %s of site %s has the address of something else in the lab", p.Address, p.Site))
			continue
		}
		if strings.ContainsAny(p.Password.Reveal(), "\"\n\\ ?") {
			errs = append(errs, fmt.Errorf("the password of BGP peer %s has a character that routers' configurations cannot carry", p.Address))
		}
		count[p.Site]++
		r := RouterPlan{
			Member: len(l.Members), Name: fmt.Sprintf("%s-r%d", p.Site, count[p.Site]), Site: p.Site, ASN: p.ASN,
			ID: netip.AddrFrom4([4]byte{169, 254, 200, byte(len(l.Routers) + 1)}),
		}
		l.Members = append(l.Members, Member{Name: r.Name, Role: RoleRouter, Site: p.Site, Own: []netip.Addr{p.Address}})
		l.addSessions(&r, p)
		l.Routers = append(l.Routers, r)
	}
	if len(l.Routers) > maxRouters {
		errs = append(errs, fmt.Errorf("%d BGP peers, a lab has at most %d routers; run it with --routers none", len(l.Routers), maxRouters))
	}
	if err := errors.Join(errs...); err != nil || len(l.Routers) == 0 {
		return err
	}
	l.addTransit()
	for i, s := range l.Shared {
		l.Shared[i].Routed = slices.ContainsFunc(l.Config.BGP.Prefixes, func(p config.Prefix) bool { return p.Prefix.Contains(s.Addr) })
	}
	return nil
}

// bfd is the BFD that the router speaks in the session; without an interval none. The
// link is a single hop.
func (s SessionPlan) bfd() config.BFD {
	if s.Peer.BFD.Multihop {
		return config.BFD{}
	}
	return s.Peer.BFD
}

// addSessions plans the sessions of a router with the nodes of its site.
func (l *Layout) addSessions(r *RouterPlan, p config.Peer) {
	for i, m := range l.Members {
		if m.Role != RoleNode || m.Site != r.Site {
			continue
		}
		addrs := [2]netip.Addr{}
		for _, site := range l.Config.Sites {
			for _, n := range site.Nodes {
				for _, a := range []netip.Addr{n.Address, n.Second} {
					if n.Name == m.Name && a.IsValid() {
						addrs[family(a)] = a
					}
				}
			}
		}
		s := SessionPlan{
			Name: m.Name, Node: true, Member: i, Link: fmt.Sprintf("n%d", i), Far: fmt.Sprintf("r%d", len(l.Routers)),
			LocalASN: p.ASN, ASN: l.Config.BGP.ASN, Peer: p, NodePort: l.Config.BGP.Port,
		}
		s.Local, s.Remote = p.Address, addrs[family(p.Address)]
		if family(p.Address) == 0 {
			s.Local6, s.Remote6 = linkAddr6(len(l.Routers), i, 1), addrs[1]
		}
		if s.Remote.IsValid() {
			r.Sessions = append(r.Sessions, s)
		}
	}
}

// addTransit plans the transit and its sessions with all routers.
func (l *Layout) addTransit() {
	at := len(l.Members)
	t := RouterPlan{Member: at, Name: transitName, ASN: transitASN, ID: netip.AddrFrom4([4]byte{169, 254, 200, 254})}
	for i := range l.Routers {
		r := &l.Routers[i]
		up := SessionPlan{
			Name: transitName, Member: at, Link: "transit", Far: fmt.Sprintf("t%d", i), LocalASN: r.ASN, ASN: transitASN,
			Local: netip.AddrFrom4([4]byte{169, 254, 100, byte(4*i + 1)}), Remote: netip.AddrFrom4([4]byte{169, 254, 100, byte(4*i + 2)}),
			Local6: linkAddr6(i, at, 1), Remote6: linkAddr6(i, at, 2), NodePort: bgpPort, Peer: config.Peer{Port: bgpPort},
		}
		down := up
		down.Name, down.Member, down.Link, down.Far = r.Name, r.Member, up.Far, up.Link
		down.LocalASN, down.ASN = up.ASN, up.LocalASN
		down.Local, down.Remote, down.Local6, down.Remote6 = up.Remote, up.Local, up.Remote6, up.Local6
		r.Sessions = append(r.Sessions, up)
		t.Sessions = append(t.Sessions, down)
	}
	l.Members = append(l.Members, Member{Name: transitName, Role: RoleTransit, Own: []netip.Addr{transitAddr}})
	l.Routers = append(l.Routers, t)
}

const bgpPort = 179

// linkAddr6 is an address for a link of a router (RFC 4193).
func linkAddr6(router, member int, end byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: 'p', 2: 'h', 3: 'l', 4: 'a', 5: 'b', 7: byte(router), 9: byte(member), 15: end})
}
