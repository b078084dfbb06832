package steer

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// large is a fleet of sites and services; each service has two backends and a
// VIP at perService of the sites, a different choice for each of the profiles.
func large(sites, services, perService, profiles int) *config.Config {
	cfg := &config.Config{}
	for i := range sites {
		cfg.Sites = append(cfg.Sites, config.Site{
			Name: fmt.Sprintf("s%03d", i),
			Location: geo.Location{
				Point:   geo.Point{Lat: float64(i*37%160) - 79.5, Lon: float64(i*73%360) - 179.5},
				Country: [...]string{"DE", "FR", "US", "BR", "SG", "JP"}[i%6], Continent: [...]string{"EU", "EU", "NA", "SA", "AS", "AS"}[i%6],
			},
			Nodes: []config.Node{{Name: fmt.Sprintf("n%03d", i)}},
		})
	}
	zone := config.Zone{Name: "example.com."}
	for i := range services {
		s := config.Service{Name: fmt.Sprintf("svc%05d", i), Policy: steps(config.PolicyGeo, config.PolicyNearest)}
		for k := range perService {
			// One site from each of perService equal parts of the fleet.
			site := k*sites/perService + (i%profiles*2654435761>>(3*k))%(sites/perService)
			name := fmt.Sprintf("s%03d", site)
			ip := [4]byte{10, byte(i >> 8), byte(i), byte(site)}
			s.Pools = append(s.Pools, config.Pool{Site: name, Backends: []config.Backend{
				{Address: netip.AddrPortFrom(netip.AddrFrom4(ip), 80), Weight: 1}, {Address: netip.AddrPortFrom(netip.AddrFrom4(ip), 81), Weight: 1},
			}})
			ip[0] = 11
			s.VIPs = append(s.VIPs, config.VIP{Site: name, Addresses: []netip.Addr{netip.AddrFrom4(ip)}})
		}
		s.Check.VIPPort = 80
		cfg.Services = append(cfg.Services, s)
		zone.Names = append(zone.Names, config.Name{FQDN: s.Name + ".example.com.", Service: s.Name})
	}
	cfg.Zones = []config.Zone{zone}
	return cfg
}

var shapes = []struct{ sites, services, perService, profiles int }{
	{3, 100, 3, 1},
	{200, 10_000, 5, 50},
	{200, 10_000, 5, 10_000},
	{200, 500, 200, 1},
}

func BenchmarkCompile(b *testing.B) {
	db, err := geo.Embedded()
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range shapes {
		cfg := large(s.sites, s.services, s.perService, s.profiles)
		b.Run(fmt.Sprintf("%dsites/%dservices/%deach/%dprofiles", s.sites, s.services, s.perService, s.profiles), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				t, err := Compile(cfg, db, "n000")
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(t.places)), "classes")
				b.ReportMetric(float64(len(t.profiles)), "profiles")
			}
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, s := range shapes {
		topology := compile(b, large(s.sites, s.services, s.perService, s.profiles), "n000")
		all := topology.allUp()
		flipped := topology.allUp()
		flipped.Verdicts[0].Status = health.StatusDown
		name := fmt.Sprintf("%dsites/%dservices/%deach", s.sites, s.services, s.perService)
		b.Run(name+"/full", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Decide(topology, all, Facts{Ready: true}, nil)
			}
		})
		b.Run(name+"/one flip", func(b *testing.B) {
			b.ReportAllocs()
			plan, views := Decide(topology, all, Facts{Ready: true}, nil), [2]*health.View{flipped, all}
			for i := 0; b.Loop(); i++ {
				plan = Decide(topology, views[i%2], Facts{Ready: true}, plan)
			}
		})
		b.Run(name+"/one flip, orders stand", func(b *testing.B) {
			orders := ordered(b, "drain site/s001", "down service/svc00007", "up backend/svc00000/"+topology.Layout.Targets[0].Site+"/"+topology.Layout.Targets[0].Addr.String())
			b.ReportAllocs()
			plan, views := Decide(topology, all, Facts{Ready: true, Overrides: orders}, nil), [2]*health.View{flipped, all}
			for i := 0; b.Loop(); i++ {
				plan = Decide(topology, views[i%2], Facts{Ready: true, Overrides: orders}, plan)
			}
		})
	}
}

func BenchmarkPick(b *testing.B) {
	topology := compile(b, large(200, 10_000, 5, 50), "n000")
	plan := AllUp(topology, Facts{})
	weighted := compile(b, fleet(everywhere(steps(config.PolicyWeighted)...)), "")
	shared := AllUp(weighted, Facts{})
	b.Run("first of 5", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			plan.Pick(i%10_000, 0, false, 0)
		}
	})
	b.Run("weighted among 4", func(b *testing.B) {
		b.ReportAllocs()
		for i := uint32(0); b.Loop(); i++ {
			shared.Pick(0, 0, false, i*2654435761)
		}
	})
}
