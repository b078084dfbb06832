package steer

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// zonedFleet has a site of nodes and backends in the zones that are named, a letter each; "-" is none.
func zonedFleet(nodes, backends string) *config.Config {
	svc := service(steps(config.PolicyGeo), "fra", "iad")
	svc.Pools[0].Backends = nil
	zone := func(c rune) string {
		if c == '-' {
			return ""
		}
		return string(c)
	}
	for i, c := range backends {
		svc.Pools[0].Backends = append(svc.Pools[0].Backends, config.Backend{Address: backend("fra", byte(i+1)), Weight: 1, Zone: zone(c)})
	}
	cfg := fleet(svc)
	fra := slices.IndexFunc(cfg.Sites, func(s config.Site) bool { return s.Name == "fra" })
	cfg.Sites[fra].Nodes = nil
	for i, c := range nodes {
		cfg.Sites[fra].Nodes = append(cfg.Sites[fra].Nodes, config.Node{Name: fmt.Sprintf("fra%d", i+1), Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), Zone: zone(c)})
	}
	return cfg
}

// TestZones: what stays, where the rest goes, and that the nodes of a site together give every backend what its weight is due.
func TestZones(t *testing.T) {
	for _, c := range []struct {
		name            string
		nodes, backends string
		down            []int // backends
		silent          string
		want            []string // by node
	}{
		{"no zones", "--", "--", nil, "", []string{"", ""}},
		{"nodes alone have zones", "ab", "--", nil, "", []string{"", ""}},
		{"even", "ab", "aabb", nil, "", []string{"zone a: all stays", "zone b: all stays"}},
		{"one of b's is down", "ab", "aabb", []int{3}, "", []string{"zone a: all stays", "zone b: 67 % stays, the rest to a"}},
		{"all of b's are down", "ab", "aabb", []int{2, 3}, "", []string{"zone a: all stays", "zone b: 0 % stays, the rest to a"}},
		{"all are down", "ab", "aabb", []int{0, 1, 2, 3}, "", []string{"", ""}},
		{"a zone without backends", "abc", "aabb", nil, "", []string{"zone a: all stays", "zone b: all stays", "zone c: 0 % stays, the rest to a, b"}},
		{"a zone without nodes", "ab", "aabbcc", nil, "", []string{"zone a: 67 % stays, the rest to c", "zone b: 67 % stays, the rest to c"}},
		{"a backend without a zone", "ab", "ab-", nil, "", []string{"zone a: 67 % stays, the rest to none", "zone b: 67 % stays, the rest to none"}},
		{"more nodes in a", "aab", "ab", nil, "", []string{"zone a: 75 % stays, the rest to b", "zone a: 75 % stays, the rest to b", "zone b: all stays"}},
		{"a node of a is not heard", "aab", "ab", nil, "fra2", []string{"zone a: all stays", "", "zone b: all stays"}},
		{"b's node is not heard", "ab", "ab", nil, "fra2", []string{"zone a: 50 % stays, the rest to b", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := make([]float64, len(c.backends)) // by backend, of all nodes
			live, work := 0.0, 0.0
			for i := range c.nodes {
				self := fmt.Sprintf("fra%d", i+1)
				if self == c.silent {
					continue
				}
				live++
				topology := compile(t, zonedFleet(c.nodes, c.backends), self)
				verdicts := make(map[string]health.Verdict)
				for _, d := range c.down {
					verdicts["web/fra/backend/"+backend("fra", byte(d+1)).String()] = down(0)
				}
				v := view(t, topology, verdicts)
				for k := range c.nodes {
					name := fmt.Sprintf("fra%d", k+1)
					v.Witnesses = append(v.Witnesses, health.Witness{Name: name, Fresh: name != c.silent && name != self})
				}
				p := Decide(topology, v, Facts{Now: now}, nil)
				pool, _, _ := p.Pool(0)
				split, text := p.Zones(0), ""
				if split != nil {
					text = split.Text(pool)
				}
				if text != c.want[i] {
					t.Errorf("%s: got %q, want %q", self, text, c.want[i])
				}
				if split == nil {
					continue
				}
				work++
				near, far := 0.0, 0.0
				weight := func(k int) float64 {
					if slices.Contains(c.down, k) {
						return 0
					}
					return float64(p.Weight(0, k))
				}
				for k := range pool.Backends {
					far += split.Far[k]
					if split.Near[k] {
						near += weight(k)
					}
				}
				for k := range pool.Backends {
					if split.Near[k] && near > 0 {
						got[k] += split.Stays * weight(k) / near
					}
					if far > 0 {
						got[k] += (1 - split.Stays) * split.Far[k] / far
					}
				}
			}
			if work == 0 {
				return
			}
			want := live / float64(len(c.backends)-len(c.down))
			for k, share := range got {
				if slices.Contains(c.down, k) {
					if share != 0 {
						t.Errorf("backend %d is down and gets %.3f", k, share)
					}
				} else if math.Abs(share-want) > 1e-9 {
					t.Errorf("backend %d gets %.3f of a node's work, want %.3f", k, share, want)
				}
			}
		})
	}
}
