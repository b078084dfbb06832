package lab

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/node"
)

// layoutOf plans a lab of a configuration in testdata.
func layoutOf(t testing.TB, file string, nodes ...string) *Layout {
	t.Helper()
	setup, err := node.Load("testdata/"+file, "")
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLayout("t", setup.Config, nodes, false)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLayout(t *testing.T) {
	l := layoutOf(t, "three.yaml")
	got := map[string]string{}
	for _, m := range l.Members {
		var text []string
		for _, a := range m.Own {
			text = append(text, a.String())
		}
		text = append(text, "|")
		for _, a := range m.Shared {
			text = append(text, a.String())
		}
		got[m.Name+" "+string(m.Role)+" "+m.Link] = strings.Join(text, " ")
	}
	want := map[string]string{
		"fra1 node n0":       "10.91.1.1 | 10.91.1.81 10.91.1.80",
		"iad1 node n1":       "10.91.2.1 | 10.91.2.81 10.91.2.80",
		"sin1 node n2":       "10.91.3.1 | 10.91.3.80",
		"fra-be backends n3": "10.91.1.21 10.91.1.11 10.91.1.12 |",
		"iad-be backends n4": "10.91.2.21 10.91.2.11 10.91.2.12 |",
		"sin-be backends n5": "10.91.3.11 10.91.3.12 |",
		"client client n6":   "198.18.255.53 2001:2:0:ffff::53 46.4.0.1 8.8.8.1 203.116.0.1 |",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := l.DNS[1].String(); got != "10.91.2.1:53" {
		t.Errorf("iad1 is asked at %s", got)
	}
}

// Canaries answer, and outside of every site: without them all nodes would
// doubt themselves, and nothing that they find would count.
func TestLayoutCanaries(t *testing.T) {
	setup, err := node.Load("testdata/three.yaml", "")
	if err != nil {
		t.Fatal(err)
	}
	canary := netip.MustParseAddrPort("192.0.2.53:53")
	setup.Config.Cluster.Canaries = []netip.AddrPort{canary}
	l, err := NewLayout("t", setup.Config, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	client := len(l.Members) - 1
	if m := l.Members[client]; m.Role != RoleClient || !slices.Contains(m.Own, canary.Addr()) || m.first(0) != clientAddrs[0] {
		t.Errorf("the canary is not the client's: %+v", m)
	}
	got := l.Backends[len(l.Backends)-1]
	if got.Service != "(canary)" || got.Address != canary || !slices.Equal(got.Members, []int{client}) {
		t.Errorf("the last of what answers is %+v", got)
	}
	if f := (Fault{Kind: FaultBackend, A: canary.String()}); f.check(l) != nil {
		t.Errorf("%s: %v", f, f.check(l))
	}
}

// Who has no address of a family that VIPs have could not look at them: the lab gives it one.
func TestLayoutSources(t *testing.T) {
	l := layoutOf(t, "../../../examples/three-sites.yaml")
	want := netip.MustParseAddr("2001:2:0:fffe::")
	for _, m := range l.Members {
		if m.Role != RoleNode {
			continue
		}
		want = want.Next()
		if len(m.Own) != 2 || m.first(1) != want {
			t.Errorf("%s has %v, want %s for IPv6", m.Name, m.Own, want)
		}
	}
}

// Every shared address is carried by every node of its site, the first preferred.
func TestLayoutShared(t *testing.T) {
	l := layoutOf(t, "nine.yaml")
	for _, s := range l.Shared {
		if s.Addr == netip.MustParseAddr("10.91.2.80") {
			if diff := cmp.Diff([]int{3, 4, 5}, s.Members); diff != "" {
				t.Error(diff)
			}
			return
		}
	}
	t.Error("the VIP of iad is missing")
}

func TestLayoutSubset(t *testing.T) {
	l := layoutOf(t, "nine.yaml", "fra2", "iad1")
	if diff := cmp.Diff([]string{"fra2", "iad1"}, l.Nodes()); diff != "" {
		t.Error(diff)
	}
	for _, b := range l.Backends {
		if b.Site == "sin" {
			t.Errorf("backend %s of a site without a node", b.Address)
		}
	}
	if _, err := l.Find("sin"); err == nil {
		t.Error("a site without a node is found")
	}
}

// fleet is a configuration in Go, for what no valid file can show.
func fleet(nodes map[string]string, backend string) *config.Config {
	cfg := &config.Config{File: "x.yaml", DNS: config.DNS{Listen: []config.Bind{{Port: 53}}}}
	for _, name := range []string{"core", "fra", "fra-be", "fra1", "fra2"} {
		if addr, ok := nodes[name]; ok {
			if len(cfg.Sites) == 0 {
				cfg.Sites = []config.Site{{Name: "fra"}}
			}
			cfg.Sites[0].Nodes = append(cfg.Sites[0].Nodes, config.Node{Name: name, Address: netip.MustParseAddr(addr)})
		}
	}
	cfg.Services = []config.Service{{
		Name: "web", VIPs: []config.VIP{{Site: "fra", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.80")}}},
		Pools: []config.Pool{{Site: "fra", Backends: []config.Backend{{Address: netip.MustParseAddrPort(backend)}}}},
	}}
	return cfg
}

func TestLayoutRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, id string
		cfg      *config.Config
		only     []string
		want     string // "" = fine
	}{
		{"fine", "a1", fleet(map[string]string{"fra1": "10.0.0.1"}, "10.0.0.10:80"), nil, ""},
		{"dash in the lab's name", "a-b", fleet(map[string]string{"fra1": "10.0.0.1"}, "10.0.0.10:80"), nil, "lab name"},
		{"path in the lab's name", "../x", fleet(map[string]string{"fra1": "10.0.0.1"}, "10.0.0.10:80"), nil, "lab name"},
		{"loopback", "a", fleet(map[string]string{"fra1": "127.0.0.1"}, "10.0.0.10:80"), nil, "loopback"},
		{"unknown node", "a", fleet(map[string]string{"fra1": "10.0.0.1"}, "10.0.0.10:80"), []string{"fra9"}, `no node "fra9"`},
		{"node called core", "a", fleet(map[string]string{"core": "10.0.0.1"}, "10.0.0.10:80"), nil, `called "core"`},
		{"node called as its site", "a", fleet(map[string]string{"fra": "10.0.0.1"}, "10.0.0.10:80"), nil, `called "fra"`},
		{"node called as the backends", "a", fleet(map[string]string{"fra-be": "10.0.0.1"}, "10.0.0.10:80"), nil, `called "fra-be"`},
		{"backend at a VIP", "a", fleet(map[string]string{"fra1": "10.0.0.1"}, "10.0.0.80:80"), nil, "also a VIP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewLayout(tt.id, tt.cfg, tt.only, false)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// A backend stands in the namespace that has its address.
func TestBackendHost(t *testing.T) {
	nodes := map[string]string{"fra1": "10.0.0.1", "fra2": "10.0.0.2"}
	for _, tt := range []struct {
		name, backend string
		want          []int
	}{
		{"its own", "10.0.0.10:80", []int{2}},
		{"a node's", "10.0.0.2:8080", []int{1}},
		{"loopback: on every node", "127.0.0.1:8080", []int{0, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := NewLayout("a", fleet(nodes, tt.backend), nil, false)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, l.Backends[0].Members); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBackendChecks(t *testing.T) {
	http := func(h config.HTTPCheck) config.Check { return config.Check{Kind: config.CheckHTTP, HTTP: h} }
	for _, tt := range []struct {
		name  string
		check config.Check
		want  BackendPlan
	}{
		{"tcp", config.Check{Kind: config.CheckTCP}, BackendPlan{Status: 200}},
		{"status in range", http(config.HTTPCheck{Status: []config.StatusRange{{From: 200, To: 399}}}), BackendPlan{Status: 200}},
		{"another status", http(config.HTTPCheck{Status: []config.StatusRange{{From: 204, To: 204}}}), BackendPlan{Status: 204}},
		{"body", http(config.HTTPCheck{Body: "fine"}), BackendPlan{Status: 200, Body: "fine\n"}},
		{"regexp", http(config.HTTPCheck{BodyRegexp: "."}), BackendPlan{Status: 200, Missing: "a body that matches a regular expression"}},
		{
			"https",
			config.Check{Kind: config.CheckHTTPS, HTTP: config.HTTPCheck{SNI: "a.test", Host: "b.test:8443"}},
			BackendPlan{Status: 200, TLS: true, Hosts: []string{"a.test", "b.test:8443"}},
		},
		{"grpc", config.Check{Kind: config.CheckGRPC}, BackendPlan{Status: 200, Missing: "grpc checks"}},
		{
			"all of",
			config.Check{Kind: config.CheckAll, Of: []config.WeightedCheck{
				{Check: config.Check{Kind: config.CheckTCP}}, {Check: config.Check{Kind: config.CheckDNS}},
			}},
			BackendPlan{Status: 200, Missing: "dns checks"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := BackendPlan{Status: 200}
			got.satisfy(tt.check)
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Two services that want different things of one address: the first is served, the table says so.
func TestBackendShared(t *testing.T) {
	p := BackendPlan{Service: "a", Status: 200}
	if p.share(BackendPlan{Service: "b", Status: 204}); !strings.Contains(p.Missing, "service b") {
		t.Errorf("%q", p.Missing)
	}
}
