package steer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// drawOrders draws standing orders on the things of a topology.
func drawOrders(t *rapid.T, scopes []health.Scope) []health.Override {
	var list []health.Override
	for _, scope := range rapid.SliceOfNDistinct(rapid.SampledFrom(scopes), 0, 4, rapid.ID).Draw(t, "scopes") {
		list = append(list, health.Override{
			Scope: scope, By: rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "by"),
			Order: rapid.SampledFrom([]health.Order{health.OrderUp, health.OrderDown, health.OrderDrain, health.OrderNone}).Draw(t, "order"),
		})
	}
	slices.SortFunc(list, func(a, b health.Override) int { return a.Scope.Compare(b.Scope) })
	return list
}

// historic is two services at four sites, one with two families and a minimum, and a prefix.
func historic(t *rapid.T) *config.Config {
	web := everywhere(steps(config.PolicyGeo)...)
	web.MinSites = rapid.IntRange(0, 4).Draw(t, "min_sites")
	for i := range web.VIPs {
		if rapid.Bool().Draw(t, "IPv6") {
			web.VIPs[i].Addresses = append(web.VIPs[i].Addresses, vip6(web.VIPs[i].Site))
		}
	}
	api := service(steps(config.PolicyGeo), "ams", "fra", "iad")
	api.Name = "api"
	cfg := fleet(api, web)
	cfg.BGP = config.BGP{
		ASN: 1, Peers: []config.Peer{{Site: "fra"}},
		Prefixes: []config.Prefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Requires: []string{"web"}}},
	}
	return cfg
}

// nextView changes some verdicts of a view, as a judge does, whole sites' VIPs among them.
func nextView(t *rapid.T, topology *Topology, v *health.View, at time.Time) *health.View {
	next := &health.View{Layout: v.Layout, Verdicts: slices.Clone(v.Verdicts), At: at}
	since := at.Add(-time.Duration(rapid.IntRange(-1, 6).Draw(t, "late")) * time.Second)
	set := func(i int, status health.Status) {
		if next.Verdicts[i].Status != status || rapid.Bool().Draw(t, "again") {
			next.Verdicts[i] = health.Verdict{Status: status, Since: since, Restored: rapid.IntRange(0, 9).Draw(t, "restored") == 0}
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "flips") {
		set(rapid.IntRange(0, len(next.Verdicts)-1).Draw(t, "target"),
			health.Status(rapid.IntRange(0, 3).Draw(t, "status")))
	}
	if rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
		for _, site := range drawSites(t, "cut off") {
			for i, target := range topology.Layout.Targets {
				if target.Site == site && target.Kind == health.KindVIP {
					set(i, health.StatusDown)
				}
			}
		}
	}
	return next
}

var sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// What is carried over from plan to plan is what would have been decided afresh, whatever the
// verdicts, orders and clocks did.
func TestPropertyIncremental(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		topology, err := Compile(historic(t), nil, "fra1")
		if err != nil {
			t.Fatal(err)
		}
		topology.routes = nil // they have a past of their own: TestPropertyRoutes
		scopes := append(topology.Scopes(), health.Scope{Kind: health.ScopeSite, Site: "mars"})
		v := topology.allUp()
		facts := Facts{Now: now, Ready: true}
		var plan *Plan
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			facts.Now = facts.Now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 4, 5, 20, 30, 60, 90, -10}).Draw(t, "seconds")) * time.Second)
			if rapid.Bool().Draw(t, "verdicts") {
				v = nextView(t, topology, v, facts.Now)
			}
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0:
				facts.Overrides = drawOrders(t, scopes)
			case 4:
				facts.Overrides = slices.Clone(facts.Overrides)
				for i := range facts.Overrides { // another order for the same
					facts.Overrides[i].Order = health.Order(rapid.IntRange(0, 3).Draw(t, "other order"))
				}
			case 1:
				facts.Current = facts.Now
			case 2:
				facts.AssumeDown = rapid.SampledFrom([][]string{nil, {"fra"}, {"10.0.3.1:8080"}}).Draw(t, "assume")
			case 3:
				if plan != nil && !plan.Recheck.IsZero() && plan.Recheck.After(facts.Now) {
					facts.Now = plan.Recheck
				}
			}
			plan = Decide(topology, v, facts, plan)
			fresh := Decide(topology, v, facts, nil)
			if diff := cmp.Diff(fresh.Services, plan.Services, sameAddr); diff != "" {
				t.Fatalf("services depend on the past (-fresh +carried over):\n%s", diff)
			}
			if !fresh.Recheck.Equal(plan.Recheck) || !fresh.Distrust.Equal(plan.Distrust) || fresh.Fingerprint() != plan.Fingerprint() {
				t.Fatalf("recheck %s and %s, distrust %s and %s", fresh.Recheck, plan.Recheck, fresh.Distrust, plan.Distrust)
			}
			checkSafe(t, plan)
			checkRecheck(t, plan)
		}
	})
}

