package steer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// A world is a config, what is known of it, and clients.
type world struct {
	cfg     *config.Config
	verdict map[string]health.Verdict
	assume  []string
	places  []geo.Place
}

var drawPlace = rapid.Custom(func(t *rapid.T) geo.Place {
	return geo.Place{
		Network:   rapid.SampledFrom([]string{"", "", "office"}).Draw(t, "network"),
		Country:   rapid.SampledFrom([]string{"", "DE", "US", "SG", "BR"}).Draw(t, "country"),
		Region:    rapid.SampledFrom([]string{"", "CA"}).Draw(t, "region"),
		Continent: rapid.SampledFrom([]string{"", "EU", "NA", "AS", "SA"}).Draw(t, "continent"),
		Point: rapid.SampledFrom([]geo.Point{{}, {Lat: 50, Lon: 8}, {Lat: 38, Lon: -77}, {Lat: -16, Lon: -45}, {Lat: 1, Lon: 103}}).
			Draw(t, "point"),
	}
})

func drawSites(t *rapid.T, label string) []string {
	return rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"ams", "fra", "iad", "sin"}), 1, 4, rapid.ID).Draw(t, label)
}

func drawPolicy(t *rapid.T) []config.Policy {
	var policy []config.Policy
	for range rapid.IntRange(0, 6).Draw(t, "steps") {
		p := config.Policy{Kind: rapid.SampledFrom([]config.PolicyKind{config.PolicyGeo, config.PolicyNearest, config.PolicyFailover}).Draw(t, "kind")}
		switch p.Kind {
		case config.PolicyFailover:
			p.Order = drawSites(t, "order")
		case config.PolicyGeo:
			for _, where := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"DE", "US-CA", "continent:NA", "network:office", "default"}), rapid.ID).Draw(t, "rules") {
				p.Rules = append(p.Rules, config.GeoRule{Where: where, Sites: drawSites(t, "rule")})
			}
		}
		policy = append(policy, p)
	}
	if len(policy) == 0 || rapid.Bool().Draw(t, "weighted") {
		p := config.Policy{Kind: config.PolicyWeighted}
		for _, site := range drawSites(t, "weights") {
			p.Weights = append(p.Weights, config.SiteWeight{Site: site, Weight: rapid.IntRange(0, 4).Draw(t, "weight")})
		}
		policy = append(policy, p)
	}
	return policy
}

var drawWorld = rapid.Custom(func(t *rapid.T) world {
	w := world{verdict: make(map[string]health.Verdict)}
	var services []config.Service
	for _, name := range []string{"api", "web"}[:rapid.IntRange(1, 2).Draw(t, "services")] {
		at := slices.Sorted(slices.Values(drawSites(t, "sites")))
		s := service(drawPolicy(t), at...)
		s.Name, s.VIPs = name, nil
		for _, site := range at {
			vips := [][]netip.Addr{nil, {vip4(site)}, {vip6(site)}, {vip6(site), vip4(site)}}[rapid.IntRange(0, 3).Draw(t, "vips")]
			if vips != nil {
				s.VIPs = append(s.VIPs, config.VIP{Site: site, Addresses: vips})
			}
		}
		services = append(services, s)
	}
	w.cfg = fleet(services...)
	w.cfg.BGP = config.BGP{
		ASN: 1, Peers: []config.Peer{{Site: "fra"}},
		Prefixes: []config.Prefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Requires: []string{services[0].Name}}},
	}
	topology, err := Compile(w.cfg, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range topology.Layout.Targets {
		w.verdict[target.String()] = health.Verdict{
			Status:   rapid.SampledFrom([]health.Status{health.StatusNone, health.StatusUnknown, health.StatusUp, health.StatusDown, health.StatusDown}).Draw(t, "status"),
			Restored: rapid.Bool().Draw(t, "restored"),
		}
	}
	w.assume = rapid.SliceOfN(rapid.SampledFrom([]string{"ams", "fra", "iad", "sin", "10.0.2.1:8080", "10.0.3.2:8080", "nothing"}), 0, 3).Draw(t, "assume")
	w.places = rapid.SliceOfN(drawPlace, 1, 5).Draw(t, "places")
	return w
})

// decide compiles and decides; the topology's atlas knows the places.
func (w *world) decide(t *rapid.T, previous *Plan) *Plan {
	topology, err := Compile(w.cfg, nil, "fra1")
	if err != nil {
		t.Fatal(err)
	}
	topology.atlas = newAtlas(w.cfg, topology.Services)
	for _, place := range w.places {
		topology.classify(place)
	}
	v := &health.View{Layout: topology.Layout, At: now}
	for _, target := range topology.Layout.Targets {
		v.Verdicts = append(v.Verdicts, w.verdict[target.String()])
	}
	return Decide(topology, v, Facts{Now: now, Ready: true, AssumeDown: w.assume}, previous)
}

