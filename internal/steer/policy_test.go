package steer

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
)

// groups writes an order as "fra | iad sin": groups in order, positions as names.
func groups(t *Topology, o *order) string {
	var parts []string
	for g := range o.groups() {
		parts = append(parts, strings.Join(names(t, o.group(g)...), " "))
	}
	return strings.Join(parts, " | ")
}

func TestOrder(t *testing.T) {
	rules := func(pairs ...string) config.Policy {
		p := config.Policy{Kind: config.PolicyGeo}
		for i := 0; i < len(pairs); i += 2 {
			p.Rules = append(p.Rules, config.GeoRule{Where: pairs[i], Sites: strings.Fields(pairs[i+1])})
		}
		return p
	}
	weighted := func(pairs ...any) config.Policy {
		p := config.Policy{Kind: config.PolicyWeighted}
		for i := 0; i < len(pairs); i += 2 {
			p.Weights = append(p.Weights, config.SiteWeight{Site: pairs[i].(string), Weight: pairs[i+1].(int)})
		}
		return p
	}
	failover := func(sites string) config.Policy {
		return config.Policy{Kind: config.PolicyFailover, Order: strings.Fields(sites)}
	}
	bareGeo, nearest := config.Policy{Kind: config.PolicyGeo}, config.Policy{Kind: config.PolicyNearest}
	all := rules("network:office", "sin", "US-CA", "iad", "US", "ams", "continent:NA", "fra", "default", "sin iad")
	californian, office := american, american
	californian.Region = "CA"
	office.Region, office.Network = "CA", "office"
	mexican := geo.Place{Country: "MX", Continent: "NA"}

	for _, c := range []struct {
		name   string
		policy []config.Policy
		place  geo.Place
		want   string
	}{
		{"geo: own country, then continent", []config.Policy{bareGeo}, german, "fra | ams | iad | sin"},
		{"geo: continent only", []config.Policy{bareGeo}, french, "ams | fra | iad | sin"},
		{"geo: continent without a country", []config.Policy{bareGeo}, geo.Place{Continent: "AS"}, "sin | ams | fra | iad"},
		{"geo: nothing near goes by name", []config.Policy{bareGeo}, brazilian, "ams | fra | iad | sin"},
		{"geo: unknown goes by name", []config.Policy{bareGeo}, nowhere, "ams | fra | iad | sin"},
		{"nearest", []config.Policy{nearest}, brazilian, "iad | ams | fra | sin"},
		{"nearest: unknown point goes by name", []config.Policy{nearest}, geo.Place{Country: "DE", Continent: "EU"}, "ams | fra | iad | sin"},
		{"geo refines before nearest", []config.Policy{bareGeo, nearest}, french, "fra | ams | iad | sin"},
		{"nearest breaks what geo left", []config.Policy{bareGeo, nearest}, brazilian, "iad | ams | fra | sin"},
		{
			"the country beats the distance",
			[]config.Policy{bareGeo, nearest},
			geo.Place{Country: "DE", Continent: "EU", Point: geo.Point{Lat: 52.3, Lon: 4.8}},
			"fra | ams | iad | sin",
		},
		{"failover", []config.Policy{failover("sin fra")}, german, "sin | fra | ams | iad"},
		{"failover before nearest", []config.Policy{failover("sin"), nearest}, german, "sin | fra | ams | iad"},
		{"failover names a site that has no service", []config.Policy{failover("mars sin")}, german, "sin | ams | fra | iad"},
		{"rule: network first", []config.Policy{all}, office, "sin | ams | fra | iad"},
		{"rule: then region", []config.Policy{all}, californian, "iad | ams | fra | sin"},
		{"rule: then country", []config.Policy{all}, american, "ams | fra | iad | sin"},
		{"rule: then continent", []config.Policy{all}, mexican, "fra | ams | iad | sin"},
		{"rule: then default", []config.Policy{all}, german, "sin | iad | ams | fra"},
		{"rule: default for the unknown", []config.Policy{all}, nowhere, "sin | iad | ams | fra"},
		{"rule: none matches, all tied", []config.Policy{rules("DE", "sin"), nearest}, brazilian, "iad | ams | fra | sin"},
		{"rule: in the listed order, the rest tied", []config.Policy{rules("DE", "sin iad"), nearest}, german, "sin | iad | fra | ams"},
		{"rules, then bare geo", []config.Policy{rules("BR", "sin"), bareGeo}, german, "fra | ams | iad | sin"},
		{"weighted alone", []config.Policy{weighted()}, german, "ams fra iad sin"},
		{"weighted: weight 0 comes later", []config.Policy{weighted("ams", 0, "fra", 3)}, german, "fra iad sin | ams"},
		{"weighted: all weight 0", []config.Policy{weighted("ams", 0, "fra", 0, "iad", 0, "sin", 0)}, german, "ams fra iad sin"},
		{"weighted after geo", []config.Policy{bareGeo, weighted("ams", 2)}, french, "ams fra | iad sin"},
		{"weighted: 0 stays in its tier", []config.Policy{bareGeo, weighted("ams", 0)}, french, "fra | ams | iad sin"},
		{"weighted after nearest", []config.Policy{nearest, weighted("fra", 0)}, german, "fra | ams | iad | sin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			topology := compile(t, fleet(everywhere(c.policy...)), "")
			if got := groups(topology, topology.orderAt(0, c.place)); got != c.want {
				t.Errorf("order for %+v:\n got %s\nwant %s", c.place, got, c.want)
			}
		})
	}
}

