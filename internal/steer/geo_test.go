package steer

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
)

// From the embedded country data to the answer: three clients on three
// continents get three sites, each with a scope that holds for all it covers.
func TestEndToEndWithEmbeddedData(t *testing.T) {
	db, err := geo.Embedded()
	if err != nil {
		t.Fatal(err)
	}
	cfg := fleet(service(steps(config.PolicyGeo, config.PolicyNearest), "fra", "iad", "sin"))
	cfg.Networks = []geo.Network{{
		Name: "office", Prefixes: []netip.Prefix{netip.MustParsePrefix("46.4.7.0/24")}, Place: geo.Place{Country: "SG"},
	}}
	topology, err := Compile(cfg, db, "fra1")
	if err != nil {
		t.Fatal(err)
	}
	if !topology.Services[0].Placed {
		t.Error("the answer does not depend on place")
	}
	healthy := Decide(topology, view(t, topology, nil), Facts{Now: now, Ready: true}, nil)
	broken := Decide(topology, view(t, topology, poolDown("fra")), Facts{Now: now, Ready: true}, healthy)
	for _, c := range []struct{ client, want, wantBroken string }{
		{"46.4.0.1", "fra", "iad"},    // Germany
		{"8.8.8.8", "iad", "iad"},     // United States
		{"203.116.0.1", "sin", "sin"}, // Singapore
		{"46.4.7.9", "sin", "sin"},    // the operator's own network within Germany
		{"200.160.2.3", "iad", "iad"}, // Brazil: no site on the continent, so the nearest
		{"2a01:4f8::1", "fra", "iad"}, // Germany
		{"::ffff:8.8.8.8", "iad", "iad"},
	} {
		addr := netip.MustParseAddr(c.client)
		class, scope := topology.Locate(addr)
		if got := topology.SiteName(0, healthy.Pick(0, class, false, 0)); got != c.want {
			t.Errorf("%s gets %s, want %s", c.client, got, c.want)
		}
		if got := topology.SiteName(0, broken.Pick(0, class, false, 0)); got != c.wantBroken {
			t.Errorf("%s gets %s without fra, want %s", c.client, got, c.wantBroken)
		}
		if scope <= 0 || scope > addr.Unmap().BitLen() {
			t.Fatalf("%s: scope %d", c.client, scope)
		}
		block, err := addr.Unmap().Prefix(scope)
		if err != nil {
			t.Fatal(err)
		}
		if other, otherScope := topology.Locate(block.Addr()); other != class || otherScope != scope {
			t.Errorf("%s: the scope %s holds class %d /%d and class %d /%d", c.client, block, class, scope, other, otherScope)
		}
		e, err := Explain(broken, Question{Name: "web.example.com", From: addr})
		if err != nil {
			t.Fatal(err)
		}
		if e.Scope != scope || e.Client.Data == "" || e.Client.Built.IsZero() || e.Client.Country == "" {
			t.Errorf("%s: explained with scope %d, client %+v", c.client, e.Scope, e.Client)
		}
		if len(e.Answer) != 1 || e.Answer[0] != vip4(c.wantBroken) {
			t.Errorf("%s: explained with %v, want the VIP of %s", c.client, e.Answer, c.wantBroken)
		}
	}
	e, err := Explain(broken, Question{Name: "web.example.com", From: netip.MustParseAddr("46.4.0.0"), Prefix: 8})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(e.Text(), "places differ within 46.0.0.0/8") {
		t.Errorf("no warning that the source prefix is too short:\n%s", e.Text())
	}
}

// A service whose sites are in the same order for everybody does not depend on
// place, even with a policy that looks at it.
func TestSameForEverybodyIsNotPlaced(t *testing.T) {
	db, err := geo.Embedded()
	if err != nil {
		t.Fatal(err)
	}
	twins := fleet(service(steps(config.PolicyGeo), "ams", "fra"))
	twins.Sites[0].Location = twins.Sites[1].Location
	for name, cfg := range map[string]*config.Config{
		"one site":                 fleet(service(steps(config.PolicyGeo, config.PolicyNearest), "fra")),
		"two sites of one country": twins,
	} {
		topology, err := Compile(cfg, db, "")
		if err != nil {
			t.Fatal(err)
		}
		if topology.Services[0].Placed {
			t.Errorf("%s: Placed", name)
		}
		if _, scope := topology.Locate(netip.MustParseAddr("46.4.0.1")); scope != 0 {
			t.Errorf("%s: scope %d, want 0", name, scope)
		}
	}
}