// Same facts, same plan, byte for byte, in whatever order they come.
func TestPropertyDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld.Draw(t, "world")
		a := w.decide(t, nil)
		shuffled := w
		shuffled.assume = rapid.Permutation(w.assume).Draw(t, "assume order")
		cfg := *w.cfg
		cfg.Services = slices.Clone(cfg.Services)
		for i := range cfg.Services {
			cfg.Services[i].Pools = rapid.Permutation(cfg.Services[i].Pools).Draw(t, "pools")
			cfg.Services[i].VIPs = rapid.Permutation(cfg.Services[i].VIPs).Draw(t, "VIPs")
		}
		shuffled.cfg = &cfg
		b := shuffled.decide(t, nil)
		one, err := json.Marshal(a.Summary())
		if err != nil {
			t.Fatal(err)
		}
		two, err := json.Marshal(b.Summary())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(one, two) {
			t.Fatalf("plans differ:\n%s", cmp.Diff(string(one), string(two)))
		}
		if a.Fingerprint() != b.Fingerprint() {
			t.Fatal("fingerprints differ")
		}
		for _, place := range w.places {
			for service := range a.Services {
				if diff := cmp.Diff(a.Shares(service, a.Topology.classOf(place), false), b.Shares(service, b.Topology.classOf(place), false)); diff != "" {
					t.Fatalf("answers from %+v differ:\n%s", place, diff)
				}
			}
		}
	})
}

// classOf finds the class of a place that was classified.
func (t *Topology) classOf(place geo.Place) geo.Class { return t.classes[t.reads.reduce(place)] }

// What came before changes no service: it only saves memory.
func TestPropertyServicesHaveNoMemory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld.Draw(t, "world")
		fresh := w.decide(t, nil)
		topology := fresh.Topology
		plan := fresh
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			v := &health.View{Layout: topology.Layout}
			for range topology.Layout.Targets {
				v.Verdicts = append(v.Verdicts, health.Verdict{Status: health.Status(rapid.IntRange(0, 3).Draw(t, "status"))})
			}
			facts := fresh.Facts
			if rapid.Bool().Draw(t, "other assumptions") {
				facts.AssumeDown = nil
			}
			plan = Decide(topology, v, facts, plan)
		}
		plan = Decide(topology, fresh.View, fresh.Facts, plan)
		if diff := cmp.Diff(fresh.Services, plan.Services, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Fatalf("services depend on the past:\n%s", diff)
		}
	})
}

// No fault leaves a name without an answer, and no answer is one that must not be given.
func TestPropertyPick(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld.Draw(t, "world")
		p := w.decide(t, nil)
		random := rapid.Uint32().Draw(t, "random")
		for i := range p.Services {
			s := &p.Topology.Services[i]
			for _, ipv6 := range []bool{false, true} {
				for _, place := range append(w.places, nowhere) {
					class := p.Topology.classOf(place)
					got := p.Pick(i, class, ipv6, random)
					if (got >= 0) != s.Has(ipv6) {
						t.Fatalf("%s ipv6=%v: Pick = %d although Has = %v", s.Config.Name, ipv6, got, s.Has(ipv6))
					}
					checkShares(t, p, i, class, ipv6, got)
					if got < 0 {
						continue
					}
					site := &p.Services[i].Sites[got]
					if !site.Eligible || len(p.Addresses(i, got, ipv6)) == 0 {
						t.Fatalf("%s ipv6=%v: picked %s, which is out: %+v", s.Config.Name, ipv6, p.Topology.SiteName(i, got), site)
					}
				}
			}
			checkSites(t, p, i, &w)
		}
	})
}

// checkShares holds that shares sum to 1 and include what was picked.
func checkShares(t *rapid.T, p *Plan, service int, class geo.Class, ipv6 bool, picked int) {
	sum, found := 0.0, picked < 0
	for _, s := range p.Shares(service, class, ipv6) {
		sum += s.Probability
		found = found || s.Position == picked
	}
	if !found || (picked >= 0 && (sum < 0.999 || sum > 1.001)) {
		t.Fatalf("picked %d, shares %v", picked, p.Shares(service, class, ipv6))
	}
}

