package steer

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

func TestCompileTargets(t *testing.T) {
	s := service(steps(config.PolicyGeo), "fra", "iad")
	s.VIPs[0].Addresses = []netip.Addr{vip6("fra"), vip4("fra")}
	s.VIPs = append(s.VIPs, config.VIP{Site: "sin", Addresses: []netip.Addr{vip4("sin")}})
	s.Check.VIPPort = 443
	topology := compile(t, fleet(s), "fra1")
	var got []string
	for _, target := range topology.Layout.Targets {
		got = append(got, target.String())
	}
	want := []string{
		"web/fra/backend/10.0.2.1:8080", "web/fra/backend/10.0.2.2:8080",
		"web/fra/vip/198.51.100.2:443", "web/fra/vip/[2001:db8::2]:443",
		"web/iad/backend/10.0.3.1:8080", "web/iad/backend/10.0.3.2:8080", "web/iad/vip/198.51.100.3:443",
		"web/sin/vip/198.51.100.4:443",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("targets (-want +got):\n%s", diff)
	}
	web := &topology.Services[0]
	if !web.HasA || !web.HasAAAA || web.Home != 0 || topology.SelfSite != 1 {
		t.Errorf("HasA %v HasAAAA %v Home %d SelfSite %d", web.HasA, web.HasAAAA, web.Home, topology.SelfSite)
	}
	fra := &web.Sites[0]
	if diff := cmp.Diff([]int{0, 1}, fra.Backends); diff != "" {
		t.Errorf("backends (-want +got):\n%s", diff)
	}
	for _, ipv6 := range []bool{false, true} {
		addrs, targets := fra.addresses(ipv6)
		for i := range addrs {
			if got := topology.Layout.Targets[targets[i]].Addr.Addr(); got != addrs[i] {
				t.Errorf("ipv6=%v: target of %s is %s", ipv6, addrs[i], got)
			}
		}
	}
	if sin := &web.Sites[2]; sin.Pool != nil || len(sin.Backends) != 0 || len(sin.VIPs) != 1 {
		t.Errorf("a site with only a VIP: %+v", sin)
	}
}

// A fleet of one site has nobody who could probe its VIPs from outside.
func TestOneSiteHasNoVIPTargets(t *testing.T) {
	cfg := fleet(service(steps(config.PolicyGeo), "fra"))
	cfg.Sites = cfg.Sites[1:2]
	topology := compile(t, cfg, "")
	for _, target := range topology.Layout.Targets {
		if target.Kind != health.KindBackend {
			t.Errorf("target %s", target)
		}
	}
	if got := AllUp(topology, Facts{}).Addresses(0, 0, false); len(got) != 1 {
		t.Errorf("addresses %v, want the VIP", got)
	}
}

