package steer

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; run with -update to accept):\n%s", file, diff)
	}
}

// shop is a config with one of everything that an explanation can show. Its
// only geo data is its networks, so that no golden file depends on a database.
func shop() *config.Config {
	web := everywhere(config.Policy{Kind: config.PolicyGeo}, config.Policy{Kind: config.PolicyNearest})
	web.VIPs[1].Addresses = append(web.VIPs[1].Addresses, vip6("fra"))
	web.Anycast = []netip.Addr{netip.MustParseAddr("192.0.2.200")}
	api := service([]config.Policy{
		{Kind: config.PolicyGeo, Rules: []config.GeoRule{{Where: "network:office", Sites: []string{"sin", "fra"}}, {Where: "US-CA", Sites: []string{"iad"}}}},
		{Kind: config.PolicyFailover, Order: []string{"iad", "ams"}},
		{Kind: config.PolicyWeighted, Weights: []config.SiteWeight{{Site: "fra", Weight: 3}, {Site: "sin", Weight: 1}}},
	}, "ams", "fra", "iad", "sin")
	api.Name = "api"
	shared := service([]config.Policy{{Kind: config.PolicyWeighted, Weights: []config.SiteWeight{{Site: "ams", Weight: 0}, {Site: "fra", Weight: 3}}}}, "ams", "fra", "iad")
	shared.Name = "shared"
	cfg := fleet(api, shared, web)
	cfg.Zones[0].Names = append(cfg.Zones[0].Names,
		config.Name{FQDN: "*.example.com.", Service: "web", TTL: 30 * time.Second},
		config.Name{FQDN: "any.example.com.", Service: "web", TTL: time.Minute, Anycast: true})
	cfg.Networks = []geo.Network{
		{Name: "lab", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16")}, Place: german},
		{Name: "office", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("2001:db8:9::/48")}, Place: american},
	}
	cfg.BGP = config.BGP{
		ASN: 64500, Peers: []config.Peer{{Site: "fra"}},
		Prefixes: []config.Prefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Requires: []string{"web"}, Attributes: config.Attributes{Communities: []config.Community{{High: 64500, Low: 100}}}}},
	}
	return cfg
}

func TestExplainGolden(t *testing.T) {
	addr := netip.MustParseAddr
	cut := map[string]health.Verdict{"web/fra/vip/198.51.100.2:8080": {
		Status: health.StatusDown, Since: now.Add(-3 * time.Minute), Why: health.WhyHeld, Up: 1, Down: 2,
	}}
	partly := map[string]health.Verdict{
		"web/fra/backend/10.0.2.1:8080": {Status: health.StatusUnknown},
		"web/fra/backend/10.0.2.2:8080": down(26 * time.Hour),
	}
	for _, c := range []struct {
		file     string
		q        Question
		verdicts map[string]health.Verdict
		assume   []string
	}{
		{"near", Question{Name: "web.example.com", From: addr("10.8.1.2")}, nil, nil},
		{"backends-down", Question{Name: "WEB.example.com.", From: addr("10.8.1.2"), Prefix: 24}, poolDown("fra"), nil},
		{"vip-down", Question{Name: "web.example.com", Where: "DE"}, cut, nil},
		{"partly", Question{Name: "web.example.com", Where: "DE"}, partly, nil},
		{"fail-open", Question{Name: "web.example.com", Where: "10.8.1.0/24"}, poolDown("ams", "fra", "iad", "sin"), nil},
		{"assumed", Question{Name: "web.example.com", From: addr("10.8.1.2")}, nil, []string{"fra", "10.0.1.1:8080"}},
		{"ipv6", Question{Name: "web.example.com", IPv6: true, From: addr("2001:db8:9::1")}, nil, nil},
		{"ipv6-nodata", Question{Name: "api.example.com", IPv6: true, From: addr("2001:db8:9::1")}, nil, nil},
		{"rules", Question{Name: "api.example.com", Where: "network:office"}, nil, nil},
		{"rules-none-matches", Question{Name: "api.example.com", Where: "continent:SA"}, nil, nil},
		{"weighted", Question{Name: "shared.example.com", From: addr("10.8.1.2")}, nil, nil},
		{"wildcard", Question{Name: "x.y.example.com", From: addr("10.9.1.2")}, nil, nil},
		{"unknown-place", Question{Name: "web.example.com", From: addr("192.0.2.1")}, nil, nil},
		{"anycast", Question{Name: "any.example.com", From: addr("10.8.1.2")}, poolDown("iad"), nil},
		{"anycast-withdrawn", Question{Name: "any.example.com", From: addr("10.8.1.2")}, poolDown("fra"), nil},
		{"anycast-nodata", Question{Name: "any.example.com", IPv6: true}, nil, nil},
	} {
		t.Run(c.file, func(t *testing.T) {
			topology := compile(t, shop(), "fra1")
			p := Decide(topology, view(t, topology, c.verdicts), Facts{Now: now, Ready: true, AssumeDown: c.assume}, nil)
			e, err := Explain(p, c.q)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "explain-"+c.file+".txt", []byte(e.Text()))
		})
	}
}

