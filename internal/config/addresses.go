package config

import (
	"net/netip"
	"slices"
)

// Addresses are those at which something with a bind listens at a node; every: at each that the machine has.
// services are those whose VIPs "vip:PORT" stands for.
func (c *Config) Addresses(b Bind, services []string, site string, n Node) (all []netip.Addr, every bool) {
	switch {
	case b.Addr.IsValid():
		return []netip.Addr{b.Addr}, false
	case b.Host == bindNode:
		return []netip.Addr{n.Address}, false
	case b.Host != bindVIP:
		return nil, true
	}
	for i := range c.Services {
		if s := &c.Services[i]; slices.Contains(services, s.Name) {
			for _, a := range s.addressesAt(site) {
				if !slices.Contains(all, a) {
					all = append(all, a)
				}
			}
		}
	}
	return all, false
}

// addressesAt are the VIPs of a service at a site, and its anycast addresses if it is served there.
func (s *Service) addressesAt(site string) (out []netip.Addr) {
	for _, v := range s.VIPs {
		if v.Site == site {
			out = append(out, v.Addresses...)
		}
	}
	if slices.ContainsFunc(s.Pools, func(p Pool) bool { return p.Site == site }) {
		out = append(out, s.Anycast...)
	}
	return out
}

// answering is Addresses with each address of the configuration in the place of every.
func (c *Config) answering(b Bind, services []string, site string, n Node) []netip.Addr {
	all, every := c.Addresses(b, services, site, n)
	if !every {
		return all
	}
	all = []netip.Addr{n.Address}
	if n.Second.IsValid() {
		all = append(all, n.Second)
	}
	for i := range c.Services {
		all = append(all, c.Services[i].addressesAt(site)...)
	}
	return all
}

// Served are the services that a listener leads to, whose VIPs "vip:PORT" stands for: those of all HTTP listeners for
// one that only redirects and answers.
func (c *Config) Served(l *Listener) []string {
	if own := l.services(); len(own) > 0 || l.HTTP == nil {
		return own
	}
	var all []string
	for i := range c.Listeners {
		if c.Listeners[i].HTTP != nil {
			all = append(all, c.Listeners[i].services()...)
		}
	}
	return all
}

// services are those that a listener leads to itself.
func (l *Listener) services() (out []string) {
	switch {
	case l.TCP != nil:
		out = append(out, l.TCP.Service)
		for _, r := range l.TCP.Routes {
			out = append(out, r.Service)
		}
	case l.UDP != nil:
		out = append(out, l.UDP.Service)
	case l.HTTP != nil:
		for i := range l.HTTP.Routes {
			out = append(out, l.HTTP.Routes[i].Services()...)
		}
	}
	return out
}
