package steer

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

func weightedAt(weights map[string]int, at ...string) config.Service {
	p := config.Policy{Kind: config.PolicyWeighted}
	for _, site := range at {
		if w, ok := weights[site]; ok {
			p.Weights = append(p.Weights, config.SiteWeight{Site: site, Weight: w})
		}
	}
	return service([]config.Policy{p}, at...)
}

func TestPick(t *testing.T) {
	topology := compile(t, fleet(service([]config.Policy{{Kind: config.PolicyFailover, Order: []string{"iad", "fra"}}}, "ams", "fra", "iad")), "")
	for _, c := range []struct {
		name     string
		verdicts map[string]health.Verdict
		want     string
	}{
		{"the first", nil, "iad"},
		{"the next", poolDown("iad"), "fra"},
		{"the rest", poolDown("iad", "fra"), "ams"},
		{"the first again when all are down", poolDown("iad", "fra", "ams"), "iad"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Decide(topology, view(t, topology, c.verdicts), Facts{}, nil)
			if got := topology.SiteName(0, p.Pick(0, 0, false, 0)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if got := topology.SiteName(0, p.Pick(0, 1<<31, false, 0)); got != c.want {
				t.Errorf("a class that does not exist: got %s, want %s", got, c.want)
			}
			if got := p.Pick(0, 0, true, 0); got != -1 {
				t.Errorf("IPv6: got %d, want -1", got)
			}
		})
	}
	p := Decide(topology, nil, Facts{}, nil)
	for _, service := range []int{-1, 1} {
		if got := p.Pick(service, 0, false, 0); got != -1 {
			t.Errorf("service %d: got %d, want -1", service, got)
		}
		if got := p.Shares(service, 0, false); got != nil {
			t.Errorf("service %d: got %v, want none", service, got)
		}
	}
	for _, position := range []int{-1, 3} {
		if got := p.Addresses(0, position, false); got != nil {
			t.Errorf("position %d: got %v, want none", position, got)
		}
	}
}

func TestPickWeighted(t *testing.T) {
	weights := map[string]int{"ams": 1, "fra": 3, "iad": 0}
	for _, c := range []struct {
		name     string
		verdicts map[string]health.Verdict
		want     map[string]float64
	}{
		{"by weight", nil, map[string]float64{"ams": 0.2, "fra": 0.6, "sin": 0.2}},
		{"one down", poolDown("fra"), map[string]float64{"ams": 0.5, "sin": 0.5}},
		{"one left", poolDown("fra", "sin"), map[string]float64{"ams": 1}},
		{"weight 0 when nothing else is left", poolDown("ams", "fra", "sin"), map[string]float64{"iad": 1}},
		{"fail-open by weight", poolDown("ams", "fra", "iad", "sin"), map[string]float64{"ams": 0.2, "fra": 0.6, "sin": 0.2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			topology := compile(t, fleet(weightedAt(weights, "ams", "fra", "iad", "sin")), "")
			p := Decide(topology, view(t, topology, c.verdicts), Facts{}, nil)
			shares := make(map[string]float64)
			for _, s := range p.Shares(0, 0, false) {
				shares[topology.SiteName(0, s.Position)] = s.Probability
			}
			if diff := cmp.Diff(c.want, shares); diff != "" {
				t.Errorf("shares (-want +got):\n%s", diff)
			}
			// The whole range of random in even steps must give just these shares.
			const samples = 10_000
			counts := make(map[string]int)
			for i := range uint64(samples) {
				counts[topology.SiteName(0, p.Pick(0, 0, false, uint32(i*math.MaxUint32/(samples-1))))]++
			}
			for site, n := range counts {
				if got, want := float64(n)/samples, c.want[site]; math.Abs(got-want) > 0.001 {
					t.Errorf("%s was picked %.4f of the time, want %.4f", site, got, want)
				}
			}
		})
	}
}

func TestPickDoesNotAllocate(t *testing.T) {
	topology := compile(t, fleet(everywhere(steps(config.PolicyGeo, config.PolicyNearest, config.PolicyWeighted)...)), "")
	p := Decide(topology, view(t, topology, poolDown("ams")), Facts{}, nil)
	if n := testing.AllocsPerRun(100, func() {
		position := p.Pick(0, 0, false, 1)
		_ = p.Addresses(0, position, false)
		_ = p.TTL(&topology.Config.Zones[0].Names[0])
	}); n != 0 {
		t.Errorf("%v allocations a query, want none", n)
	}
}