func TestExplainJSONGolden(t *testing.T) {
	topology := compile(t, shop(), "fra1")
	p := Decide(topology, view(t, topology, poolDown("fra")), Facts{Now: now, Ready: true}, nil)
	e, err := Explain(p, Question{Name: "web.example.com", From: netip.MustParseAddr("10.8.1.2")})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "explain.json", append(text, '\n'))
}

func TestSummaryGolden(t *testing.T) {
	topology := compile(t, shop(), "fra1")
	p := Decide(topology, view(t, topology, poolDown("fra")), Facts{Now: now, Ready: true, AssumeDown: []string{"sin"}}, nil)
	text, err := json.MarshalIndent(p.Summary(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "summary.json", append(text, '\n'))
}

func TestExplainErrors(t *testing.T) {
	topology := compile(t, shop(), "")
	p := AllUp(topology, Facts{Now: now})
	for _, c := range []struct {
		q    Question
		want string
	}{
		{Question{Name: "wev.example.org"}, "explain wev.example.org.: not a steered name; did you mean web.example.com.?"},
		{Question{Name: "nothing-like.it"}, "explain nothing-like.it.: not a steered name"},
		{Question{Name: "web.example.com", Where: "network:offise"}, `explain web.example.com.: place "network:offise": no such network; did you mean "office"?`},
	} {
		_, err := Explain(p, c.q)
		if err == nil || err.Error() != c.want {
			t.Errorf("%+v:\n got %v\nwant %s", c.q, err, c.want)
		}
	}
	if _, err := Explain(p, Question{Name: "web.example.com", Where: "Atlantis"}); err == nil {
		t.Error("Atlantis is a place")
	}
}

// What is explained is what is answered.
func TestExplainAgreesWithPick(t *testing.T) {
	topology := compile(t, shop(), "fra1")
	for _, verdicts := range []map[string]health.Verdict{nil, poolDown("fra"), poolDown("fra", "ams"), poolDown("ams", "fra", "iad", "sin")} {
		p := Decide(topology, view(t, topology, verdicts), Facts{Now: now}, nil)
		for _, text := range []string{"10.8.1.2", "10.9.1.2", "192.0.2.1", "2001:db8:9::1"} {
			for i := range p.Services {
				e, err := Explain(p, Question{Name: p.Topology.Services[i].Config.Name + ".example.com", From: netip.MustParseAddr(text)})
				if err != nil {
					t.Fatal(err)
				}
				class, scope := topology.Locate(netip.MustParseAddr(text))
				picked := p.Topology.SiteName(i, p.Pick(i, class, false, 0))
				var chosen []string
				for _, s := range e.Sites {
					if s.Chosen {
						chosen = append(chosen, s.Site)
					}
				}
				if len(chosen) == 0 || chosen[0] != picked {
					t.Errorf("%s from %s: explained %v, picked %s", e.Name, text, chosen, picked)
				}
				if topology.Services[i].Placed && e.Scope != scope {
					t.Errorf("%s from %s: scope %d, want %d", e.Name, text, e.Scope, scope)
				}
			}
		}
	}
}