// checkSafe holds what no verdict and no order may break: never empty, never below the
// minimum, nothing answered that has no address, an excuse for each site that is not fit.
func checkSafe(t *rapid.T, p *Plan) {
	for i := range p.Services {
		s := &p.Topology.Services[i]
		for _, ipv6 := range []bool{false, true} {
			have, could := 0, 0
			for position := range s.Sites {
				addrs, _ := s.Sites[position].addresses(ipv6)
				a := p.Services[i].Sites[position].answer(ipv6)
				if len(addrs) > 0 {
					could++
				}
				if len(a.Addresses) > 0 {
					have++
					if backends := p.Services[i].Sites[position].Backends; !slices.ContainsFunc(backends, func(b BackendPlan) bool { return b.Active }) {
						t.Fatalf("%s at %s is answered (%s) without a backend at work", s.Config.Name, p.Topology.SiteName(i, position), a.Why)
					}
				}
				if (len(a.Addresses) > 0) != a.Why.Keeps() {
					t.Fatalf("%s at %s: %d addresses, %s", s.Config.Name, p.Topology.SiteName(i, position), len(a.Addresses), a.Why)
				}
			}
			if have < min(could, max(1, s.Config.MinSites)) {
				t.Fatalf("%s ipv6=%v: %d of %d sites answer, at least %d must", s.Config.Name, ipv6, have, could, s.Config.MinSites)
			}
		}
	}
}

// checkRecheck holds that time changes nothing before Recheck.
func checkRecheck(t *rapid.T, p *Plan) {
	facts := p.Facts
	facts.Now = facts.Now.Add(time.Duration(rapid.IntRange(1, 100_000).Draw(t, "milliseconds")) * time.Millisecond)
	if !p.Recheck.IsZero() && !facts.Now.Before(p.Recheck) {
		facts.Now = p.Recheck.Add(-time.Nanosecond)
	}
	if later := Decide(p.Topology, p.View, facts, nil); later.Fingerprint() != p.Fingerprint() {
		t.Fatalf("%s later the plan is another, recheck was %s", facts.Now.Sub(p.Facts.Now), p.Recheck)
	}
}

// All nodes decide alike on the same facts, whoever they are, whatever they weigh and however their
// clocks differ, and their summaries are the same bytes.
func TestPropertySameOnEveryNode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := historic(t)
		var texts []string
		var prints []uint64
		orders, first := []health.Override(nil), (*health.View)(nil)
		skew := time.Duration(rapid.Int64Range(-1e9, 1e9).Draw(t, "clock")) * time.Second
		for _, node := range []string{"fra1", "sin1", "fra1"} {
			topology, err := Compile(cfg, nil, node)
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				orders = drawOrders(t, topology.Scopes())
				first = nextView(t, topology, topology.allUp(), now)
			}
			v := &health.View{Layout: topology.Layout, Verdicts: slices.Clone(first.Verdicts)}
			facts := Facts{Now: now, Ready: true, Overrides: orders}
			if node == "sin1" { // another clock, and weights of its own
				facts.Now, facts.Weights = now.Add(skew), make([]uint8, len(v.Verdicts))
				for i := range v.Verdicts {
					if !v.Verdicts[i].Since.IsZero() {
						v.Verdicts[i].Since = v.Verdicts[i].Since.Add(skew)
					}
				}
			}
			p := Decide(topology, v, facts, nil)
			text, err := json.Marshal(p.Summary())
			if err != nil {
				t.Fatal(err)
			}
			texts, prints = append(texts, string(text)), append(prints, p.Fingerprint())
		}
		if prints[0] != prints[1] {
			t.Fatal("two nodes decide differently")
		}
		if !bytes.Equal([]byte(texts[0]), []byte(texts[2])) {
			t.Fatal(fmt.Errorf("the same facts give two plans:\n%s", cmp.Diff(texts[0], texts[2])))
		}
	})
}

// What changes only when or how a VIP fell, or when this node became current, is decided anew.
func TestSameStatusOtherFall(t *testing.T) {
	topology := compile(t, fleet(everywhere(steps(config.PolicyGeo)...)), "")
	fell := func(ago time.Duration, restored bool) *health.View {
		verdicts := vipsDown(map[string]time.Duration{"fra": ago, "iad": ago})
		for name, v := range verdicts {
			v.Restored = restored
			verdicts[name] = v
		}
		return view(t, topology, verdicts)
	}
	const out = "fra: VIP unreachable from the other sites | iad: VIP unreachable from the other sites"
	for name, before := range map[string]struct {
		view    *health.View
		current time.Time
	}{"fell long ago": {fell(time.Hour, false), time.Time{}}, "restored": {fell(0, true), time.Time{}}, "just current": {fell(0, false), now}} {
		p := Decide(topology, before.view, Facts{Now: now, Current: before.current}, nil)
		if got := states(p); got != out {
			t.Errorf("%s: %s, want %s", name, got, out)
		}
		p = Decide(topology, fell(0, false), Facts{Now: now}, p)
		if got := p.Services[0].Sites[1].Why; got != ReasonMassFailure {
			t.Errorf("%s, then fell now: %s, want %s", name, got, ReasonMassFailure)
		}
	}
	ahead := Decide(topology, fell(-10*time.Second, false), Facts{Now: now}, nil)
	if !ahead.Distrust.IsZero() || !ahead.Recheck.Equal(now.Add(10*time.Second)) || states(ahead) != out {
		t.Errorf("fell by a clock ahead: distrust %s, recheck %s, %s", ahead.Distrust, ahead.Recheck, states(ahead))
	}
}
