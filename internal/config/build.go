package config

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/geo"
)

// A builder makes the Config of a walked file and checks what no single value
// shows. It reports through the reading and never stops early.
type builder struct {
	*reading
	top *value
	cfg *Config

	services  map[string]*draft
	order     []*draft // services in file order
	nodeAddrs []netip.Addr
	steered   map[string]*steeredName // by FQDN
	claims    []claim
}

// A draft is a service while its references are being checked.
type draft struct {
	Service
	at *value
	// pools and vips are the sites that have them, to their places in the file.
	pools, vips map[string]*value
	// addresses is every VIP and anycast address.
	addresses []netip.Addr
	// named is the first name that is steered to the service.
	named *steeredName
	// listened: some listener forwards to the service.
	listened bool
	// carried: it is forwarded to by a tcp or udp listener.
	carried bool
}

// A steeredName is a name with its place in the file.
type steeredName struct {
	Name
	at *value
}

// build makes the Config. It is only valid if the reading has no errors.
func build(r *reading, top *value) *Config {
	r.resolveMentions(top)
	b := &builder{
		reading: r, top: top, cfg: new(Config),
		services: make(map[string]*draft), steered: make(map[string]*steeredName),
	}
	b.buildSites()
	b.buildCluster()
	b.buildNetworks()
	b.buildServices()
	b.buildZones()
	b.buildDNS()
	b.buildListeners()
	limits := b.top.section("limits")
	b.cfg.Limits = Intake{Connections: get[int](limits, "connections"), Rate: get[int](limits, "rate"), SessionRate: get[int](limits, "session_rate")}
	b.buildBGP()
	b.buildDrain()
	b.buildAdmin()
	b.buildTests()
	b.checkServices()
	b.checkCanaries()
	b.checkClaims()
	for _, d := range b.order {
		b.cfg.Services = append(b.cfg.Services, d.Service)
	}
	slices.SortFunc(b.cfg.Services, func(x, y Service) int { return strings.Compare(x.Name, y.Name) })
	b.checkDoors()
	return b.cfg
}

func (b *builder) buildSites() {
	v := b.top.section("vips")
	b.cfg.VIPs = VIPs{Interface: get[string](v, "interface"), Linger: get[time.Duration](v, "linger")}
	nodes := make(map[string]*value)
	addrs := make(map[netip.Addr]*value)
	signers := make(map[string]*value)
	for name, at := range b.top.entry("sites").chosen {
		if name == vipAnycast {
			b.refuseKey(at, refuse("no site can be called %s: services use the word for their shared addresses", name))
		}
		site := Site{Name: name, Location: get[geo.Location](at, "location")}
		if code := get[string](at, "country"); code != "" {
			site.Location.Country = code
			_, site.Location.Continent, _ = geo.Country(code)
		}
		siteInterface := get[string](at, "vip_interface")
		for node, at := range at.entry("nodes").chosen {
			if first := nodes[node]; first != nil {
				b.refuseKey(at, refuse("node %s is already at %s: names are unique in the fleet", node, first.path()))
				continue
			}
			nodes[node] = at
			addr, where, ok := nodeAddress(at)
			if !ok {
				continue
			}
			if first := addrs[addr]; first != nil {
				b.refuse(where, refuse("%s is already the address of %s", addr, first.path()))
				continue
			}
			addrs[addr] = at
			b.nodeAddrs = append(b.nodeAddrs, addr)
			n := Node{Name: node, Address: addr, Zone: get[string](at, "zone"), PublicKey: get[[]byte](at, "public_key")}
			n.VIPInterface = cmp.Or(get[string](at, "vip_interface"), siteInterface, b.cfg.VIPs.Interface)
			b.second(at, &n, addrs)
			if first := signers[string(n.PublicKey)]; first != nil && n.PublicKey != nil {
				b.refuse(at.entry("public_key"), refuse("is already the key of %s: each node has its own", first.path()))
			}
			signers[string(n.PublicKey)] = at
			site.Nodes = append(site.Nodes, n)
		}
		b.checkNodeZones(&site, at)
		slices.SortFunc(site.Nodes, func(x, y Node) int { return strings.Compare(x.Name, y.Name) })
		b.cfg.Sites = append(b.cfg.Sites, site)
	}
	slices.SortFunc(b.cfg.Sites, func(x, y Site) int { return strings.Compare(x.Name, y.Name) })
}

