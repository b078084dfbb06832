package lab

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/pharos-lb/pharos/internal/config"
)

// A BackendPlan is one address at which the lab answers as a backend.
type BackendPlan struct {
	// Service and Site are of the first pool that names the address; of a canary,
	// "(canary)" and none.
	Service, Site string
	Address       netip.AddrPort
	// Members are the namespaces that it listens in: one, or for a loopback
	// address every node of the site.
	Members []int
	// TLS: it speaks TLS, with a certificate for Hosts of the lab's own authority.
	TLS   bool
	Hosts []string
	// Status and Body are what HTTP requests are answered.
	Status int
	Body   string
	// Missing says what of the check the lab's backend cannot answer; "" = it answers all of it.
	Missing string
}

// addBackends plans the backends, one namespace a site.
func (l *Layout) addBackends() error {
	for i := range l.Config.Services {
		svc := &l.Config.Services[i]
		for _, pool := range svc.Pools {
			for _, b := range pool.Backends {
				if err := l.addBackend(svc, pool.Site, b.Address); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (l *Layout) addBackend(svc *config.Service, site string, addr netip.AddrPort) error {
	members, err := l.host(site, addr.Addr())
	if err != nil {
		return fmt.Errorf("service %s, site %s: backend %s: %w", svc.Name, site, addr, err)
	}
	if len(members) == 0 {
		return nil // no node of the site runs in this lab
	}
	plan := BackendPlan{Service: svc.Name, Site: site, Address: addr, Members: members, Status: 200}
	plan.satisfy(svc.Check)
	at := slices.IndexFunc(l.Backends, func(b BackendPlan) bool {
		return b.Address == addr && (b.Site == site || !addr.Addr().IsLoopback())
	})
	if at < 0 {
		l.Backends = append(l.Backends, plan)
		return nil
	}
	l.Backends[at].share(plan)
	return nil
}

// host returns the members that carry a backend's address, and gives the
// address to the site's backends if it is nobody's yet.
func (l *Layout) host(site string, a netip.Addr) ([]int, error) {
	var nodes []int
	backends := -1
	for i, m := range l.Members {
		switch {
		case slices.Contains(m.Own, a):
			return []int{i}, nil
		case m.Site == site && m.Role == RoleNode:
			nodes = append(nodes, i)
		case m.Site == site && m.Role == RoleBackends:
			backends = i
		}
	}
	if len(nodes) == 0 || a.IsLoopback() {
		return nodes, nil
	}
	if slices.ContainsFunc(l.Shared, func(s SharedAddr) bool { return s.Addr == a }) {
		return nil, fmt.Errorf("it is also a VIP, which the nodes carry")
	}
	if backends < 0 {
		backends = len(l.Members)
		l.Members = append(l.Members, Member{Name: site + "-be", Role: RoleBackends, Site: site})
	}
	l.Members[backends].Own = append(l.Members[backends].Own, a)
	return []int{backends}, nil
}

// lacks reports whether the lab cannot answer the checks of a service at a site.
func (l *Layout) lacks(service, site string) bool {
	return slices.ContainsFunc(l.Backends, func(b BackendPlan) bool {
		return b.Service == service && b.Site == site && b.Missing != ""
	})
}

// satisfy makes the backend answer a check, and notes what it cannot answer.
func (p *BackendPlan) satisfy(c config.Check) {
	lack := func(what string) {
		if p.Missing == "" {
			p.Missing = what
		}
	}
	switch c.Kind {
	case config.CheckHTTP, config.CheckHTTPS:
		if len(c.HTTP.Status) > 0 && !inRange(c.HTTP.Status, p.Status) {
			p.Status = max(c.HTTP.Status[0].From, 200) // 1xx is no final answer
		}
		if c.HTTP.Body != "" {
			p.Body += c.HTTP.Body + "\n"
		}
		switch {
		case c.HTTP.BodyRegexp != "":
			lack("a body that matches a regular expression")
		case len(c.HTTP.JSON) > 0:
			lack("a JSON body")
		case c.HTTP.Version == 3:
			lack("HTTP/3")
		}
		if c.Kind == config.CheckHTTPS {
			p.TLS = true
			p.Hosts = append(p.Hosts, nonEmpty(c.HTTP.SNI, c.HTTP.Host)...)
		}
	case config.CheckTLS:
		p.TLS = true
		p.Hosts = append(p.Hosts, nonEmpty(c.TLS.SNI)...)
	case config.CheckAll, config.CheckAny, config.CheckAtLeast:
		for _, of := range c.Of {
			p.satisfy(of.Check)
		}
	case config.CheckDNS, config.CheckUDP, config.CheckGRPC:
		lack(string(c.Kind) + " checks")
	case config.CheckExec, config.CheckFile:
		lack(string(c.Kind) + " checks, which are the host's own")
	}
}

// share joins two services' wishes for one address.
func (p *BackendPlan) share(q BackendPlan) {
	if p.Missing == "" {
		p.Missing = q.Missing
	}
	if p.Missing == "" && (p.TLS != q.TLS || p.Status != q.Status) {
		p.Missing = "what service " + q.Service + " wants of the same address"
	}
	p.Body += q.Body
	p.Hosts = append(p.Hosts, q.Hosts...)
}

func inRange(ranges []config.StatusRange, status int) bool {
	return slices.ContainsFunc(ranges, func(r config.StatusRange) bool { return r.From <= status && status <= r.To })
}

func nonEmpty(texts ...string) []string {
	return slices.DeleteFunc(texts, func(s string) bool { return s == "" })
}
