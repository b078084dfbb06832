package steer

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// now is the time of every decision in these tests.
var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// sites are the fleet of most tests, sorted by name.
func sites() []config.Site {
	site := func(name, country, continent string, lat, lon float64, nodes ...string) config.Site {
		s := config.Site{Name: name, Location: geo.Location{
			Text: name, Point: geo.Point{Lat: lat, Lon: lon}, Country: country, Continent: continent,
		}}
		for i, n := range nodes {
			s.Nodes = append(s.Nodes, config.Node{Name: n, Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})})
		}
		return s
	}
	return []config.Site{
		site("ams", "NL", "EU", 52.31, 4.76, "ams1"),
		site("fra", "DE", "EU", 50.03, 8.57, "fra1", "fra2"),
		site("iad", "US", "NA", 38.94, -77.46, "iad1"),
		site("sin", "SG", "AS", 1.35, 103.99, "sin1"),
	}
}

// octet gives each site of the fixture its own part of every address.
func octet(site string) byte { return map[string]byte{"ams": 1, "fra": 2, "iad": 3, "sin": 4}[site] }

// vip4, vip6 and backend are the addresses of the first service at a site.
func vip4(site string) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, octet(site)}) }

func vip6(site string) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: octet(site)})
}

func backend(site string, n byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, octet(site), n}), 8080)
}

// service has two backends and an IPv4 VIP at each of the sites.
func service(policy []config.Policy, at ...string) config.Service {
	s := config.Service{
		Name: "web", Policy: policy,
		Check: config.Check{Kind: config.CheckHTTP, HTTP: config.HTTPCheck{Method: "GET", Path: "/healthz"}},
	}
	for _, site := range at {
		s.Pools = append(s.Pools, config.Pool{Site: site, Backends: []config.Backend{
			{Address: backend(site, 1), Weight: 1}, {Address: backend(site, 2), Weight: 1},
		}})
		s.VIPs = append(s.VIPs, config.VIP{Site: site, Addresses: []netip.Addr{vip4(site)}})
	}
	return s
}

// everywhere is service at all four sites.
func everywhere(policy ...config.Policy) config.Service {
	return service(policy, "ams", "fra", "iad", "sin")
}

func steps(kinds ...config.PolicyKind) []config.Policy {
	var policy []config.Policy
	for _, k := range kinds {
		policy = append(policy, config.Policy{Kind: k})
	}
	return policy
}

// fleet is a valid config around the services.
func fleet(services ...config.Service) *config.Config {
	cfg := &config.Config{Hash: 0x1234, Sites: sites(), Services: services}
	zone := config.Zone{Name: "example.com."}
	for _, s := range services {
		zone.Names = append(zone.Names, config.Name{
			FQDN: s.Name + ".example.com.", Service: s.Name, TTL: 30 * time.Second,
		})
	}
	cfg.Zones = []config.Zone{zone}
	return cfg
}

func compile(t testing.TB, cfg *config.Config, self string) *Topology {
	t.Helper()
	topology, err := Compile(cfg, nil, self)
	if err != nil {
		t.Fatal(err)
	}
	return topology
}

// view makes verdicts: everything up but the targets whose names ("web/fra/backend/10.0.2.1:8080") are given.
func view(t testing.TB, topology *Topology, verdicts map[string]health.Verdict) *health.View {
	t.Helper()
	v := topology.allUp()
	for i := range v.Verdicts {
		v.Verdicts[i].Why = health.WhyProbes
	}
	names := make(map[string]int)
	for i, target := range topology.Layout.Targets {
		names[target.String()] = i
	}
	for name, verdict := range verdicts {
		i, ok := names[name]
		if !ok {
			t.Fatalf("no target %q in %v", name, topology.Layout.Targets)
		}
		v.Verdicts[i] = verdict
	}
	v.At = now
	return v
}

// poolDown is both backends of web down at the sites.
func poolDown(at ...string) map[string]health.Verdict {
	m := make(map[string]health.Verdict)
	for _, site := range at {
		for n := byte(1); n <= 2; n++ {
			m[fmt.Sprintf("web/%s/backend/%s", site, backend(site, n))] = down(12 * time.Second)
		}
	}
	return m
}

func down(ago time.Duration) health.Verdict {
	return health.Verdict{Status: health.StatusDown, Since: now.Add(-ago), Why: health.WhyProbes, Down: 2}
}

func up() health.Verdict {
	return health.Verdict{Status: health.StatusUp, Why: health.WhyProbes, Up: 2}
}

// names turns positions of web into the names of sites.
func names(t *Topology, positions ...uint16) []string {
	var list []string
	for _, p := range positions {
		list = append(list, t.SiteName(0, int(p)))
	}
	return list
}

// german, dutch, … are places as the geo data gives them.
var (
	german    = geo.Place{Country: "DE", Continent: "EU", Point: geo.Point{Lat: 50.85, Lon: 9.75}}
	french    = geo.Place{Country: "FR", Continent: "EU", Point: geo.Point{Lat: 47.6, Lon: 2.5}}
	brazilian = geo.Place{Country: "BR", Continent: "SA", Point: geo.Point{Lat: -16.9, Lon: -45.7}}
	american  = geo.Place{Country: "US", Continent: "NA", Point: geo.Point{Lat: 37.27, Lon: -93.1}}
	nowhere   = geo.Place{}
)
