package config

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The words before a colon in what a prefix requires.
const (
	requireListener = "listener:"
	requireDNS      = "dns:"
)

// What a prefix requires besides services: a listener's port, a name that DNS answers.
type (
	requiredPort uint16
	requiredName string
)

// requirement is what a site must be able to do to announce a prefix: a service, or
// something that answers at the prefix's own addresses.
func requirement() *scalar {
	s := serviceName()
	service := s.read
	s.noun, s.pattern, s.example = "a requirement", "", "web"
	s.read = func(text string) (any, *problem) {
		if port, ok := strings.CutPrefix(text, requireListener); ok {
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
				return nil, refuse("%q is not a port: write listener: and a listener's port, like listener:443", clip(port))
			}
			return requiredPort(n), nil
		}
		if name, ok := strings.CutPrefix(text, requireDNS); ok {
			name = strings.TrimSuffix(name, ".")
			if p := refuseName(name, false); p != nil {
				return nil, p
			}
			return requiredName(strings.ToLower(name) + "."), nil
		}
		return service(text)
	}
	return s
}

// required fills in what a prefix requires besides services.
func (b *builder) required(at *value, prefix *Prefix) {
	for _, item := range at.list("requires") {
		twice := false
		switch r := item.data.(type) {
		case requiredPort:
			twice = slices.Contains(prefix.Listeners, uint16(r))
			prefix.Listeners = append(prefix.Listeners, uint16(r))
		case requiredName:
			twice = slices.Contains(prefix.DNS, string(r))
			prefix.DNS = append(prefix.DNS, string(r))
		}
		if twice {
			b.refuse(item, refuse("%s is listed twice", item.node.Value))
		}
	}
	slices.Sort(prefix.Listeners)
	slices.Sort(prefix.DNS)
}

// checkDoors refuses a requirement that no node could ever meet: nothing answers there.
func (b *builder) checkDoors() {
	for i, at := range b.top.section("bgp").list("prefixes") {
		prefix := b.cfg.BGP.Prefixes[i]
		if !prefix.Prefix.IsValid() {
			continue
		}
		for _, item := range at.list("requires") {
			one := Prefix{Prefix: prefix.Prefix}
			switch r := item.data.(type) {
			case requiredPort:
				one.Listeners = []uint16{uint16(r)}
			case requiredName:
				one.DNS = []string{string(r)}
				if !b.top.isMeant("zones") && !slices.ContainsFunc(b.cfg.Zones, func(z Zone) bool { return within(string(r), z.Name) }) {
					b.refuse(item, refuse("%s is in none of the zones, so it would be refused", plainName(string(r))))
					continue
				}
			default:
				continue
			}
			b.refuseClosed(item, prefix.Sites, &one)
		}
	}
}

// refuseClosed refuses a requirement that has no door at some site.
func (b *builder) refuseClosed(item *value, sites []string, one *Prefix) {
	for i := range b.cfg.Sites {
		site := &b.cfg.Sites[i]
		if !slices.Contains(sites, site.Name) {
			continue
		}
		for _, n := range site.Nodes {
			if len(b.cfg.Doors(one, site.Name, n)) > 0 {
				continue
			}
			if len(one.DNS) > 0 {
				b.refuse(item, refuse("at %s DNS listens on no address of %s: dns.listen has to be one, or \":53\" with a VIP there", site.Name, one.Prefix))
			} else {
				b.refuse(item, refuse("at %s no tcp or http listener with this port is on an address of %s", site.Name, one.Prefix))
			}
			return
		}
	}
}

// A Door is a place at which a node has to answer before it announces a prefix.
type Door struct {
	Address netip.AddrPort
	// Name is what DNS is asked for there, fully qualified; "" = a listener, which has to
	// take connections.
	Name string
}

// String is the door for people.
func (d Door) String() string {
	if d.Name == "" {
		return "listener " + d.Address.String()
	}
	return "DNS at " + d.Address.String() + " for " + strings.TrimSuffix(d.Name, ".")
}

// Doors are the doors of a prefix at a node, sorted: what it requires besides services, at each
// of its addresses.
func (c *Config) Doors(p *Prefix, site string, n Node) (doors []Door) {
	add := func(d Door) {
		if p.Prefix.Contains(d.Address.Addr()) && !slices.Contains(doors, d) {
			doors = append(doors, d)
		}
	}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if l.UDP != nil || !slices.Contains(p.Listeners, l.Bind.Port) {
			continue
		}
		for _, a := range c.answering(l.Bind, c.Served(l), site, n) {
			add(Door{Address: netip.AddrPortFrom(a, l.Bind.Port)})
		}
	}
	for _, name := range p.DNS {
		for _, bind := range c.DNS.Listen {
			for _, a := range c.answering(bind, nil, site, n) {
				add(Door{netip.AddrPortFrom(a, bind.Port), name})
			}
		}
	}
	slices.SortFunc(doors, func(a, b Door) int {
		if d := a.Address.Compare(b.Address); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	return doors
}
