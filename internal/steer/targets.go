package steer

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// A Probe is one check that a node has to run.
type Probe struct {
	Target health.Target
	// Check is the check to run against Target.Addr, with the Host header and SNI
	// filled in where they are known.
	Check config.Check
	// Host repeats Check.HTTP.Host: what the Host header and the SNI default to.
	Host string
}

// Probes returns the checks that node runs, in the order of the layout: those of the targets that its
// site observes by their vantage, by default its own site's backends and the other sites'
// VIPs. A node that is not in the fleet runs none.
func (t *Topology) Probes(node string) []Probe {
	site, ok := t.Fleet.Sites[node]
	if !ok {
		return nil
	}
	sites := slices.Compact(slices.Sorted(maps.Values(t.Fleet.Sites)))
	var probes []Probe
	for _, target := range t.Layout.Targets {
		i, ok := t.services[target.Service]
		if !ok || !health.Observes(site, target, t.vantage(target), sites) {
			continue
		}
		check := t.Services[i].Config.Check
		if target.Kind == health.KindVIP {
			check = t.vipChecks[i].check
		}
		probes = append(probes, Probe{Target: target, Check: check, Host: check.HTTP.Host})
	}
	return probes
}

// vantage returns which sites observe a target.
func (t *Topology) vantage(target health.Target) health.Vantage {
	i, ok := t.services[target.Service]
	switch {
	case !ok:
		return health.VantageDefault
	case target.Kind == health.KindVIP:
		return health.Vantage(t.Services[i].Config.Check.VIPFrom)
	default:
		return health.Vantage(t.Services[i].Config.Check.From)
	}
}

// compileTargets makes the layout, then the target indices of every ServiceSite.
func (t *Topology) compileTargets() error {
	t.vipChecks = make(map[int]vipCheck)
	var errs []error
	var targets []health.Target
	listeners := indexListeners(t.Config.Listeners)
	for i := range t.Services {
		s := &t.Services[i]
		vip := listeners.vipCheck(s.Config)
		t.vipChecks[i] = vip
		for j := range s.Sites {
			ts, err := t.siteTargets(s, &s.Sites[j], vip)
			errs = append(errs, err)
			targets = append(targets, ts...)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	t.Layout = health.NewLayoutOf(append(targets, t.routeTargets()...), t.vantage)
	next := 0 // targets come in the same order again
	index := func(n int) []int {
		indices := make([]int, n)
		for k := range indices {
			indices[k], _ = t.Layout.Index(targets[next])
			next++
		}
		return indices
	}
	for i := range t.Services {
		for j := range t.Services[i].Sites {
			ss := &t.Services[i].Sites[j]
			if ss.Pool != nil {
				ss.Backends = index(len(ss.Pool.Backends))
			}
			if len(t.Config.Sites) > 1 {
				ss.VIPs = index(len(ss.V4) + len(ss.V6))
			}
		}
	}
	t.indexWords()
	t.indexVIPs()
	t.indexOwners()
	return nil
}

// indexOwners notes which service each target is one of.
func (t *Topology) indexOwners() {
	t.owners = make([]int32, len(t.Layout.Targets))
	for i := range t.owners {
		t.owners[i] = -1
	}
	for i := range t.Services {
		for j := range t.Services[i].Sites {
			ss := &t.Services[i].Sites[j]
			for _, list := range [2][]int{ss.Backends, ss.VIPs} {
				for _, target := range list {
					t.owners[target] = int32(i)
				}
			}
		}
	}
}

// siteTargets lists the targets of a service at a site: backends in pool order, then VIPs.
func (t *Topology) siteTargets(s *Service, ss *ServiceSite, vip vipCheck) ([]health.Target, error) {
	site := t.Config.Sites[ss.Site].Name
	var targets []health.Target
	if ss.Pool != nil {
		for _, b := range ss.Pool.Backends {
			t.backends[b.Address] = struct{}{}
			targets = append(targets, health.Target{Kind: health.KindBackend, Service: s.Config.Name, Site: site, Addr: b.Address})
		}
	}
	if len(t.Config.Sites) < 2 || len(ss.V4)+len(ss.V6) == 0 {
		return targets, nil // nobody outside could probe a VIP
	}
	port := vip.port
	if port == 0 {
		var ok bool
		if port, ok = sharedPort(ss.Pool); !ok && vip.check.Kind == config.CheckICMP && ss.Pool != nil && len(ss.Pool.Backends) > 0 {
			port, ok = ss.Pool.Backends[0].Address.Port(), true // it only names the target, nothing connects to it
		}
		if !ok {
			return nil, fmt.Errorf("services.%s.check: the other sites cannot tell at which port to probe the VIP of %s: "+
				"no listener serves the service and its backends there do not share a port; set vip_port", s.Config.Name, site)
		}
	}
	for _, addrs := range [2][]netip.Addr{ss.V4, ss.V6} {
		for _, a := range addrs {
			targets = append(targets, health.Target{
				Kind: health.KindVIP, Service: s.Config.Name, Site: site, Addr: netip.AddrPortFrom(a, port),
			})
		}
	}
	return targets, nil
}

// sharedPort returns the port that every backend of a pool has.
func sharedPort(pool *config.Pool) (uint16, bool) {
	if pool == nil || len(pool.Backends) == 0 {
		return 0, false
	}
	port := pool.Backends[0].Address.Port()
	for _, b := range pool.Backends[1:] {
		if b.Address.Port() != port {
			return 0, false
		}
	}
	return port, true
}
