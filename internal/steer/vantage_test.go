package steer

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// observers returns which sites probe each target, one node of each asked.
func observers(topology *Topology) map[string]string {
	seen := make(map[string]string)
	for _, node := range []string{"ams1", "fra1", "iad1", "sin1"} {
		for _, p := range topology.Probes(node) {
			name := p.Target.String()
			seen[name] = strings.TrimPrefix(seen[name]+" "+topology.Fleet.Sites[node], " ")
		}
	}
	return seen
}

func TestProbesByVantage(t *testing.T) {
	const fraBackend, fraVIP = "web/fra/backend/10.0.2.1:8080", "web/fra/vip/198.51.100.2:8080"
	all := []string{"ams", "fra", "iad", "sin"}
	chosen := func(kind health.Kind, n health.Vantage) string {
		target := health.Target{Kind: kind, Service: "web", Site: "fra", Addr: backend("fra", 1)}
		return strings.Join(health.Observers(target, n, all), " ")
	}
	hashes := make(map[uint64]bool)
	for _, c := range []struct {
		name          string
		from, vipFrom config.Vantage
		backend, vip  string // "" = that many, checked by number
		nBackend      int
		nVIP          int
	}{
		{"default", 0, 0, "fra", "ams iad sin", 1, 3},
		{"all", config.VantageAll, 0, "ams fra iad sin", "ams iad sin", 4, 3},
		{"one other", 1, 0, chosen(health.KindBackend, 1), "ams iad sin", 2, 3},
		{"two observe the VIP", 0, 2, "fra", "", 1, 2},
		{"more than there are", 9, 9, "ams fra iad sin", "ams iad sin", 4, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := service(steps(config.PolicyGeo), "fra", "iad")
			s.Check.From, s.Check.VIPFrom = c.from, c.vipFrom
			topology := compile(t, fleet(s), "")
			hashes[topology.Layout.Hash] = true
			got := observers(topology)
			if c.backend != "" && got[fraBackend] != c.backend || c.vip != "" && got[fraVIP] != c.vip {
				t.Errorf("backend from %q, VIP from %q, want %q and %q", got[fraBackend], got[fraVIP], c.backend, c.vip)
			}
			for target, sites := range got {
				want := c.nBackend
				if strings.Contains(target, "/vip/") {
					want = c.nVIP
				}
				if n := len(strings.Fields(sites)); n != want {
					t.Errorf("%s is probed from %s, want %d sites", target, sites, want)
				}
			}
			for i, target := range topology.Layout.Targets {
				want := strings.Join(health.Observers(target, topology.Layout.Vantage(i), all), " ")
				if got[target.String()] != want {
					t.Errorf("%s is probed from %s; the judge counts %s", target, got[target.String()], want)
				}
			}
		})
	}
	if len(hashes) != 5 {
		t.Errorf("%d layouts for 5 vantages: nodes that probe differently would read each other's reports", len(hashes))
	}
}

