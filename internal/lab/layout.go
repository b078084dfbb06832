package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"github.com/pharos-lb/pharos/internal/config"
)

// A Role says what stands in a namespace.
type Role string

// The roles.
const (
	RoleNode     Role = "node"
	RoleBackends Role = "backends"
	RoleClient   Role = "client"
	RoleRouter   Role = "router"  // a BGP peer of a site
	RoleTransit  Role = "transit" // the network behind the sites' routers
)

// Names that the lab gives, besides those of the configuration.
const (
	clientName  = "client"
	transitName = "transit"
	coreName    = "core"
	allName     = "all" // every node and site, but no client
	// canaryService stands for a service in the table of what answers.
	canaryService = "(canary)"
)

// Limits of a lab: each namespace costs a few hundred kilobytes of kernel
// memory and each node a process.
const (
	maxNodes   = 64
	maxMembers = 250
)

// labID is what a lab may be called: short, and without the dash that ends it
// in the names of namespaces.
var labID = regexp.MustCompile(`^[a-z0-9]{1,12}$`)

// A Member is one namespace beside the core.
type Member struct {
	Name string // "fra1", "fra-be" or "client"
	Role Role
	Site string // "" for the client
	// Link is the core's end of the veth pair; the member's end is "up".
	Link string
	// Own are the addresses that the core routes to this member alone.
	Own []netip.Addr
	// Shared are VIPs and anycast addresses, which several members carry.
	Shared []netip.Addr
}

// A Layout is what a lab of a configuration consists of. Immutable.
type Layout struct {
	ID      string
	Config  *config.Config
	Members []Member
	// Routers are the BGP peers of the configuration; nil = the lab has none.
	Routers []RouterPlan
	// Shared are the addresses that several members carry, with the members in
	// the order of preference, sorted by address.
	Shared   []SharedAddr
	Backends []BackendPlan
	// DNS is where each node is asked, in the order of Nodes.
	DNS []Server
}

// A SharedAddr is a VIP or an anycast address.
type SharedAddr struct {
	Addr    netip.Addr
	Members []int // indices into Layout.Members
	// Routed: the transit's routes, and not the lab, say where it is.
	Routed bool
}

// A Server is where one node answers DNS.
type Server struct {
	netip.AddrPort
	// Inside: only at an address that other nodes answer at too, so that the lab
	// asks it from its own namespace, where no cut is on the way.
	Inside bool
}

// The client's own addresses: benchmarking space (RFC 2544, RFC 5180).
var clientAddrs = []netip.Addr{netip.MustParseAddr("198.18.255.53"), netip.MustParseAddr("2001:2:0:ffff::53")}

// NewLayout plans the lab of a configuration. nodes are those to run, nil for
// all. The error holds everything that stands in the way.
// With routers the BGP peers of the configuration stand in it.
func NewLayout(id string, cfg *config.Config, nodes []string, routers bool) (*Layout, error) {
	if !labID.MatchString(id) {
		return nil, fmt.Errorf("lab name %q: want 1 to 12 lower case letters and digits", id)
	}
	l := &Layout{ID: id, Config: cfg}
	if err := l.addNodes(nodes); err != nil {
		return nil, err
	}
	l.addShared()
	l.addSources()
	if err := l.addBackends(); err != nil {
		return nil, err
	}
	if routers {
		if err := l.addRouters(); err != nil {
			return nil, err
		}
	}
	l.addClient()
	if len(l.Members) > maxMembers {
		return nil, fmt.Errorf("the lab would have %d namespaces, at most %d; run fewer nodes with --nodes", len(l.Members), maxMembers)
	}
	for i := range l.Members {
		l.Members[i].Link = fmt.Sprintf("n%d", i)
	}
	return l, l.check()
}

// addNodes makes the nodes' members and finds where they answer DNS.
func (l *Layout) addNodes(only []string) error {
	var errs []error
	var known []string
	for _, site := range l.Config.Sites {
		for _, n := range site.Nodes {
			known = append(known, n.Name)
			if only != nil && !slices.Contains(only, n.Name) {
				continue
			}
			if n.Address.IsLoopback() {
				errs = append(errs, fmt.Errorf("node %s: %s is a loopback address, which no other namespace reaches; give it one of its own", n.Name, n.Address))
			}
			own := []netip.Addr{n.Address}
			if n.Second.IsValid() && !n.Second.IsLoopback() {
				own = append(own, n.Second)
			}
			l.Members = append(l.Members, Member{Name: n.Name, Role: RoleNode, Site: site.Name, Own: own})
			l.DNS = append(l.DNS, dnsOf(l.Config, n))
		}
	}
	for _, name := range only {
		if !slices.Contains(known, name) {
			errs = append(errs, fmt.Errorf("--nodes: there is no node %q in %s", name, l.Config.File))
		}
	}
	if len(l.Members) > maxNodes {
		errs = append(errs, fmt.Errorf("%d nodes, a lab runs at most %d; name some with --nodes", len(l.Members), maxNodes))
	}
	return errors.Join(errs...)
}

// dnsOf returns where a node is asked.
func dnsOf(cfg *config.Config, n config.Node) (s Server) {
	for _, b := range cfg.DNS.Listen {
		if b.Host == "node" || b.Host == "" && (!b.Addr.IsValid() || b.Addr.IsUnspecified() || b.Addr == n.Address) {
			return Server{AddrPort: netip.AddrPortFrom(n.Address, b.Port)}
		}
		if b.Addr.IsValid() && !s.IsValid() {
			s = Server{AddrPort: netip.AddrPortFrom(b.Addr, b.Port), Inside: true}
		}
	}
	return s
}