func TestProbes(t *testing.T) {
	topology := compile(t, fleet(service(steps(config.PolicyGeo), "fra", "iad")), "")
	for node, want := range map[string][]string{
		"fra1": {"web/fra/backend/10.0.2.1:8080", "web/fra/backend/10.0.2.2:8080", "web/iad/vip/198.51.100.3:8080"},
		"fra2": {"web/fra/backend/10.0.2.1:8080", "web/fra/backend/10.0.2.2:8080", "web/iad/vip/198.51.100.3:8080"},
		"sin1": {"web/fra/vip/198.51.100.2:8080", "web/iad/vip/198.51.100.3:8080"},
		"mars": nil,
	} {
		var got []string
		for _, p := range topology.Probes(node) {
			got = append(got, p.Target.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("probes of %s (-want +got):\n%s", node, diff)
		}
	}
}

// The VIP is probed as users reach it: port, kind and Host follow the listener.
func TestVIPCheck(t *testing.T) {
	vip := func(port uint16) config.Bind { return config.Bind{Host: "vip", Port: port} }
	web := func(bind config.Bind, routes ...config.Route) config.Listener {
		return config.Listener{Bind: bind, HTTP: &config.HTTPListener{Routes: routes}}
	}
	tcp := func(bind config.Bind, service string) config.Listener {
		return config.Listener{Bind: bind, TCP: &config.TCPListener{Service: service}}
	}
	route := func(host, path, service string) config.Route {
		return config.Route{Host: host, Path: path, Service: service}
	}
	https := config.Check{Kind: config.CheckHTTPS, HTTP: config.HTTPCheck{Path: "/healthz", SNI: "x", Insecure: true}}
	hosted := config.Check{Kind: config.CheckHTTPS, HTTP: config.HTTPCheck{Path: "/healthz", Host: "www.example.com"}}
	plain := config.Check{Kind: config.CheckTCP}
	ported := https
	ported.VIPPort = 9443

	for _, c := range []struct {
		name      string
		check     config.Check
		listeners []config.Listener
		want      string // kind port host
	}{
		{"no listener: the backends' port, own check", https, nil, "https 8080 "},
		{"vip_port alone", ported, nil, "https 9443 "},
		{"tcp listener: its port, own check", hosted, []config.Listener{tcp(vip(5432), "web")}, "https 5432 www.example.com"},
		{"tcp listener of another service", https, []config.Listener{tcp(vip(5432), "db")}, "https 8080 "},
		{"not on the node's own address", https, []config.Listener{tcp(config.Bind{Host: "node", Port: 5432}, "web")}, "https 8080 "},
		{"a listener on every address serves the VIP", https, []config.Listener{tcp(config.Bind{Port: 5432}, "web")}, "https 5432 "},
		{"one on vip comes first", https, []config.Listener{tcp(config.Bind{Port: 5432}, "web"), tcp(vip(5433), "web")}, "https 5433 "},
		{"http listener: plain http, the check's host", hosted, []config.Listener{web(vip(80), route("", "/", "web"))}, "http 80 www.example.com"},
		{"http listener: the route's host", https, []config.Listener{web(vip(80), route("a.example", "/", "web"))}, "http 80 a.example"},
		{"http listener: any host", https, []config.Listener{web(vip(80), route("", "/", "web"))}, "http 80 "},
		{"http listener: a host under the wildcard", https, []config.Listener{web(vip(80), route("*.a.example", "/", "web"))}, "http 80 pharos-check.a.example"},
		{"http listener, tcp check", plain, []config.Listener{web(vip(80), route("a.example", "/", "web"))}, "tcp 80 "},
		{"the check's host is routed elsewhere", hosted, []config.Listener{
			web(vip(80), route("www.example.com", "/", "db"), route("b.example", "/", "web")),
		}, "http 80 b.example"},
		{"the check's path belongs to another service", https, []config.Listener{
			web(vip(80), route("a.example", "/", "web"), route("a.example", "/healthz", "db")),
		}, "tcp 80 "},
		{"the route does not cover the check's path", https, []config.Listener{web(vip(80), route("a.example", "/api", "web"))}, "tcp 80 "},
		{"the second route does", https, []config.Listener{
			web(vip(80), route("a.example", "/api", "web"), route("b.example", "/healthz/", "web")),
		}, "http 80 b.example"},
		{"whole segments only", https, []config.Listener{
			web(vip(80), route("a.example", "/", "web"), route("a.example", "/health", "db")),
		}, "http 80 a.example"},
		{"a route with conditions might take the probe", https, []config.Listener{
			web(vip(80), route("a.example", "/", "web"), config.Route{Host: "a.example", Exact: "/healthz", Methods: []string{"GET"}, Service: "db"}),
		}, "tcp 80 "},
		{"a redirect of other paths does not", https, []config.Listener{
			web(vip(80), route("a.example", "/", "web"), config.Route{Host: "a.example", Path: "/old", Redirect: &config.Redirect{}}),
		}, "http 80 a.example"},
		{"vip_port chooses the listener", ported, []config.Listener{
			web(vip(80), route("a.example", "/", "web")), web(vip(9443), route("b.example", "/", "web")),
		}, "http 9443 b.example"},
		{"vip_port at no listener", ported, []config.Listener{web(vip(80), route("a.example", "/", "web"))}, "https 9443 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := service(steps(config.PolicyGeo), "fra", "iad")
			s.Check = c.check
			cfg := fleet(s)
			cfg.Listeners = c.listeners
			for _, p := range compile(t, cfg, "").Probes("sin1") {
				got := string(p.Check.Kind) + " " + strings.TrimPrefix(p.Target.Addr.String(), p.Target.Addr.Addr().String()+":") + " " + p.Check.HTTP.Host
				if got != c.want || p.Host != p.Check.HTTP.Host {
					t.Errorf("%s: got %q (host %q), want %q", p.Target, got, p.Host, c.want)
				}
				if p.Check.Kind == config.CheckHTTP && (p.Check.HTTP.SNI != "" || p.Check.HTTP.Insecure) {
					t.Errorf("%s: TLS settings in a plain check: %+v", p.Target, p.Check.HTTP)
				}
			}
			for _, p := range compile(t, cfg, "").Probes("fra1")[:2] {
				if p.Check.Kind != c.check.Kind || p.Host != c.check.HTTP.Host {
					t.Errorf("%s: got %+v, want the service's own check", p.Target, p.Check)
				}
			}
		})
	}
}

