package steer

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// ordered makes standing orders from "drain site/fra", sorted by scope.
func ordered(t testing.TB, texts ...string) []health.Override {
	t.Helper()
	var list []health.Override
	for _, text := range texts {
		word, where, _ := strings.Cut(text, " ")
		order, err := health.ParseOrder(word)
		if err != nil {
			t.Fatal(err)
		}
		scope, err := health.ParseScope(where)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, health.Override{
			Scope: scope, Order: order, Counter: 1, Writer: "fra1", By: "ann", Reason: "new disk", At: now.Add(-5 * time.Minute),
		})
	}
	slices.SortFunc(list, func(a, b health.Override) int { return a.Scope.Compare(b.Scope) })
	return list
}

// Every combination of orders that cover one backend, with the backend up and down: DOWN holds over
// DRAIN over UP over the verdicts, whatever the scopes.
func TestOrdersExhaustively(t *testing.T) {
	topology := compile(t, fleet(service(steps(config.PolicyGeo), "fra", "iad")), "fra1")
	scopes := []string{"site/fra", "service/web", "pool/web/fra", "backend/web/fra/10.0.2.1:8080"}
	words := []string{"", "up", "down", "drain"}
	for n := range 1 << (2 * len(scopes)) {
		var texts []string
		var wide, own string // the severest of the wide orders, and that on the backend
		for i, scope := range scopes {
			word := words[n>>(2*i)&3]
			if word == "" {
				continue
			}
			texts = append(texts, word+" "+scope)
			switch {
			case i == 3:
				own = word
			case word == "down" || wide == "" || wide == "up":
				wide = word
			}
		}
		for _, verdicts := range []map[string]health.Verdict{nil, poolDown("fra")} {
			p := Decide(topology, view(t, topology, verdicts), Facts{Now: now, Ready: true, Overrides: ordered(t, texts...)}, nil)
			fra := &p.Services[0].Sites[0]
			wantSite, wantOther := ReasonNone, BackendPlan{Active: true}
			if verdicts != nil {
				wantSite, wantOther = ReasonBackendsDown, BackendPlan{Why: ReasonBackendDown}
			}
			wantOwn := wantOther
			switch wide {
			case "down":
				wantSite = ReasonOrderedDown
				wantOwn, wantOther = BackendPlan{Why: ReasonOrderedDown}, BackendPlan{Why: ReasonOrderedDown}
			case "drain":
				wantSite = ReasonDrained // the pool goes on as it is
			case "up":
				wantSite = ReasonOrderedUp
				wantOwn, wantOther = BackendPlan{true, ReasonOrderedUp}, BackendPlan{true, ReasonOrderedUp}
			}
			switch {
			case wide == "down" || own == "":
			case own == "down":
				wantOwn = BackendPlan{Why: ReasonOrderedDown}
			case own == "drain":
				wantOwn = BackendPlan{Why: ReasonDrained}
			case own == "up":
				wantOwn = BackendPlan{true, ReasonOrderedUp}
				if wide == "" {
					wantSite = ReasonNone // one backend works
				}
			}
			if strings.Contains(strings.Join(texts, " "), "service/web") && strings.Contains("down drain", serviceWord(texts)) {
				// The other site is out too, so somebody has to be used: that is another test's.
				if fra.V4.Why != ReasonFailOpen && fra.V4.Why != wantSite {
					t.Fatalf("%v: site %v, want %v", texts, fra.V4.Why, wantSite)
				}
				continue
			}
			if fra.Why != wantSite || fra.Eligible != wantSite.Keeps() {
				t.Fatalf("%v, down %v: site %v, want %v", texts, verdicts != nil, fra.Why, wantSite)
			}
			if diff := cmp.Diff([]BackendPlan{wantOwn, wantOther}, fra.Backends); diff != "" {
				t.Fatalf("%v, down %v: backends (-want +got):\n%s", texts, verdicts != nil, diff)
			}
			wantOrder := map[string]health.Order{"": health.OrderNone, "up": health.OrderUp, "down": health.OrderDown, "drain": health.OrderDrain}[wide]
			if got, ok := p.SiteOrder(0, 0); got.Order != wantOrder || ok != (wide != "") {
				t.Fatalf("%v: SiteOrder = %v, %v, want %v", texts, got.Order, ok, wantOrder)
			}
		}
	}
}

// serviceWord is what is ordered of the service.
func serviceWord(texts []string) string {
	for _, text := range texts {
		if word, ok := strings.CutSuffix(text, " service/web"); ok {
			return word
		}
	}
	return "none"
}

