package steer

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

func TestBreaks(t *testing.T) {
	anycast := service(steps(config.PolicyGeo), "fra", "iad")
	anycast.Name, anycast.VIPs, anycast.Anycast = "any", nil, []netip.Addr{netip.MustParseAddr("192.0.2.200")}
	web := service(steps(config.PolicyGeo), "ams", "fra", "iad")
	web.MinSites = 2
	cfg := fleet(anycast, web)
	cfg.BGP = config.BGP{
		ASN: 1, Peers: []config.Peer{{Site: "fra"}},
		Prefixes: []config.Prefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Requires: []string{"any"}}},
	}
	topology := compile(t, cfg, "fra1")
	const route = "prefix 192.0.2.0/24 would be withdrawn by this node: "
	for _, c := range []struct {
		name     string
		verdicts map[string]health.Verdict
		before   []string
		orders   []string
		want     []string
	}{
		{"nothing", nil, nil, nil, nil},
		{"one of three", nil, nil, []string{"drain pool/web/fra"}, nil},
		{"a backend", nil, nil, []string{"drain backend/web/fra/10.0.2.1:8080"}, nil},
		{"two of three", nil, nil, []string{"drain pool/web/fra", "down pool/web/ams"}, []string{"service web would have 1 fit sites, it needs 2"}},
		{"one, another is dead", poolDown("iad"), nil, []string{"down pool/web/ams"}, []string{"service web would have 1 fit sites, it needs 2"}},
		{"broken before", poolDown("iad", "ams"), nil, []string{"up site/sin"}, nil},
		{"worse than before", poolDown("iad", "ams"), nil, []string{"drain pool/web/fra"}, []string{"service web would have no fit site left, so sites would be answered with against the order"}},
		{"all", nil, nil, []string{"drain service/web"}, []string{"service web would have no fit site left, so sites would be answered with against the order"}},
		{"the site with the route", nil, nil, []string{"drain site/fra"}, []string{route + "drained by order"}},
		{"the prefix", nil, nil, []string{"down prefix/192.0.2.0/24"}, []string{route + "down by order"}},
		{"lifting an order", nil, []string{"drain site/fra", "drain service/web"}, nil, nil},
		{"more of the same", nil, []string{"drain site/fra"}, []string{"drain site/fra"}, nil},
		{"anycast alone", nil, nil, []string{"drain service/any"}, []string{"service any would have 0 fit sites, it needs 1", route + "drained by order"}},
		{"half of anycast alone", nil, nil, []string{"down pool/any/iad"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Decide(topology, view(t, topology, c.verdicts), Facts{Now: now, Ready: true, Overrides: ordered(t, c.before...)}, nil)
			var got []string
			for _, b := range p.Breaks(ordered(t, c.orders...)) {
				got = append(got, b.String())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