func TestCompileErrors(t *testing.T) {
	unknownPort := service(steps(config.PolicyGeo), "fra", "iad")
	unknownPort.Pools[0].Backends[0].Address = netip.MustParseAddrPort("10.0.2.1:8081")
	badSite := service(steps(config.PolicyGeo), "mars")
	badName := fleet(everywhere(steps(config.PolicyGeo)...))
	badName.Zones[0].Names[0].Service = "db"
	badRoute := fleet(everywhere(steps(config.PolicyGeo)...))
	badRoute.BGP = config.BGP{ASN: 1, Prefixes: []config.Prefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Requires: []string{"db"}}}}
	for _, c := range []struct {
		name string
		cfg  *config.Config
		self string
		want string
	}{
		{
			"node", fleet(everywhere(steps(config.PolicyGeo)...)), "fra9",
			`node "fra9" is not in the config; its nodes are ams1, fra1, fra2, iad1, sin1`,
		},
		{"port of the VIP", fleet(unknownPort), "", "services.web.check: the other sites cannot tell at which port to probe the VIP of fra: " +
			"no listener serves the service and its backends there do not share a port; set vip_port"},
		{"site", fleet(badSite), "", `services.web: no site "mars"`},
		{"name", badName, "", `zones.example.com.: name web.example.com.: no service "db"`},
		{"route", badRoute, "", `bgp.prefixes: 192.0.2.0/24 requires "db": no such service`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Compile(c.cfg, nil, c.self)
			if err == nil || err.Error() != "compile topology: "+c.want {
				t.Errorf("got  %v\nwant compile topology: %s", err, c.want)
			}
		})
	}
}

func TestName(t *testing.T) {
	cfg := fleet(everywhere(steps(config.PolicyGeo)...))
	cfg.Zones[0].Names = nil
	for _, n := range []string{"*.example.com.", "a.example.com.", "x.y.b.example.com.", "*.c.example.com."} {
		cfg.Zones[0].Names = append(cfg.Zones[0].Names, config.Name{FQDN: n, Service: "web"})
	}
	topology := compile(t, cfg, "")
	for query, want := range map[string]string{
		"a.example.com.":     "a.example.com.",
		"www.example.com.":   "*.example.com.",
		"q.www.example.com.": "*.example.com.",
		"q.a.example.com.":   "", // a.example.com. exists and has no wildcard
		"q.b.example.com.":   "", // b.example.com. is an empty non-terminal
		"y.b.example.com.":   "",
		"q.c.example.com.":   "*.c.example.com.",
		"c.example.com.":     "",
		"*.example.com.":     "*.example.com.",
		"example.com.":       "",
		"www.example.org.":   "",
		"com.":               "",
		".":                  "",
		"":                   "",
	} {
		got, ok := topology.Name(query)
		if ok != (want != "") || (ok && got.FQDN != want) {
			t.Errorf("Name(%q) = %v, %v, want %q", query, got, ok, want)
		}
	}
}

func TestLocateWithoutData(t *testing.T) {
	topology := compile(t, fleet(everywhere(steps(config.PolicyGeo)...)), "")
	if class, scope := topology.Locate(netip.MustParseAddr("46.4.0.1")); class != unknownClass || scope != 0 {
		t.Errorf("Locate = %d, %d, want the unknown class, scope 0", class, scope)
	}
	if i, ok := topology.Service("web"); i != 0 || !ok {
		t.Errorf("Service(web) = %d, %v", i, ok)
	}
}