// second reads a node's address of the other family.
func (b *builder) second(at *value, n *Node, addrs map[netip.Addr]*value) {
	n.Second = get[netip.Addr](at, "second_address")
	if !n.Second.IsValid() {
		return
	}
	where := at.entry("second_address")
	if n.Second.Is4() == n.Address.Is4() {
		b.refuse(where, refuse("%s is of the same family as the address: it is for the other one", n.Second))
	}
	if first := addrs[n.Second]; first != nil {
		b.refuse(where, refuse("%s is already the address of %s", n.Second, first.path()))
		return
	}
	addrs[n.Second] = at
}

// readSecretOf returns the secret that KEY_file or KEY gives, trimmed, and the
// value that it came from; nil when neither is given, "" when it was refused.
func (b *builder) readSecretOf(at *value, key string) (string, *value) {
	if inline := at.entry(key); inline != nil {
		text, _ := inline.data.(string)
		return text, inline
	}
	file := at.entry(key + "_file")
	if file == nil {
		return "", nil
	}
	name, ok := file.data.(string)
	if !ok {
		return "", file
	}
	data, p := b.readFile(name, maxSecretFile)
	text := strings.TrimSpace(string(data))
	switch {
	case p != nil:
		b.refuse(file, p)
	case text == "":
		b.refuse(file, refuse("%s is empty", clip(name)))
	case strings.ContainsFunc(text, isControl):
		b.refuse(file, refuse("%s has more than one line, or control characters", clip(name)))
	default:
		return text, file
	}
	return "", file
}

// nodeAddress returns a node's address and the value that it is in.
func nodeAddress(at *value) (netip.Addr, *value, bool) {
	if addr, short := at.data.(netip.Addr); short {
		return addr, at, true
	}
	where := at.entry("address")
	return get[netip.Addr](at, "address"), where, where != nil && where.data != nil
}

func (b *builder) buildNetworks() {
	owners := make(map[netip.Prefix]*value)
	for name, at := range b.top.entry("networks").chosen {
		network := geo.Network{Name: name}
		network.Place.Country = get[string](at, "country")
		network.Place.Region = get[string](at, "region")
		if network.Place.Region != "" && at.entry("country") == nil && !at.isMeant("country") {
			b.refuse(at.entry("region"), refuse("a region needs its country"))
		}
		loc := get[geo.Location](at, "location")
		network.Place.Point = loc.Point
		if network.Place.Country == "" {
			network.Place.Country, network.Place.Continent = loc.Country, loc.Continent
		} else if centre, continent, ok := geo.Country(network.Place.Country); ok {
			network.Place.Continent = continent
			if loc.Point.IsZero() {
				network.Place.Point = centre
			}
		}
		for _, item := range at.list("prefixes") {
			prefix, ok := item.data.(netip.Prefix)
			if !ok {
				continue
			}
			if first := owners[prefix]; first != nil {
				b.refuse(item, refuse("%s is already in %s", prefix, first.path()))
				continue
			}
			owners[prefix] = item
			network.Prefixes = append(network.Prefixes, prefix)
		}
		slices.SortFunc(network.Prefixes, comparePrefixes)
		b.cfg.Networks = append(b.cfg.Networks, network)
	}
	slices.SortFunc(b.cfg.Networks, func(x, y geo.Network) int { return strings.Compare(x.Name, y.Name) })
	for _, item := range b.top.entry("geo").list("databases") {
		name, ok := item.data.(string)
		if !ok {
			continue
		}
		name = b.resolve(name)
		if b.src.Stat != nil {
			if err := b.src.Stat(name); err != nil {
				b.refuse(item, refuseRead(name, err))
			}
		}
		b.cfg.Geo.Databases = append(b.cfg.Geo.Databases, name)
	}
}

func comparePrefixes(x, y netip.Prefix) int {
	return cmp.Or(x.Addr().Compare(y.Addr()), cmp.Compare(x.Bits(), y.Bits()))
}

// names returns the distinct names of a list of references, in file order; a name
// given twice is a mistake.
func (b *builder) names(items []*value) []string {
	var all []string
	for _, item := range items {
		name, ok := item.data.(string)
		if !ok {
			continue
		}
		if slices.Contains(all, name) {
			b.refuse(item, refuse("%s is listed twice", name))
			continue
		}
		all = append(all, name)
	}
	return all
}
