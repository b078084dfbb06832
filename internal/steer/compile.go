package steer

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// MaxSites is the largest number of sites: positions are stored in 16 bits.
const MaxSites = 1 << 14

// Compile makes the topology of a valid config. db is the geo data; without it (nil) only
// the operator's own networks have a place. self is a node's name, or "" for none. The error joins
// every reason why this config cannot be decided on.
func Compile(cfg *config.Config, db *geo.Database, self string) (*Topology, error) {
	if len(cfg.Sites) > MaxSites {
		return nil, fmt.Errorf("compile topology: %d sites, at most %d are possible", len(cfg.Sites), MaxSites)
	}
	t := &Topology{
		Config:    cfg,
		Self:      self,
		SelfSite:  -1,
		Geo:       db,
		Fleet:     health.Fleet{Sites: make(map[string]string)},
		Services:  make([]Service, len(cfg.Services)),
		names:     make(map[string]*config.Name),
		ancestors: make(map[string]struct{}),
		services:  make(map[string]int, len(cfg.Services)),
		sites:     make(map[string]int, len(cfg.Sites)),
		backends:  make(map[netip.AddrPort]struct{}),
	}
	for i := range cfg.Sites {
		t.sites[cfg.Sites[i].Name] = i
		for _, node := range cfg.Sites[i].Nodes {
			t.Fleet.Sites[node.Name] = cfg.Sites[i].Name
			if node.Name == self {
				t.SelfSite = i
			}
		}
	}
	if self != "" && t.SelfSite < 0 {
		return nil, fmt.Errorf("compile topology: node %q is not in the config; its nodes are %s",
			self, strings.Join(slices.Sorted(maps.Keys(t.Fleet.Sites)), ", "))
	}
	var errs []error
	for i := range cfg.Services {
		t.services[cfg.Services[i].Name] = i
		errs = append(errs, t.compileService(i))
	}
	errs = append(errs, t.compileNames(), t.compileTargets(), t.compileRoutes())
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("compile topology: %w", err)
	}
	t.atlas = newAtlas(cfg, t.Services)
	if db != nil || len(cfg.Networks) > 0 {
		table, err := geo.Compile(db, cfg.Networks, t.classify)
		if err != nil {
			return nil, fmt.Errorf("compile topology: geo data: %w", err)
		}
		t.Table = table
	}
	t.seal()
	for i := range t.Services {
		p := &t.profiles[t.Services[i].Profile]
		// With a table, a profile that orders its sites alike for everybody
		// (one site, say) does not depend on place after all.
		t.Services[i].Placed = p.placed && (t.Table == nil || len(p.orders) > 1)
	}
	return t, nil
}

// compileService resolves the sites of service i: those with a pool or a VIP.
func (t *Topology) compileService(i int) error {
	sc := &t.Config.Services[i]
	s := &t.Services[i]
	s.Config, s.Home = sc, -1
	byName := make(map[string]int, len(sc.Pools)) // site name → position so far
	at := func(site string) (*ServiceSite, error) {
		index, ok := t.sites[site]
		if !ok {
			return nil, fmt.Errorf("services.%s: no site %q", sc.Name, site)
		}
		position, ok := byName[site]
		if !ok {
			position = len(s.Sites)
			byName[site] = position
			s.Sites = append(s.Sites, ServiceSite{Site: index})
		}
		return &s.Sites[position], nil
	}
	for p := range sc.Pools {
		ss, err := at(sc.Pools[p].Site)
		if err != nil {
			return err
		}
		ss.Pool = &sc.Pools[p]
	}
	for _, vip := range sc.VIPs {
		ss, err := at(vip.Site)
		if err != nil {
			return err
		}
		v4, v6 := families(vip.Addresses)
		ss.V4, ss.V6 = append(ss.V4, v4...), append(ss.V6, v6...)
		s.HasA = s.HasA || len(v4) > 0
		s.HasAAAA = s.HasAAAA || len(v6) > 0
	}
	s.Anycast4, s.Anycast6 = families(sc.Anycast)
	slices.SortFunc(s.Sites, func(a, b ServiceSite) int { return a.Site - b.Site })
	s.Home = slices.IndexFunc(s.Sites, func(ss ServiceSite) bool { return ss.Site == t.SelfSite })
	return nil
}

// families splits addresses into IPv4 and IPv6, keeping their order.
func families(addrs []netip.Addr) (v4, v6 []netip.Addr) {
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	return v4, v6
}

// compileNames indexes the steered names and their ancestors.
func (t *Topology) compileNames() error {
	var errs []error
	for z := range t.Config.Zones {
		zone := &t.Config.Zones[z]
		for n := range zone.Names {
			name := &zone.Names[n]
			if _, ok := t.services[name.Service]; !ok {
				errs = append(errs, fmt.Errorf("zones.%s: name %s: no service %q", zone.Name, name.FQDN, name.Service))
			}
			t.names[name.FQDN] = name
			for rest := name.FQDN; ; {
				_, after, ok := strings.Cut(rest, ".")
				if !ok || after == "" {
					break
				}
				rest = after
				t.ancestors[rest] = struct{}{}
			}
		}
	}
	return errors.Join(errs...)
}