// addShared gives every node the VIPs of its site, and the anycast addresses
// and literal listening addresses that are nobody's own.
func (l *Layout) addShared() {
	carry := func(a netip.Addr, site string) {
		if !a.IsValid() || a.IsLoopback() || a.IsUnspecified() || l.taken(a) {
			return
		}
		at := slices.IndexFunc(l.Shared, func(s SharedAddr) bool { return s.Addr == a })
		if at < 0 {
			l.Shared = append(l.Shared, SharedAddr{Addr: a})
			at = len(l.Shared) - 1
		}
		for i := range l.Members {
			m := &l.Members[i]
			if (site == "" || m.Site == site) && !slices.Contains(m.Shared, a) {
				m.Shared = append(m.Shared, a)
				l.Shared[at].Members = append(l.Shared[at].Members, i)
			}
		}
	}
	for _, svc := range l.Config.Services {
		for _, v := range svc.VIPs {
			for _, a := range v.Addresses {
				carry(a, v.Site)
			}
		}
		for _, a := range svc.Anycast {
			carry(a, "")
		}
	}
	for _, b := range l.Config.DNS.Listen {
		carry(b.Addr, "")
	}
	for _, b := range l.Config.Listeners {
		carry(b.Bind.Addr, "")
	}
	slices.SortFunc(l.Shared, func(a, b SharedAddr) int { return a.Addr.Compare(b.Addr) })
}

// sources are the networks of the addresses that the lab makes up: benchmarking space again.
var sources = [2]netip.Addr{netip.MustParseAddr("198.18.254.0"), netip.MustParseAddr("2001:2:0:fffe::")}

// addSources gives every node an address of its own of each family that VIPs have. Without one a node would look at the VIPs
// of that family from its own VIP, whose replies go to another node, or from a link-local address, which nobody forwards.
func (l *Layout) addSources() {
	for of := range sources {
		if !slices.ContainsFunc(l.Shared, func(s SharedAddr) bool { return family(s.Addr) == of }) {
			continue
		}
		next := sources[of]
		for i := range l.Members {
			m := &l.Members[i]
			if m.first(of).IsValid() {
				continue
			}
			for next = next.Next(); l.taken(next) || slices.ContainsFunc(l.Shared, func(s SharedAddr) bool { return s.Addr == next }); {
				next = next.Next()
			}
			m.Own = append(m.Own, next)
		}
	}
}

// taken reports whether an address is some member's own.
func (l *Layout) taken(a netip.Addr) bool {
	return slices.ContainsFunc(l.Members, func(m Member) bool { return slices.Contains(m.Own, a) })
}

// addClient makes the client, which is also the world outside: it has the addresses
// of the configuration's tests, and answers as its canaries.
func (l *Layout) addClient() {
	client := Member{Name: clientName, Role: RoleClient, Own: slices.Clone(clientAddrs)}
	carry := func(a netip.Addr) {
		if !slices.Contains(client.Own, a) && !l.taken(a) {
			client.Own = append(client.Own, a)
		}
	}
	for _, t := range l.Config.Tests {
		if a, ok := clientOf(t.From); ok {
			carry(a)
		}
	}
	for _, c := range l.Config.Cluster.Canaries {
		carry(c.Addr())
		l.Backends = append(l.Backends, BackendPlan{
			Service: canaryService, Address: c, Members: []int{len(l.Members)}, Status: 200,
		})
	}
	l.Members = append(l.Members, client)
}

// check finds names that two members would share.
func (l *Layout) check() error {
	seen := map[string]bool{coreName: true, allName: true}
	for _, s := range l.Config.Sites {
		seen[s.Name] = true
	}
	for _, m := range l.Members {
		if seen[m.Name] {
			return fmt.Errorf("%s cannot be called %q in a lab: the lab uses this name", m.Role, m.Name)
		}
		seen[m.Name] = true
	}
	return nil
}

// clientOf returns an address of the place that a test speaks of, if it is
// given as an address or a prefix.
func clientOf(from string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(from); err == nil {
		return a, true
	}
	if p, err := netip.ParsePrefix(from); err == nil {
		if p.IsSingleIP() {
			return p.Addr(), true
		}
		return p.Masked().Addr().Next(), true
	}
	return netip.Addr{}, false
}

// Namespace is the name under which `ip netns` shows a member.
func (l *Layout) Namespace(member string) string { return "ph-" + l.ID + "-" + member }

// Nodes are the names of the nodes, in the order of the configuration.
func (l *Layout) Nodes() (names []string) {
	for _, m := range l.Members {
		if m.Role == RoleNode {
			names = append(names, m.Name)
		}
	}
	return names
}

// SiteNames are the sites that have a node in the lab, in the order of the configuration.
func (l *Layout) SiteNames() (names []string) {
	for _, m := range l.Members {
		if m.Role == RoleNode && !slices.Contains(names, m.Site) {
			names = append(names, m.Site)
		}
	}
	return names
}

// Find returns the members that a name means: a node, a site (its nodes and
// backends), "client", or "all" (everything but the client).
func (l *Layout) Find(name string) ([]int, error) {
	var found []int
	for i, m := range l.Members {
		if m.Name == name || m.Site == name && m.Site != "" || name == allName && m.Role != RoleClient {
			found = append(found, i)
		}
	}
	if found == nil {
		return nil, fmt.Errorf("the lab has no %q; it has the sites %v, the nodes %v, client and all", name, l.SiteNames(), l.Nodes())
	}
	return found, nil
}

// node returns the index of a node.
func (l *Layout) node(name string) (int, error) {
	i := slices.IndexFunc(l.Members, func(m Member) bool { return m.Name == name && m.Role == RoleNode })
	if i < 0 {
		return 0, fmt.Errorf("the lab has no node %q; it has %v", name, l.Nodes())
	}
	return i, nil
}
