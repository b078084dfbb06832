package steer

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/config"
)

func TestWeight(t *testing.T) {
	s := service(steps(config.PolicyGeo), "fra", "iad")
	s.Pools[0].Backends[0].Weight = 3
	topology := compile(t, fleet(s), "fra1")
	percent := func(list ...uint8) []uint8 {
		weights := make([]uint8, len(topology.Layout.Targets))
		for i := range weights {
			weights[i] = 100
		}
		copy(weights, list)
		return weights
	}
	for _, c := range []struct {
		name    string
		weights []uint8
		orders  []string
		want    string
	}{
		{"none", nil, nil, "300 100"},
		{"all of it", percent(), nil, "300 100"},
		{"a share", percent(50, 1), nil, "150 1"},
		{"no new work", percent(0, 1), nil, "0 1"},
		{"all want none", percent(0, 0), nil, "300 100"},
		{"all that are active want none", percent(0, 50), []string{"drain backend/web/fra/10.0.2.2:8080"}, "300 50"},
		{"more than all", percent(200, 100), nil, "300 100"},
		{"of another layout", percent(0)[:1], nil, "300 100"},
	} {
		t.Run(c.name, func(t *testing.T) {
			orders := ordered(t, c.orders...)
			p := Decide(topology, view(t, topology, nil), Facts{Now: now, Weights: c.weights, Overrides: orders}, nil)
			if got := fmt.Sprint(p.Weight(0, 0), p.Weight(0, 1)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			plain := Decide(topology, view(t, topology, nil), Facts{Now: now, Overrides: orders}, nil)
			if diff := cmp.Diff(plain.Services, p.Services, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || plain.Fingerprint() != p.Fingerprint() {
				t.Errorf("weights of this node change what all nodes decide alike:\n%s", diff)
			}
			for _, bad := range [][2]int{{0, -1}, {0, 2}, {-1, 0}, {1, 0}} {
				if got := p.Weight(bad[0], bad[1]); got != 0 {
					t.Errorf("Weight(%v) = %d, want 0", bad, got)
				}
			}
		})
	}
}