// Two sites at one spot stay tied after nearest, so that a later step decides.
func TestNearestTiesWithinAKilometre(t *testing.T) {
	cfg := fleet(everywhere(config.Policy{Kind: config.PolicyNearest}, config.Policy{Kind: config.PolicyFailover, Order: []string{"fra"}}))
	cfg.Sites[0].Location.Point = cfg.Sites[1].Location.Point
	cfg.Sites[0].Location.Point.Lat += 0.0001
	topology := compile(t, cfg, "")
	if got, want := groups(topology, topology.orderAt(0, german)), "fra | ams | iad | sin"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The last tie-break is the site's name, whatever the order in the config.
func TestTiesGoByName(t *testing.T) {
	cfg := fleet(everywhere(config.Policy{Kind: config.PolicyGeo}))
	slices.Reverse(cfg.Sites)
	topology := compile(t, cfg, "")
	if got, want := groups(topology, topology.orderAt(0, nowhere)), "ams | fra | iad | sin"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestClassesMerge(t *testing.T) {
	topology := compile(t, fleet(everywhere(steps(config.PolicyGeo)...)), "")
	a := newAtlas(topology.Config, slices.Clone(topology.Services))
	if got := a.classify(nowhere); got != unknownClass {
		t.Errorf("class of the zero place = %d, want %d", got, unknownClass)
	}
	classes := map[string]geo.Class{}
	for name, p := range map[string]geo.Place{
		"DE": german, "FR": french, "IT": {Country: "IT", Continent: "EU"}, "BR": brazilian, "US": american, "": nowhere,
	} {
		classes[name] = a.classify(p)
	}
	// French and Italian clients, and those near nothing, are ordered alike:
	// by continent ams and fra come first, which is also the order of names.
	if classes["FR"] != classes["IT"] || classes["BR"] != classes[""] || classes["FR"] != classes[""] {
		t.Errorf("equal orders have different classes: %v", classes)
	}
	if classes["DE"] == classes["FR"] || classes["US"] == classes["FR"] || classes["US"] == classes["DE"] {
		t.Errorf("different orders share a class: %v", classes)
	}
	if got, want := len(a.places), 3; got != want {
		t.Errorf("%d classes, want %d", got, want)
	}
}

// Hashes only narrow the search: rows and orders that collide stay apart.
func TestHashCollisions(t *testing.T) {
	a := newAtlas(fleet(everywhere(steps(config.PolicyGeo)...)), compile(t, fleet(everywhere(steps(config.PolicyGeo)...)), "").Services)
	row := []uint32{7}
	a.bySum[hashOf(hashSeed, row)] = []geo.Class{unknownClass}
	if got := a.merge(german, row); got == unknownClass {
		t.Error("a row that differs got the unknown class")
	}
	p := &profile{}
	one, two := &order{positions: []uint16{0, 1}}, &order{positions: []uint16{1, 0}}
	p.intern(one)
	p.sums[0] = hashOf(hashOf(hashSeed, two.positions), two.ends)
	if got := p.intern(two); got != 1 {
		t.Errorf("an order that differs got number %d", got)
	}
}

// Each profile finds its orders again also when they are many.
func TestInternManyOrders(t *testing.T) {
	cfg := large(12, 1, 12, 1)
	a := newAtlas(cfg, compile(t, cfg, "").Services)
	for round := range 2 {
		for lat := -80.0; lat <= 80; lat += 5 {
			for lon := -175.0; lon <= 175; lon += 5 {
				place := geo.Place{Point: geo.Point{Lat: lat + 0.5, Lon: lon + 0.5}}
				delete(a.classes, place) // force the second round through the chain, too
				class := a.classify(place)
				if got, want := a.order(0, class), a.orderAt(0, place); !got.equal(want) {
					t.Fatalf("round %d, %v: class %d has order %v, want %v", round, place.Point, class, got, want)
				}
			}
		}
	}
	orders := a.profiles[0].orders
	if len(orders) <= fewOrders || len(orders) != len(a.places) {
		t.Errorf("%d distinct orders (want more than %d), %d classes", len(orders), fewOrders, len(a.places))
	}
	seen := map[string]bool{}
	for i := range orders {
		text := fmt.Sprint(orders[i].positions)
		if seen[text] {
			t.Errorf("order %v is stored twice", text)
		}
		seen[text] = true
	}
}

func TestProfilesAreShared(t *testing.T) {
	one, two, three, four := everywhere(steps(config.PolicyGeo)...), everywhere(steps(config.PolicyGeo)...),
		everywhere(steps(config.PolicyNearest)...), service(steps(config.PolicyGeo), "fra", "iad")
	one.Name, two.Name, three.Name, four.Name = "a", "b", "c", "d"
	topology := compile(t, fleet(one, two, three, four), "")
	var got []int
	for _, s := range topology.Services {
		got = append(got, s.Profile)
	}
	if diff := cmp.Diff([]int{0, 0, 1, 2}, got); diff != "" {
		t.Errorf("profiles (-want +got):\n%s", diff)
	}
}

func TestPlaced(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy []config.Policy
		want   bool
	}{
		{"geo", steps(config.PolicyGeo), true},
		{"nearest", steps(config.PolicyNearest), true},
		{"failover", []config.Policy{{Kind: config.PolicyFailover, Order: []string{"fra"}}}, false},
		{"weighted", steps(config.PolicyWeighted), false},
		{"geo and weighted", steps(config.PolicyGeo, config.PolicyWeighted), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := compile(t, fleet(everywhere(c.policy...)), "").Services[0].Placed; got != c.want {
				t.Errorf("Placed = %v, want %v", got, c.want)
			}
		})
	}
}
