package steer

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// routed is web and db at fra and iad, both with peers, and four prefixes.
func routed() *config.Config {
	db := service(steps(config.PolicyGeo), "fra", "iad")
	db.Name = "db"
	web := service(steps(config.PolicyGeo), "fra", "iad")
	cfg := fleet(db, web)
	cfg.BGP = config.BGP{
		ASN: 64500,
		Prefixes: []config.Prefix{
			{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Requires: []string{"db", "web"}},
			{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Requires: []string{"web"}, Attributes: config.Attributes{Communities: []config.Community{{High: 64500, Low: 100}, {High: 65535, Low: 0}}}},
			{Prefix: netip.MustParsePrefix("192.0.2.0/25"), Requires: []string{"web"}, Sites: []string{"iad"}},
			{Prefix: netip.MustParsePrefix("2001:db8::/32"), Sites: []string{"fra", "iad"}},
		},
		Peers: []config.Peer{{Site: "fra"}, {Site: "iad"}},
	}
	return cfg
}

func routesText(p *Plan) string {
	var parts []string
	for _, r := range p.Routes {
		text := fmt.Sprintf("%s %s", r.Prefix, r.Why)
		if r.Blame != "" {
			text += " (" + r.Blame + ")"
		}
		if r.Announce != (r.Why == ReasonNone) {
			text += fmt.Sprintf(" BUT Announce=%v", r.Announce)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "\n")
}

func TestRoutes(t *testing.T) {
	none, unknown := health.Verdict{}, health.Verdict{Status: health.StatusUnknown}
	restored := up()
	restored.Restored, restored.Why = true, health.WhyRestored
	web := func(a, b health.Verdict) map[string]health.Verdict {
		return map[string]health.Verdict{"web/fra/backend/10.0.2.1:8080": a, "web/fra/backend/10.0.2.2:8080": b}
	}
	const rest = "\n192.0.2.0/25 not announced from this site\n%s\n2001:db8::/32 in use"
	all := func(why string) string {
		return "192.0.2.0/24 " + why + fmt.Sprintf(rest, "203.0.113.0/24 "+why)
	}
	for _, c := range []struct {
		name     string
		verdicts map[string]health.Verdict
		assume   []string
		want     string
	}{
		{"all up", nil, nil, all("in use")},
		{"one up is enough", web(down(0), up()), nil, all("in use")},
		{"all down", poolDown("fra"), nil, all("all backends down (web)")},
		{"never measured", web(none, none), nil, all("not measured up yet (web)")},
		{"undecided", web(unknown, unknown), nil, all("not measured up yet (web)")},
		{"restored only", web(restored, restored), nil, all("not measured up yet (web)")},
		{"restored and down", web(restored, down(0)), nil, all("not measured up yet (web)")},
		{"restored and measured", web(restored, up()), nil, all("in use")},
		{"the VIP is unreachable from the others", map[string]health.Verdict{"web/fra/vip/198.51.100.2:8080": down(0)}, nil, all("in use")},
		{"the other site is down", poolDown("iad"), nil, all("in use")},
		{"everything is down: fail-open is for answers, not for routes", poolDown("fra", "iad"), nil, all("all backends down (web)")},
		{"backend assumed down", nil, []string{"10.0.2.1:8080"}, all("in use")},
		{"the other site assumed down", nil, []string{"iad"}, all("in use")},
		{
			"db down",
			map[string]health.Verdict{"db/fra/backend/10.0.2.1:8080": down(0), "db/fra/backend/10.0.2.2:8080": down(0)},
			nil,
			"192.0.2.0/24 in use" + fmt.Sprintf(rest, "203.0.113.0/24 all backends down (db)"),
		},
		{"site assumed down", nil, []string{"fra"}, strings.Join([]string{
			"192.0.2.0/24 assumed down", "192.0.2.0/25 not announced from this site", "203.0.113.0/24 assumed down", "2001:db8::/32 assumed down",
		}, "\n")},
		{"pool assumed down", nil, []string{"10.0.2.1:8080", "10.0.2.2:8080"}, strings.Join([]string{
			"192.0.2.0/24 assumed down (web)", "192.0.2.0/25 not announced from this site", "203.0.113.0/24 assumed down (db)", "2001:db8::/32 in use",
		}, "\n")},
	} {
		t.Run(c.name, func(t *testing.T) {
			topology := compile(t, routed(), "fra1")
			p := Decide(topology, view(t, topology, c.verdicts), Facts{Ready: true, AssumeDown: c.assume}, nil)
			if diff := cmp.Diff(c.want, routesText(p)); diff != "" {
				t.Errorf("routes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRoutesOfOthers(t *testing.T) {
	cfg := routed()
	cfg.BGP.Prefixes = append(cfg.BGP.Prefixes, config.Prefix{Prefix: netip.MustParsePrefix("198.18.0.0/15"), Requires: []string{"cdn"}})
	cdn := service(steps(config.PolicyGeo), "iad")
	cdn.Name = "cdn"
	cfg.Services = append(cfg.Services, cdn)
	for _, c := range []struct {
		name, node string
		ready      bool
		want       string
	}{
		{"not ready", "fra1", false, "192.0.2.0/24 listeners not open\n192.0.2.0/25 not announced from this site\n" +
			"198.18.0.0/15 listeners not open\n203.0.113.0/24 listeners not open\n2001:db8::/32 listeners not open"},
		{"a service that is not here", "fra1", true, "192.0.2.0/24 in use\n192.0.2.0/25 not announced from this site\n" +
			"198.18.0.0/15 no backends at this site (cdn)\n203.0.113.0/24 in use\n2001:db8::/32 in use"},
		{"the allowed site", "iad1", true, "192.0.2.0/24 in use\n192.0.2.0/25 in use\n198.18.0.0/15 in use\n203.0.113.0/24 in use\n2001:db8::/32 in use"},
		{"no peers", "sin1", true, "192.0.2.0/24 no BGP peers at this site\n192.0.2.0/25 not announced from this site\n" +
			"198.18.0.0/15 no BGP peers at this site\n203.0.113.0/24 no BGP peers at this site\n2001:db8::/32 not announced from this site"},
		{"no node", "", true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			topology := compile(t, cfg, c.node)
			p := Decide(topology, view(t, topology, nil), Facts{Ready: c.ready}, nil)
			if diff := cmp.Diff(c.want, routesText(p)); diff != "" {
				t.Errorf("routes (-want +got):\n%s", diff)
			}
			if c.node == "" && p.Routes != nil {
				t.Errorf("routes without a node: %v", p.Routes)
			}
		})
	}
}

func TestCommunities(t *testing.T) {
	topology := compile(t, routed(), "fra1")
	p := Decide(topology, nil, Facts{}, nil)
	if diff := cmp.Diff([]uint32{64500<<16 | 100, 65535 << 16}, p.Routes[0].Communities); diff != "" {
		t.Errorf("communities (-want +got):\n%s", diff)
	}
}

// Once announced, a prefix stands until something it requires is measured
// down: silence and undecided verdicts withdraw nothing.
func TestRoutesStand(t *testing.T) {
	topology := compile(t, routed(), "fra1")
	undecided := make(map[string]health.Verdict)
	for name := range poolDown("fra") {
		undecided[name] = health.Verdict{Status: health.StatusUnknown}
	}
	announced := func(p *Plan) bool { return p.route(netip.MustParsePrefix("192.0.2.0/24")).Announce }
	plan := Decide(topology, view(t, topology, undecided), Facts{Ready: true}, nil)
	if announced(plan) {
		t.Fatal("announced without evidence")
	}
	plan = Decide(topology, view(t, topology, nil), Facts{Ready: true}, plan)
	if !announced(plan) {
		t.Fatal("not announced although measured up")
	}
	for i, v := range []*health.View{view(t, topology, undecided), nil, {}, view(t, topology, merge(undecided, map[string]health.Verdict{
		"web/fra/backend/10.0.2.1:8080": down(0),
	}))} {
		if plan = Decide(topology, v, Facts{Ready: true}, plan); !announced(plan) {
			t.Errorf("silence %d withdrew the route: %s", i, routesText(plan))
		}
	}
	// A reload makes a new topology, in which nothing is measured yet.
	reloaded := compile(t, routed(), "fra1")
	if plan = Decide(reloaded, nil, Facts{Ready: true}, plan); !announced(plan) {
		t.Errorf("the reload withdrew the route: %s", routesText(plan))
	}
	if plan = Decide(reloaded, view(t, reloaded, poolDown("fra")), Facts{Ready: true}, plan); announced(plan) {
		t.Error("announced although all backends are down")
	}
	if plan = Decide(reloaded, view(t, reloaded, undecided), Facts{Ready: true}, plan); announced(plan) {
		t.Error("announced again without evidence")
	}
	plan = Decide(reloaded, view(t, reloaded, nil), Facts{Ready: true}, plan)
	if plan = Decide(reloaded, view(t, reloaded, nil), Facts{}, plan); announced(plan) {
		t.Error("announced although the listeners are closed")
	}
}

// A node that does not reach the backends which the others of its site do stays
// out of the way; alone in what it sees, its view changes nothing else.
func TestRouteOfANodeThatReachesNothing(t *testing.T) {
	topology := compile(t, routed(), "fra1")
	all := view(t, topology, nil)
	own := func(s health.Status) []health.Status {
		out := make([]health.Status, len(topology.Layout.Targets))
		for i, target := range topology.Layout.Targets {
			if target.Service == "web" && target.Site == "fra" && target.Kind == health.KindBackend {
				out[i] = s
			}
		}
		return out
	}
	for _, c := range []struct {
		name string
		own  []health.Status
		want Reason
	}{
		{"not known", nil, ReasonNone},
		{"of another layout", []health.Status{health.StatusDown}, ReasonNone},
		{"reaches them", own(health.StatusUp), ReasonNone},
		{"undecided", own(health.StatusUnknown), ReasonNone},
		{"reaches none", own(health.StatusDown), ReasonUnreachedHere},
	} {
		p := Decide(topology, all, Facts{Ready: true, Own: c.own}, nil)
		if got := p.Routes[0]; got.Why != c.want || got.Announce != (c.want == ReasonNone) {
			t.Errorf("%s: got %s (announce %v), want %s", c.name, got.Why, got.Announce, c.want)
		}
		if got := sitesText(p, 0); got != "fra: in use | iad: in use" {
			t.Errorf("%s: the site suffers: %s", c.name, got)
		}
	}
}