// checkSites holds the reasons against an independent reading of the rules.
func checkSites(t *rapid.T, p *Plan, service int, w *world) {
	s, sp := &p.Topology.Services[service], &p.Services[service]
	fit, known := map[bool]bool{}, map[bool]bool{} // by ipv6
	measured := map[int]bool{}
	type key struct {
		site int
		ipv6 bool
	}
	usable := map[key]bool{}
	for i := range s.Sites {
		name := p.Topology.SiteName(service, i)
		up := 0
		for _, b := range s.Sites[i].Pool.Backends {
			target := fmt.Sprintf("%s/%s/backend/%s", s.Config.Name, name, b.Address)
			if w.verdict[target].Status != health.StatusDown && !slices.Contains(w.assume, b.Address.String()) {
				up++
				measured[i] = measured[i] || w.verdict[target].Status == health.StatusUp
			}
		}
		for _, ipv6 := range []bool{false, true} {
			addrs, targets := s.Sites[i].addresses(ipv6)
			reach := slices.ContainsFunc(targets, func(k int) bool {
				return w.verdict[p.Topology.Layout.Targets[k].String()].Status != health.StatusDown
			})
			usable[key{i, ipv6}] = len(addrs) > 0 && reach && up > 0 && !slices.Contains(w.assume, name)
			fit[ipv6] = fit[ipv6] || usable[key{i, ipv6}]
			known[ipv6] = known[ipv6] || usable[key{i, ipv6}] && measured[i]
		}
	}
	for i := range s.Sites {
		for _, ipv6 := range []bool{false, true} {
			addrs, _ := s.Sites[i].addresses(ipv6)
			want := usable[key{i, ipv6}] && (measured[i] || !known[ipv6]) || (!fit[ipv6] && len(addrs) > 0)
			if got := len(sp.Sites[i].answer(ipv6).Addresses) > 0; got != want {
				t.Fatalf("%s at %s ipv6=%v: answers = %v, want %v", s.Config.Name, p.Topology.SiteName(service, i), ipv6, got, want)
			}
		}
	}
	wantOpen := (s.HasA && !fit[false]) || (s.HasAAAA && !fit[true])
	if sp.FailOpen != wantOpen {
		t.Fatalf("%s: FailOpen = %v, want %v", s.Config.Name, sp.FailOpen, wantOpen)
	}
}

// An order is always a permutation of all sites, in groups that cover it.
func TestPropertyOrdersArePermutations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld.Draw(t, "world")
		p := w.decide(t, nil)
		for i := range p.Services {
			for _, place := range w.places {
				o := p.Topology.order(p.Topology.Services[i].Profile, p.Topology.classOf(place))
				checkOrder(t, p.Topology, p.Topology.Services[i].Profile, place, o)
				if want := p.Topology.orderAt(p.Topology.Services[i].Profile, place); !o.equal(want) {
					t.Fatalf("the class of %+v orders %v, the place itself %v", place, o, want)
				}
				var all []uint16
				for g := range o.groups() {
					if len(o.group(g)) == 0 {
						t.Fatalf("empty group in %v", o)
					}
					all = append(all, o.group(g)...)
				}
				slices.Sort(all)
				for position, got := range all {
					if int(got) != position || len(all) != len(p.Services[i].Sites) {
						t.Fatalf("order %v of %d sites", o, len(p.Services[i].Sites))
					}
				}
			}
		}
	})
}

// checkOrder holds an order against its definition, read step by step.
func checkOrder(t *rapid.T, topology *Topology, profile int, place geo.Place, o *order) {
	p := &topology.profiles[profile]
	v := newVantage(topology.Config.Sites, place)
	zero := func(position uint16) bool { return p.weights != nil && p.weights[position] == 0 }
	compare := func(a, b uint16) int {
		for s := range p.steps {
			if c := int(p.value(&p.steps[s], v, a)) - int(p.value(&p.steps[s], v, b)); c != 0 {
				return c
			}
		}
		switch {
		case zero(a) != zero(b) && zero(b):
			return -1
		case zero(a) != zero(b):
			return 1
		}
		return 0
	}
	var previous []uint16
	for g := range o.groups() {
		group := o.group(g)
		for i := 1; i < len(group); i++ {
			if compare(group[i-1], group[i]) != 0 {
				t.Fatalf("group %v of %v is not tied", group, o)
			}
		}
		if previous == nil {
			previous = group
			continue
		}
		c := compare(previous[0], group[0])
		byName := topology.profileSite(p, previous[0]) < topology.profileSite(p, group[0])
		if c > 0 || (c == 0 && (p.weights != nil || !byName)) {
			t.Fatalf("group %v before %v in %v", previous, group, o)
		}
		previous = group
	}
}

// A route is announced only on measured evidence, and never because of fail-open.
func TestPropertyRoutesNeedEvidence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld.Draw(t, "world")
		p := w.decide(t, nil)
		s := &p.Topology.Services[0]
		evidence := false
		if s.Home >= 0 {
			for i, k := range s.Sites[s.Home].Backends {
				v := w.verdict[p.Topology.Layout.Targets[k].String()]
				assumed := slices.Contains(w.assume, s.Sites[s.Home].Pool.Backends[i].Address.String())
				evidence = evidence || (v.Status == health.StatusUp && !v.Restored && !assumed)
			}
		}
		want := evidence && !slices.Contains(w.assume, "fra")
		if got := p.Routes[0].Announce; got != want || got != (p.Routes[0].Why == ReasonNone) {
			t.Fatalf("route %+v, want announced = %v", p.Routes[0], want)
		}
	})
}
