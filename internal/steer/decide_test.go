package steer

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// sitesText writes one service's sites as "ams: in use | fra: all backends down".
func sitesText(p *Plan, service int) string {
	var parts []string
	for i := range p.Services[service].Sites {
		s := &p.Services[service].Sites[i]
		parts = append(parts, fmt.Sprintf("%s: %s", p.Topology.SiteName(service, i), s.Why))
		if in := s.Why.Keeps(); in != s.Eligible {
			parts = append(parts, fmt.Sprintf("BUT Eligible=%v", s.Eligible))
		}
	}
	return strings.Join(parts, " | ")
}

// active writes which backends of web take connections, by site: "fra +-".
func active(p *Plan) string {
	var parts []string
	for i, s := range p.Services[0].Sites {
		text := p.Topology.SiteName(0, i) + " "
		for _, b := range s.Backends {
			text += map[bool]string{true: "+", false: "-"}[b.Active]
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}

func merge(all ...map[string]health.Verdict) map[string]health.Verdict {
	m := make(map[string]health.Verdict)
	for _, a := range all {
		maps.Copy(m, a)
	}
	return m
}

func TestDecide(t *testing.T) {
	one := map[string]health.Verdict{"web/fra/backend/10.0.2.1:8080": down(0)}
	vip := map[string]health.Verdict{"web/fra/vip/198.51.100.2:8080": down(0)}
	unknown := map[string]health.Verdict{
		"web/fra/backend/10.0.2.1:8080": {}, "web/fra/backend/10.0.2.2:8080": {Status: health.StatusUnknown},
	}
	restored := maps.Clone(poolDown("fra"))
	for k, v := range restored {
		v.Restored, v.Why = true, health.WhyRestored
		restored[k] = v
	}
	for _, c := range []struct {
		name     string
		verdicts map[string]health.Verdict
		assume   []string
		want     string
		active   string
		failOpen bool
		degraded bool
	}{
		{"all up", nil, nil, "fra: in use | iad: in use", "fra ++ iad ++", false, false},
		{"one backend down", one, nil, "fra: in use | iad: in use", "fra -+ iad ++", false, false},
		{"pool down", poolDown("fra"), nil, "fra: all backends down | iad: in use", "fra -- iad ++", false, true},
		{"unknown yields to what is measured up", unknown, nil, "fra: not measured up yet | iad: in use", "fra ++ iad ++", false, true},
		{"unknown is eligible where nothing is measured", merge(unknown, poolDown("iad")), nil, "fra: in use | iad: all backends down", "fra ++ iad --", false, true},
		{
			"half unknown, half down", merge(one, map[string]health.Verdict{"web/fra/backend/10.0.2.2:8080": {}}), nil,
			"fra: not measured up yet | iad: in use", "fra -+ iad ++", false, true,
		},
		{"a restored down is down", restored, nil, "fra: all backends down | iad: in use", "fra -- iad ++", false, true},
		{"VIP down", vip, nil, "fra: VIP unreachable from the other sites | iad: in use", "fra ++ iad ++", false, true},
		{
			"VIP and pool down", merge(vip, poolDown("fra")), nil,
			"fra: all backends down | iad: in use", "fra -- iad ++", false, true,
		},
		{"assumed site", nil, []string{"fra"}, "fra: assumed down | iad: in use", "fra -- iad ++", false, true},
		{"assumed backend", nil, []string{"10.0.2.1:8080"}, "fra: in use | iad: in use", "fra -+ iad ++", false, false},
		{"assumed pool", nil, []string{"10.0.2.1:8080", "10.0.2.2:8080"}, "fra: assumed down | iad: in use", "fra -- iad ++", false, true},
		{"pool half down, half assumed", one, []string{"10.0.2.2:8080"}, "fra: assumed down | iad: in use", "fra -- iad ++", false, true},
		{"assumed and down anyway", poolDown("fra"), []string{"10.0.2.2:8080"}, "fra: all backends down | iad: in use", "fra -- iad ++", false, true},
		{"assumed and down anyway, the whole site", poolDown("fra"), []string{"fra"}, "fra: assumed down | iad: in use", "fra -- iad ++", false, true},
		{"assumption that names nothing", nil, []string{"mars", "10.9.9.9:1"}, "fra: in use | iad: in use", "fra ++ iad ++", false, false},
		{
			"all down: fail-open", poolDown("fra", "iad"), nil,
			"fra: nothing else is fit, so it is used all the same (fail-open) | iad: nothing else is fit, so it is used all the same (fail-open)", "fra ++ iad ++", true, true,
		},
		{
			"all down for different reasons", merge(vip, poolDown("iad")), nil,
			"fra: nothing else is fit, so it is used all the same (fail-open) | iad: nothing else is fit, so it is used all the same (fail-open)", "fra ++ iad ++", true, true,
		},
		{
			"all assumed down", nil,
			[]string{"fra", "iad"},
			"fra: nothing else is fit, so it is used all the same (fail-open) | iad: nothing else is fit, so it is used all the same (fail-open)", "fra ++ iad ++", true, true,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			topology := compile(t, fleet(service(steps(config.PolicyGeo), "fra", "iad")), "")
			p := Decide(topology, view(t, topology, c.verdicts), Facts{Now: now, AssumeDown: c.assume}, nil)
			if got := sitesText(p, 0); got != c.want {
				t.Errorf("sites:\n got %s\nwant %s", got, c.want)
			}
			if got := active(p); got != c.active {
				t.Errorf("active backends: got %s, want %s", got, c.active)
			}
			if p.Services[0].FailOpen != c.failOpen || p.Services[0].Degraded != c.degraded {
				t.Errorf("FailOpen %v, Degraded %v, want %v, %v", p.Services[0].FailOpen, p.Services[0].Degraded, c.failOpen, c.degraded)
			}
			wantTTL := map[bool]uint32{false: 30, true: 15}[c.degraded]
			if got := p.TTL(&topology.Config.Zones[0].Names[0]); got != wantTTL {
				t.Errorf("TTL %d, want %d", got, wantTTL)
			}
		})
	}
}

// A site without a VIP is no candidate, and fail-open does not make it one.
func TestNoAddress(t *testing.T) {
	s := service(steps(config.PolicyGeo), "fra", "iad", "sin")
	s.VIPs = s.VIPs[:2]
	topology := compile(t, fleet(s), "")
	p := Decide(topology, view(t, topology, nil), Facts{}, nil)
	if got, want := sitesText(p, 0), "fra: in use | iad: in use | sin: no address of this family"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if p.Services[0].Degraded {
		t.Error("a site without an address counts as out for its health")
	}
	p = Decide(topology, view(t, topology, poolDown("fra", "iad", "sin")), Facts{}, nil)
	want := "fra: nothing else is fit, so it is used all the same (fail-open) | iad: nothing else is fit, so it is used all the same (fail-open) | sin: no address of this family"
	if got := sitesText(p, 0); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := active(p), "fra ++ iad ++ sin --"; got != want {
		t.Errorf("active: %s, want %s", got, want)
	}
}

// A site that has a VIP and no pool of ours is judged by the VIP, and can be
// assumed down, too.
func TestSiteWithoutPool(t *testing.T) {
	s := service(steps(config.PolicyGeo), "fra", "iad")
	s.Pools, s.Check.VIPPort = s.Pools[:1], 443
	topology := compile(t, fleet(s), "")
	for _, c := range []struct {
		name     string
		verdicts map[string]health.Verdict
		assume   []string
		want     string
	}{
		{"up", nil, nil, "fra: in use | iad: in use"},
		{"VIP down", map[string]health.Verdict{"web/iad/vip/198.51.100.3:443": down(0)}, nil, "fra: in use | iad: VIP unreachable from the other sites"},
		{"assumed down", nil, []string{"iad"}, "fra: in use | iad: assumed down"},
	} {
		p := Decide(topology, view(t, topology, c.verdicts), Facts{AssumeDown: c.assume}, nil)
		if got := sitesText(p, 0); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// No view at all: nothing is known, so everything may be answered.
func TestDecideWithoutView(t *testing.T) {
	topology := compile(t, fleet(service(steps(config.PolicyGeo), "fra", "iad")), "")
	p := Decide(topology, nil, Facts{}, nil)
	if got, want := sitesText(p, 0), "fra: in use | iad: in use"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A view of an older layout is read target by target.
func TestDecideWithAnotherLayout(t *testing.T) {
	old := compile(t, fleet(service(steps(config.PolicyGeo), "ams", "fra")), "")
	topology := compile(t, fleet(service(steps(config.PolicyGeo), "fra", "iad")), "")
	p := Decide(topology, view(t, old, poolDown("fra")), Facts{}, nil)
	if got, want := sitesText(p, 0), "fra: all backends down | iad: in use"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// dual is a service with IPv4 at fra and iad, IPv6 at fra only, and two IPv4 VIPs at fra.
func dual() config.Service {
	s := service(steps(config.PolicyGeo), "fra", "iad")
	s.VIPs[0].Addresses = []netip.Addr{vip4("fra"), netip.MustParseAddr("198.51.100.22"), vip6("fra")}
	return s
}

// Each family is answered, and fails open, on its own.
func TestFamilies(t *testing.T) {
	v4a, v4b, v6 := "web/fra/vip/198.51.100.2:8080", "web/fra/vip/198.51.100.22:8080", "web/fra/vip/[2001:db8::2]:8080"
	type want struct {
		fra4, fra6, iad4 string
		failOpen         bool
	}
	for _, c := range []struct {
		name     string
		verdicts map[string]health.Verdict
		want     want
	}{
		{"all up", nil, want{"198.51.100.2 198.51.100.22 in use", "2001:db8::2 in use", "198.51.100.3 in use", false}},
		{
			"one of two VIPs down is left out",
			map[string]health.Verdict{v4a: down(0)},
			want{"198.51.100.22 in use", "2001:db8::2 in use", "198.51.100.3 in use", false},
		},
		{
			"IPv4 unreachable, IPv6 not",
			map[string]health.Verdict{v4a: down(0), v4b: down(0)},
			want{"VIP unreachable from the other sites", "2001:db8::2 in use", "198.51.100.3 in use", false},
		},
		{
			"the only IPv6 fails open alone",
			map[string]health.Verdict{v6: down(0)},
			want{"198.51.100.2 198.51.100.22 in use", "2001:db8::2 nothing else is fit, so it is used all the same (fail-open)", "198.51.100.3 in use", true},
		},
		{
			"pool down: IPv6 fails open, IPv4 moves", poolDown("fra"),
			want{"all backends down", "2001:db8::2 nothing else is fit, so it is used all the same (fail-open)", "198.51.100.3 in use", true},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			topology := compile(t, fleet(dual()), "")
			p := Decide(topology, view(t, topology, c.verdicts), Facts{}, nil)
			text := func(site int, ipv6 bool) string {
				var parts []string
				for _, a := range p.Addresses(0, site, ipv6) {
					parts = append(parts, a.String())
				}
				return strings.Join(append(parts, p.Services[0].Sites[site].answer(ipv6).Why.String()), " ")
			}
			got := want{text(0, false), text(0, true), text(1, false), p.Services[0].FailOpen}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(want{})); diff != "" {
				t.Errorf("answers (-want +got):\n%s", diff)
			}
			if got, want := p.Services[0].Sites[1].V6.Why, ReasonNoAddress; got != want {
				t.Errorf("iad IPv6: %s, want %s", got, want)
			}
			if got := p.Pick(0, 0, true, 0); got != 0 {
				t.Errorf("Pick IPv6 = %d, want fra", got)
			}
		})
	}
}

// Where the pool is used again by fail-open, its backends are too.
func TestFailOpenOfOneFamilyUsesItsPools(t *testing.T) {
	topology := compile(t, fleet(dual()), "")
	p := Decide(topology, view(t, topology, poolDown("fra")), Facts{}, nil)
	if got, want := active(p), "fra ++ iad ++"; got != want {
		t.Errorf("active: %s, want %s", got, want)
	}
	if got := p.Services[0].Sites[0].Backends[0].Why; got != ReasonFailOpen {
		t.Errorf("why: %s", got)
	}
}

func TestTTL(t *testing.T) {
	topology := compile(t, fleet(service(steps(config.PolicyGeo), "fra", "iad")), "")
	healthy := Decide(topology, view(t, topology, nil), Facts{}, nil)
	degraded := Decide(topology, view(t, topology, poolDown("fra")), Facts{}, nil)
	for _, c := range []struct {
		ttl           time.Duration
		anycast       bool
		healthy, half uint32
	}{
		{30 * time.Second, false, 30, 15},
		{time.Second, false, 1, 1},
		{3 * time.Second, false, 3, 1},
		{0, false, 1, 1},
		{30 * time.Second, true, 30, 30},
		{24 * time.Hour, false, 86400, 43200},
	} {
		name := &config.Name{Service: "web", TTL: c.ttl, Anycast: c.anycast}
		if got := healthy.TTL(name); got != c.healthy {
			t.Errorf("%v healthy: %d, want %d", c.ttl, got, c.healthy)
		}
		if got := degraded.TTL(name); got != c.half {
			t.Errorf("%v degraded: %d, want %d", c.ttl, got, c.half)
		}
	}
}

func TestPool(t *testing.T) {
	s := service(steps(config.PolicyGeo), "fra", "iad")
	for node, want := range map[string]string{"fra1": "fra", "iad1": "iad", "sin1": "", "": ""} {
		topology := compile(t, fleet(s), node)
		p := Decide(topology, nil, Facts{}, nil)
		pool, plan, ok := p.Pool(0)
		if ok != (want != "") {
			t.Errorf("%s: Pool ok = %v", node, ok)
			continue
		}
		if ok && (pool.Site != want || len(plan.Backends) != len(pool.Backends)) {
			t.Errorf("%s: pool of %s with %d plans", node, pool.Site, len(plan.Backends))
		}
		if _, _, ok := p.Pool(1); ok {
			t.Errorf("%s: a pool of a service that does not exist", node)
		}
		if _, _, ok := p.Pool(-1); ok {
			t.Errorf("%s: a pool of service -1", node)
		}
	}
}

// What did not change is shared with the previous plan; what did is not.
func TestPlansShareWhatDidNotChange(t *testing.T) {
	other := everywhere(steps(config.PolicyGeo)...)
	other.Name = "api"
	topology := compile(t, fleet(service(steps(config.PolicyGeo), "fra", "iad"), other), "")
	first := Decide(topology, view(t, topology, nil), Facts{}, nil)
	second := Decide(topology, view(t, topology, poolDown("fra")), Facts{}, first)
	if first.Generation != 1 || second.Generation != 2 {
		t.Errorf("generations %d, %d", first.Generation, second.Generation)
	}
	if &first.Services[1].Sites[0] != &second.Services[1].Sites[0] {
		t.Error("an unchanged service was built anew")
	}
	if &first.Services[0].Sites[0] == &second.Services[0].Sites[0] {
		t.Error("a changed service shares its memory")
	}
	if got, want := sitesText(first, 0), "fra: in use | iad: in use"; got != want {
		t.Errorf("the first plan was changed: %s", got)
	}
	third := Decide(topology, view(t, topology, poolDown("fra")), Facts{AssumeDown: []string{"iad"}}, second)
	if !third.Services[0].FailOpen {
		t.Error("a new assumption was not heeded")
	}
}

// The plan keeps nothing of the caller's that may change.
func TestPlanKeepsNoAssumptions(t *testing.T) {
	topology := compile(t, fleet(service(steps(config.PolicyGeo), "fra", "iad")), "")
	assume := []string{"iad", "fra", "iad"}
	p := Decide(topology, nil, Facts{AssumeDown: assume}, nil)
	assume[0], assume[1] = "x", "y"
	if diff := cmp.Diff([]string{"fra", "iad"}, p.Facts.AssumeDown); diff != "" {
		t.Errorf("assumptions (-want +got):\n%s", diff)
	}
}

func TestCheckAssumptions(t *testing.T) {
	topology := compile(t, fleet(service(steps(config.PolicyGeo), "fra", "iad")), "")
	for text, want := range map[string]string{
		"fra": "", "sin": "", "10.0.2.1:8080": "",
		"frb":        `assume "frb" down: neither a site nor the address:port of a backend; did you mean "fra"?`,
		"10.0.2.1:1": `assume "10.0.2.1:1" down: no service has a backend of this address`,
		"elsewhere":  `assume "elsewhere" down: neither a site nor the address:port of a backend; known: ams, fra, iad, sin`,
		"":           `assume "" down: neither a site nor the address:port of a backend; known: ams, fra, iad, sin`,
	} {
		got := ""
		if err := topology.CheckAssumptions([]string{text}); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q:\n got %s\nwant %s", text, got, want)
		}
	}
}