func TestOrders(t *testing.T) {
	vip := map[string]health.Verdict{"web/fra/vip/198.51.100.2:8080": down(time.Hour)}
	const open = "nothing else is fit, so it is used all the same (fail-open)"
	unknown := map[string]health.Verdict{"web/fra/backend/10.0.2.1:8080": {}, "web/fra/backend/10.0.2.2:8080": {}}
	for _, c := range []struct {
		name     string
		verdicts map[string]health.Verdict
		orders   []string
		assume   []string
		want     string
		active   string
	}{
		{"a drained site goes on serving", nil, []string{"drain site/fra"}, nil, "fra: drained by order | iad: in use", "fra ++ iad ++"},
		{"a site that is down takes no work", nil, []string{"down site/fra"}, nil, "fra: down by order | iad: in use", "fra -- iad ++"},
		{"a drained pool", nil, []string{"drain pool/web/iad"}, nil, "fra: in use | iad: drained by order", "fra ++ iad ++"},
		{"a drained backend", nil, []string{"drain backend/web/fra/10.0.2.2:8080"}, nil, "fra: in use | iad: in use", "fra +- iad ++"},
		{
			"every backend drained", nil,
			[]string{"drain backend/web/fra/10.0.2.1:8080", "drain backend/web/fra/10.0.2.2:8080"},
			nil,
			"fra: drained by order | iad: in use", "fra -- iad ++",
		},
		{
			"every backend down by order", nil,
			[]string{"down backend/web/fra/10.0.2.1:8080", "down backend/web/fra/10.0.2.2:8080"},
			nil,
			"fra: down by order | iad: in use", "fra -- iad ++",
		},
		{
			"one drained, one dead",
			map[string]health.Verdict{"web/fra/backend/10.0.2.1:8080": down(0)},
			[]string{"drain backend/web/fra/10.0.2.2:8080"},
			nil, "fra: all backends down | iad: in use", "fra -- iad ++",
		},
		{"up against dead backends", poolDown("fra"), []string{"up site/fra"}, nil, "fra: up by order, whatever the checks say | iad: in use", "fra ++ iad ++"},
		{"up against a dead VIP", vip, []string{"up pool/web/fra"}, nil, "fra: up by order, whatever the checks say | iad: in use", "fra ++ iad ++"},
		{"a backend's up is not its VIP's", vip, []string{"up backend/web/fra/10.0.2.1:8080"}, nil, "fra: VIP unreachable from the other sites | iad: in use", "fra ++ iad ++"},
		{"up needs no evidence", unknown, []string{"up site/fra"}, nil, "fra: up by order, whatever the checks say | iad: in use", "fra ++ iad ++"},
		{"one backend's up is evidence", unknown, []string{"up backend/web/fra/10.0.2.1:8080"}, nil, "fra: in use | iad: in use", "fra ++ iad ++"},
		{
			"up, but every backend down by order", nil,
			[]string{"up site/fra", "down backend/web/fra/10.0.2.1:8080", "drain backend/web/fra/10.0.2.2:8080"},
			nil,
			"fra: drained by order | iad: in use", "fra -- iad ++",
		},
		{
			"a drained backend is no evidence",
			map[string]health.Verdict{"web/fra/backend/10.0.2.2:8080": {}},
			[]string{"drain backend/web/fra/10.0.2.1:8080"},
			nil, "fra: not measured up yet | iad: in use", "fra -+ iad ++",
		},
		{"up stands above what is assumed", nil, []string{"up site/fra"}, []string{"fra"}, "fra: up by order, whatever the checks say | iad: in use", "fra ++ iad ++"},
		{"drain stands above what is assumed", nil, []string{"drain site/fra"}, []string{"fra"}, "fra: drained by order | iad: in use", "fra -- iad ++"},
		{"an order on nothing", nil, []string{"drain site/mars", "drain backend/web/fra/10.9.9.9:1", "down pool/web/sin", "down service/db"}, nil, "fra: in use | iad: in use", "fra ++ iad ++"},
		// An order never empties a name, and yields last.
		{"both drained", nil, []string{"drain site/fra", "drain site/iad"}, nil, "fra: " + open + " | iad: " + open, "fra ++ iad ++"},
		{"the service drained", nil, []string{"drain service/web"}, nil, "fra: " + open + " | iad: " + open, "fra ++ iad ++"},
		{"the service down", nil, []string{"down service/web"}, nil, "fra: " + open + " | iad: " + open, "fra ++ iad ++"},
		{"drain yields before down", nil, []string{"down site/fra", "drain site/iad"}, nil, "fra: down by order | iad: " + open, "fra -- iad ++"},
		{"dead backends yield before drain", poolDown("fra"), []string{"drain site/iad"}, nil, "fra: " + open + " | iad: drained by order", "fra ++ iad ++"},
		{"drained: what works is used", poolDown("fra"), []string{"drain service/web"}, nil, "fra: drained by order | iad: " + open, "fra -- iad ++"},
		{"down: what works is used", poolDown("fra"), []string{"down service/web"}, nil, "fra: down by order | iad: " + open, "fra -- iad ++"},
		{
			"dead and down by order", merge(poolDown("fra", "iad")),
			[]string{"down service/web"},
			nil,
			"fra: " + open + " | iad: " + open, "fra ++ iad ++",
		},
		{
			"a drained backend yields last", poolDown("fra", "iad"),
			[]string{"drain backend/web/fra/10.0.2.1:8080"},
			nil,
			"fra: " + open + " | iad: " + open, "fra -+ iad ++",
		},
		{
			"of the drained backends those that work",
			map[string]health.Verdict{"web/fra/backend/10.0.2.1:8080": down(0)},
			[]string{
				"drain backend/web/fra/10.0.2.1:8080", "drain backend/web/fra/10.0.2.2:8080", "down site/iad",
			},
			nil,
			"fra: " + open + " | iad: down by order", "fra -+ iad --",
		},
		{
			"drained backends before those down", nil,
			[]string{
				"drain backend/web/fra/10.0.2.1:8080", "down backend/web/fra/10.0.2.2:8080", "down site/iad",
			},
			nil,
			"fra: " + open + " | iad: down by order", "fra +- iad --",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			topology := compile(t, fleet(service(steps(config.PolicyGeo), "fra", "iad")), "")
			p := Decide(topology, view(t, topology, c.verdicts), Facts{Now: now, AssumeDown: c.assume, Overrides: ordered(t, c.orders...)}, nil)
			if got := sitesText(p, 0); got != c.want {
				t.Errorf("sites:\n got %s\nwant %s", got, c.want)
			}
			if got := active(p); got != c.active {
				t.Errorf("active backends: got %s, want %s", got, c.active)
			}
			if got, want := p.Services[0].FailOpen, strings.Contains(c.want, open); got != want {
				t.Errorf("FailOpen %v, want %v", got, want)
			}
			if got, want := p.Services[0].Degraded, strings.Contains(c.want, open) || strings.Contains(c.want, "drained") ||
				strings.Contains(c.want, "down") || strings.Contains(c.want, "unreachable") || strings.Contains(c.want, "not measured"); got != want {
				t.Errorf("Degraded %v, want %v", got, want)
			}
		})
	}
}