// Which check the VIPs get for each kind, with no listener, behind a TCP and behind an HTTP listener.
func TestVIPCheckKinds(t *testing.T) {
	tcp := []config.Listener{{Bind: config.Bind{Host: "vip", Port: 443}, TCP: &config.TCPListener{Service: "web"}}}
	http := []config.Listener{{Bind: config.Bind{Host: "vip", Port: 80}, HTTP: &config.HTTPListener{Routes: []config.Route{{Host: "", Path: "/", Service: "web"}}}}}
	of := func(kinds ...config.CheckKind) []config.WeightedCheck {
		var list []config.WeightedCheck
		for i, k := range kinds {
			list = append(list, config.WeightedCheck{Weight: i + 1, Check: config.Check{Kind: k, HTTP: config.HTTPCheck{Path: "/"}}})
		}
		return list
	}
	text := func(c config.Check) string {
		parts := []string{string(c.Kind)}
		if c.DNS.TCP {
			parts = append(parts, "over tcp")
		}
		for _, w := range c.Of {
			parts = append(parts, string(w.Check.Kind)+strings.Repeat("+", w.Weight))
		}
		return strings.Join(parts, " ")
	}
	for _, c := range []struct {
		check                    config.Check
		direct, behind, routedBy string
	}{
		{config.Check{Kind: config.CheckTCP}, "tcp", "tcp", "tcp"},
		{config.Check{Kind: config.CheckTLS, TLS: config.TLSCheck{SNI: "a"}}, "tls", "tls", "tcp"},
		{config.Check{Kind: config.CheckHTTP}, "http", "http", "http"},
		{config.Check{Kind: config.CheckHTTPS, TLS: config.TLSCheck{MinValid: 1}}, "https", "https", "http"},
		{config.Check{Kind: config.CheckDNS, DNS: config.DNSCheck{Name: "a."}}, "dns", "dns over tcp", "tcp"},
		{config.Check{Kind: config.CheckUDP, UDP: config.UDPCheck{Send: "a"}}, "udp", "tcp", "tcp"},
		{config.Check{Kind: config.CheckGRPC, GRPC: config.GRPCCheck{Service: "a"}}, "grpc", "grpc", "tcp"},
		{config.Check{Kind: config.CheckICMP}, "icmp", "icmp", "icmp"},
		{config.Check{Kind: config.CheckExec, Exec: config.ExecCheck{User: "a"}}, "tcp", "tcp", "tcp"},
		{config.Check{Kind: config.CheckFile, File: config.FileCheck{Path: "a"}}, "tcp", "tcp", "tcp"},
		{config.Check{Kind: config.CheckPassive}, "tcp", "tcp", "tcp"},
		{config.Check{Kind: config.CheckAll, Of: of("http", "exec")}, "all http+ tcp++", "all http+ tcp++", "all http+ tcp++"},
		{config.Check{Kind: config.CheckAny, Of: of("file", "tls")}, "any tcp+ tls++", "any tcp+ tls++", "tcp"},
		{config.Check{Kind: config.CheckAtLeast, Need: 2, Of: of("file", "exec")}, "tcp", "tcp", "tcp"},
	} {
		for _, l := range []struct {
			listeners []config.Listener
			want      string
			port      uint16
		}{{nil, c.direct, 8080}, {tcp, c.behind, 443}, {http, c.routedBy, 80}} {
			s := service(steps(config.PolicyGeo), "fra", "iad")
			c.check.Passive = config.PassiveCheck{Fall: 3}
			c.check.Weight = config.WeightSource{Header: "Load"}
			c.check.SlowStart, c.check.Every, c.check.HTTP.Version = 5, 7, 3
			s.Check = c.check
			cfg := fleet(s)
			cfg.Listeners = l.listeners
			p := compile(t, cfg, "").Probes("sin1")[0]
			if got := text(p.Check); got != l.want || p.Target.Addr.Port() != l.port {
				t.Errorf("%s, %d listeners: got %q at port %d, want %q at %d", text(c.check), len(l.listeners), got, p.Target.Addr.Port(), l.want, l.port)
			}
			if p.Check.Passive != (config.PassiveCheck{}) || p.Check.Weight != (config.WeightSource{}) || p.Check.SlowStart != 0 {
				t.Errorf("%s: the VIP's check has parts for backends: %+v", text(c.check), p.Check)
			}
			if p.Check.Every != 7 {
				t.Errorf("%s: the schedule was lost", text(c.check))
			}
			if p.Check.Kind == config.CheckTCP && c.check.Kind != config.CheckTCP {
				bare := config.Check{Kind: config.CheckTCP, Every: 7}
				if diff := cmp.Diff(bare, p.Check); diff != "" {
					t.Errorf("%s: more than a connection (-want +got):\n%s", text(c.check), diff)
				}
			}
			if want := map[bool]int{true: 3, false: 1}[l.listeners == nil]; (p.Check.Kind == "http" || p.Check.Kind == "https") && p.Check.HTTP.Version != want {
				t.Errorf("%s: HTTP version %d through %d listeners, want %d", text(c.check), p.Check.HTTP.Version, len(l.listeners), want)
			}
			if p.Check.Kind == "http" && p.Check.TLS != (config.TLSCheck{}) {
				t.Errorf("%s: TLS settings in a plain check", text(c.check))
			}
		}
		// What the node itself asks of its backends stays the service's own check.
		s := service(steps(config.PolicyGeo), "fra", "iad")
		s.Check = c.check
		cfg := fleet(s)
		cfg.Listeners = http
		if diff := cmp.Diff(c.check, compile(t, cfg, "").Probes("fra1")[0].Check); diff != "" {
			t.Errorf("%s: the backends' check was changed:\n%s", text(c.check), diff)
		}
	}
}

// A ping needs no port, so none that is shared is asked for.
func TestPingNeedsNoPort(t *testing.T) {
	s := service(steps(config.PolicyGeo), "fra", "iad")
	s.Pools[0].Backends[0].Address = netip.MustParseAddrPort("10.0.2.1:9000")
	if _, err := Compile(fleet(s), nil, ""); err == nil {
		t.Error("backends without a shared port: no error")
	}
	s.Check = config.Check{Kind: config.CheckICMP}
	topology := compile(t, fleet(s), "")
	if p := topology.Probes("sin1")[0]; p.Check.Kind != config.CheckICMP || p.Target.Addr.Port() != 9000 {
		t.Errorf("%+v", p)
	}
}