// Of equal orders the narrowest is the one that is shown.
func TestNarrowestOrderIsShown(t *testing.T) {
	topology := compile(t, routed(), "fra1")
	for _, c := range []struct {
		want   string
		orders []string
	}{
		{"pool/web/fra", []string{"drain site/fra", "drain service/web", "drain pool/web/fra"}},
		{"service/web", []string{"drain site/fra", "drain service/web", "up pool/web/fra"}},
		{"site/fra", []string{"down site/fra", "drain service/web", "drain pool/web/fra"}},
	} {
		p := Decide(topology, view(t, topology, nil), Facts{Overrides: ordered(t, c.orders...)}, nil)
		web, _ := topology.Service("web")
		if got, ok := p.SiteOrder(web, 0); !ok || got.Scope.String() != c.want {
			t.Errorf("%v: %s is shown, want %s", c.orders, got.Scope, c.want)
		}
		if _, ok := p.BackendOrder(web, 0, 0); ok {
			t.Errorf("%v: an order on a backend is shown", c.orders)
		}
	}
	p := Decide(topology, view(t, topology, nil), Facts{Overrides: ordered(t, "none site/fra", "none backend/web/fra/10.0.2.1:8080")}, nil)
	if got, ok := p.SiteOrder(1, 0); ok {
		t.Errorf("an order that was cleared is shown: %v", got)
	}
	p = Decide(topology, view(t, topology, nil), Facts{Ready: true, Overrides: ordered(t, "drain prefix/192.0.2.0/24", "drain site/fra", "up backend/web/fra/10.0.2.1:8080")}, nil)
	if got, ok := p.RouteOrder(0); !ok || got.Scope.String() != "prefix/192.0.2.0/24" {
		t.Errorf("the prefix: %s is shown", got.Scope)
	}
	if got, ok := p.RouteOrder(2); !ok || got.Scope.String() != "site/fra" {
		t.Errorf("another prefix: %s is shown", got.Scope)
	}
	if got, ok := p.BackendOrder(1, 0, 0); !ok || got.Order != health.OrderUp {
		t.Errorf("the backend: %v is shown", got)
	}
}

func TestOrdersOnRoutes(t *testing.T) {
	const first = "192.0.2.0/24"
	for _, c := range []struct {
		orders   []string
		verdicts map[string]health.Verdict
		notReady bool
		want     string // of 192.0.2.0/24, which requires web
	}{
		{nil, nil, false, "in use"},
		{[]string{"drain prefix/" + first}, nil, false, "drained by order"},
		{[]string{"down prefix/" + first}, nil, false, "down by order"},
		{[]string{"up prefix/" + first}, poolDown("fra"), false, "up by order, whatever the checks say"},
		{[]string{"up prefix/" + first}, nil, true, "listeners not open"},
		{[]string{"drain site/fra"}, nil, false, "drained by order"},
		{[]string{"down site/fra"}, nil, false, "down by order"},
		{[]string{"down site/iad"}, nil, false, "in use"},
		{[]string{"drain service/web"}, nil, false, "drained by order (web)"},
		{[]string{"drain service/db"}, nil, false, "in use"},
		{[]string{"down pool/web/fra"}, nil, false, "down by order (web)"},
		{[]string{"down pool/web/iad"}, nil, false, "in use"},
		{[]string{"drain service/web", "up prefix/" + first}, nil, false, "drained by order (web)"},
		{[]string{"drain site/fra", "up prefix/" + first}, nil, false, "drained by order"},
		{[]string{"drain site/fra", "down service/web"}, nil, false, "down by order (web)"},
		{[]string{"down site/fra", "drain service/web"}, nil, false, "down by order"},
		{[]string{"up site/fra", "drain prefix/" + first}, nil, false, "drained by order"},
		{[]string{"up pool/web/fra"}, poolDown("fra"), false, "in use"},
		{[]string{"up site/fra"}, poolDown("fra"), false, "in use"},
		{[]string{"up site/fra", "down backend/web/fra/10.0.2.1:8080", "down backend/web/fra/10.0.2.2:8080"}, nil, false, "down by order (web)"},
		{[]string{"up site/fra"}, poolDown("fra"), true, "listeners not open"},
		{[]string{"up site/iad"}, poolDown("fra"), false, "all backends down (web)"},
		{[]string{"up backend/web/fra/10.0.2.1:8080"}, poolDown("fra"), false, "in use"},
		{[]string{"drain backend/web/fra/10.0.2.1:8080"}, nil, false, "in use"},
		{[]string{"drain backend/web/fra/10.0.2.1:8080"}, map[string]health.Verdict{"web/fra/backend/10.0.2.2:8080": down(0)}, false, "all backends down (web)"},
		{[]string{"drain backend/web/fra/10.0.2.1:8080", "down backend/web/fra/10.0.2.2:8080"}, nil, false, "drained by order (web)"},
		{[]string{"down backend/web/fra/10.0.2.1:8080", "down backend/web/fra/10.0.2.2:8080"}, nil, false, "down by order (web)"},
		{[]string{"down backend/web/fra/10.0.2.1:8080", "down backend/web/fra/10.0.2.2:8080"}, poolDown("fra"), false, "down by order (web)"},
	} {
		t.Run(strings.Join(c.orders, ", "), func(t *testing.T) {
			topology := compile(t, routed(), "fra1")
			p := Decide(topology, view(t, topology, c.verdicts), Facts{Ready: !c.notReady, Overrides: ordered(t, c.orders...)}, nil)
			r := p.Routes[0]
			got := r.Why.String()
			if r.Blame != "" {
				got += " (" + r.Blame + ")"
			}
			if r.Prefix.String() != first || got != c.want || r.Announce != r.Why.Keeps() {
				t.Errorf("%s: announced %v, %s, want %s", r.Prefix, r.Announce, got, c.want)
			}
		})
	}
}

// Neither the config's own word nor the state of this node yields to an order.
func TestUpDoesNotAnnounceWhatIsNotAllowed(t *testing.T) {
	topology := compile(t, routed(), "fra1")
	p := Decide(topology, view(t, topology, nil), Facts{Ready: true, Overrides: ordered(t, "up prefix/192.0.2.0/25")}, nil)
	if r := p.Routes[1]; r.Announce || r.Why != ReasonSiteNotAllowed {
		t.Errorf("%+v, want not announced: %s", r, ReasonSiteNotAllowed)
	}
}

// This node's own probes do not hold back what is ordered up, and backends out by order are not what it must reach.
func TestOrdersAndOwnProbes(t *testing.T) {
	topology := compile(t, routed(), "fra1")
	own := make([]health.Status, len(topology.Layout.Targets))
	for i := range own {
		own[i] = health.StatusDown
	}
	for _, c := range []struct {
		orders []string
		want   Reason
	}{
		{nil, ReasonUnreachedHere},
		{[]string{"up pool/web/fra"}, ReasonNone},
		{[]string{"up backend/web/fra/10.0.2.1:8080"}, ReasonNone},
	} {
		p := Decide(topology, view(t, topology, nil), Facts{Ready: true, Own: own, Overrides: ordered(t, c.orders...)}, nil)
		if p.Routes[0].Why != c.want {
			t.Errorf("%v: %v, want %v", c.orders, p.Routes[0].Why, c.want)
		}
	}
	i, _ := topology.Layout.Index(health.Target{Kind: health.KindBackend, Service: "web", Site: "fra", Addr: backend("fra", 1)})
	own[i] = health.StatusUp
	p := Decide(topology, view(t, topology, nil), Facts{Ready: true, Own: own, Overrides: ordered(t, "drain backend/web/fra/10.0.2.1:8080")}, nil)
	if p.Routes[0].Why != ReasonUnreachedHere {
		t.Errorf("only a drained backend is reached: %v, want %v", p.Routes[0].Why, ReasonUnreachedHere)
	}
}

func TestScopes(t *testing.T) {
	cfg := fleet(service(steps(config.PolicyGeo), "fra", "iad"))
	cfg.BGP = config.BGP{ASN: 1, Prefixes: []config.Prefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}}
	topology := compile(t, cfg, "")
	var got []string
	for _, s := range topology.Scopes() {
		got = append(got, s.String())
		if back, err := health.ParseScope(s.String()); err != nil || back != s {
			t.Errorf("%s reads as %v, %v", s, back, err)
		}
		if unknown := topology.UnknownScopes([]health.Override{{Scope: s, Order: health.OrderUp}}); unknown != nil {
			t.Errorf("%v is unknown", unknown)
		}
	}
	want := []string{
		"site/ams", "site/fra", "site/iad", "site/sin", "service/web", "pool/web/fra", "pool/web/iad",
		"backend/web/fra/10.0.2.1:8080", "backend/web/fra/10.0.2.2:8080", "backend/web/iad/10.0.3.1:8080", "backend/web/iad/10.0.3.2:8080",
		"prefix/192.0.2.0/24",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("scopes (-want +got):\n%s", diff)
	}
	strange := []string{
		"up site/mars", "up service/db", "up pool/web/sin", "up pool/db/fra", "up pool/web/mars",
		"up backend/web/fra/10.0.3.1:8080", "up backend/web/sin/10.0.2.1:8080", "up prefix/192.0.2.0/25",
	}
	list := ordered(t, strange...)
	if got := topology.UnknownScopes(list); len(got) != len(strange) {
		t.Errorf("unknown: %v, want all of %v", got, strange)
	}
	list[0].Order = health.OrderNone
	if got := topology.UnknownScopes(list); len(got) != len(strange)-1 {
		t.Errorf("unknown: %v; what is cleared is not", got)
	}
}

// The same scope under another order is decided anew, and under the same order by another hand is not.
func TestOrderChanges(t *testing.T) {
	topology := compile(t, routed(), "fra1")
	v := view(t, topology, nil)
	var p *Plan
	for _, c := range []struct {
		order string
		want  Reason
	}{
		{"drain site/fra", ReasonDrained},
		{"down site/fra", ReasonOrderedDown},
		{"up site/fra", ReasonOrderedUp},
		{"none site/fra", ReasonNone},
		{"drain site/fra", ReasonDrained},
	} {
		p = Decide(topology, v, Facts{Overrides: ordered(t, c.order)}, p)
		if got := p.Services[0].Sites[0].Why; got != c.want {
			t.Errorf("%s: %v, want %v", c.order, got, c.want)
		}
	}
	other := ordered(t, "drain site/fra")
	other[0].By = "bob"
	next := Decide(topology, v, Facts{Overrides: other}, p)
	if &next.Services[0].Sites[0] != &p.Services[0].Sites[0] {
		t.Error("who gave the order changes the decision")
	}
	if got, _ := next.SiteOrder(0, 0); got.By != "bob" {
		t.Errorf("by %s, want bob", got.By)
	}
}
