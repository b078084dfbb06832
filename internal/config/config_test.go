package config_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
)

// comparable options: netip values compare with ==, secrets by value.
var same = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b config.Secret) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

// mustParse fails the test with every mistake.
func mustParse(t testing.TB, name, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse(name, []byte(text), sources())
	var errs config.Errors
	if errors.As(err, &errs) {
		t.Fatalf("refused:\n%s", errs.Pretty())
	}
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func good(t testing.TB, name string) *config.Config {
	t.Helper()
	file := filepath.Join("testdata", "good", name)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, "testdata/"+name, string(data))
}

// TestDefaults: what an operator who writes nothing gets. Changing a default
// changes fleets, so it must change this test too.
var defaultHTTPLimits = config.HTTPLimits{
	HeaderBytes: 16384, HeaderFields: 128, URI: 8192, MinRate: 128, ClientIPv4: 32, ClientIPv6: 64, Clients: 65536, Streams: 128,
}

var defaultHTTPTimes = config.HTTPTimes{
	Header: 10 * time.Second, Body: 30 * time.Second, Write: time.Minute, Connect: 2 * time.Second, Response: time.Minute, Tunnel: time.Hour,
}

func TestDefaults(t *testing.T) {
	got := mustParse(t, "/etc/pharos/pharos.yaml", `
sites:
  fra: {location: FRA, nodes: {fra1: 127.0.0.1}}
services:
  web: {backends: {fra: [10.0.0.1:80]}, vip: {fra: 127.0.1.1}}
  tls: {check: {https: {host: www.example.com:8443}, every: 100ms}, backends: {fra: [{address: 10.0.0.1:80}]}}
zones: {example.com: {records: "@ NS ns", names: {www: {service: web}}}}
listeners: [{bind: ":80", tcp: {service: web}}, {bind: ":81", http: {routes: [{service: web}]}}]
bgp:
  asn: 64500
  peers: {fra: [{address: 127.0.0.9, asn: 64496}]}
  prefixes: [{prefix: 192.0.2.0/24, requires: web}]
tests: [{name: www.example.com, from: DE, expect: fra}]
`)
	backends := []config.Pool{{Site: "fra", Backends: []config.Backend{{Address: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1}}}}
	flap := config.FlapDamping{Limit: 6, HalfLife: time.Minute}
	policy := []config.Policy{{Kind: config.PolicyGeo}, {Kind: config.PolicyNearest}}
	want := &config.Config{
		File:    "/etc/pharos/pharos.yaml",
		Hash:    got.Hash,
		Cluster: config.Cluster{Name: "pharos", Port: 7946, Wait: 5 * time.Second},
		Sites: []config.Site{{
			Name: "fra", Location: got.Sites[0].Location,
			Nodes: []config.Node{{Name: "fra1", Address: netip.MustParseAddr("127.0.0.1")}},
		}},
		Services: []config.Service{
			{
				Name: "tls", Policy: policy, Pools: backends, MinSites: 1,
				Check: config.Check{
					Kind: config.CheckHTTPS, Every: 100 * time.Millisecond, Timeout: 100 * time.Millisecond,
					Jitter: 0.1, Rise: 2, Fall: 3, Recheck: 100 * time.Millisecond, Flap: flap,
					HTTP: config.HTTPCheck{
						Method: "GET", Path: "/", Host: "www.example.com:8443", SNI: "www.example.com",
						Status: []config.StatusRange{{From: 200, To: 399}}, Version: 1,
					},
					TLS: config.TLSCheck{SNI: "www.example.com"},
				},
			},
			{
				Name: "web", Policy: policy, Pools: backends, MinSites: 1,
				Check: config.Check{
					Kind: config.CheckTCP, Every: 2 * time.Second, Timeout: 2 * time.Second,
					Jitter: 0.1, Rise: 2, Fall: 3, Recheck: 250 * time.Millisecond, Flap: flap,
				},
				VIPs: []config.VIP{{Site: "fra", Addresses: []netip.Addr{netip.MustParseAddr("127.0.1.1")}}},
			},
		},
		Zones: []config.Zone{{
			Name: "example.com.", Master: "@ NS ns", MasterFile: "/etc/pharos/pharos.yaml (zones.example.com.records)",
			Names: []config.Name{{FQDN: "www.example.com.", Service: "web", TTL: 30 * time.Second}},
		}},
		Limits: config.Intake{Connections: 16384},
		Listeners: []config.Listener{
			{Bind: config.Bind{Port: 80}, TCP: tcpDefaults("web", 10*time.Minute, 2*time.Second)},
			{Bind: config.Bind{Port: 81}, HTTP: &config.HTTPListener{
				Routes: []config.Route{{Path: "/", Service: "web"}}, Idle: time.Minute,
				TrustedHeader: "x-forwarded-for", XForwarded: "append", Forwarded: "none", Limits: defaultHTTPLimits, Times: defaultHTTPTimes,
			}},
		},
		DNS:  config.DNS{Listen: []config.Bind{{Port: 53}}, UDPSize: 1232, TCPMax: 4096, TCPIdle: 10 * time.Second, ECS: true},
		VIPs: config.VIPs{Linger: 5 * time.Second},
		BGP: config.BGP{
			ASN: 64500, Port: 179, Listen: true, Lease: 3 * time.Second,
			Prefixes:     []config.Prefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Requires: []string{"web"}, Sites: []string{"fra"}, HalfLife: time.Minute, Need: 1}},
			Peers:        []config.Peer{{Site: "fra", Address: netip.MustParseAddr("127.0.0.9"), ASN: 64496, Port: 179, Hold: 9 * time.Second, MaxPrefixes: 10_000}},
			Depreference: config.Depreference{Prepend: 3, MED: 100, LocalPref: 50},
		},
		Drain: config.Drain{Depreference: 30 * time.Second, Connections: 5 * time.Minute, Stop: 15 * time.Second},
		Admin: config.Admin{Socket: "/run/pharos/pharos.sock"},
		Tests: []config.Test{{Name: "www.example.com.", Type: "A", From: "DE", Expect: []string{"fra"}, Line: 13}},
	}
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if loc := got.Sites[0].Location; loc.Text != "FRA" || loc.Country != "DE" || loc.Continent != "EU" || loc.Point.IsZero() {
		t.Errorf("location is %+v", loc)
	}
}

// TestEverything: every key there is arrives where it belongs.
func TestEverything(t *testing.T) {
	cfg := good(t, "everything.yaml")
	addr, addrPort := netip.MustParseAddr, netip.MustParseAddrPort
	publicKey := make([]byte, 32)
	for i := range publicKey {
		publicKey[i] = byte(i + 1)
	}
	var web config.Service
	for _, s := range cfg.Services {
		if s.Name == "web" {
			web = s
		}
	}
	names := map[string]config.Name{}
	for _, n := range cfg.Zones[0].Names {
		names[n.FQDN] = n
	}
	for _, c := range []struct {
		name      string
		want, got any
	}{
		{"cluster", config.Cluster{
			Name: "prod", Port: 7947, Key: config.NewSecret("0123456789abcdef"), Keys: []config.Secret{config.NewSecret("0123456789abcdef")},
			SignKeyFile: "testdata/keys/{node}.key", SeedsDNS: "_gossip._udp.example.com.", SeedsFile: "/etc/pharos/seeds",
			Canaries:      []netip.AddrPort{addrPort("192.0.2.251:443"), addrPort("[2001:db8::251]:53")},
			OverridesFile: "testdata/overrides",
		}, cfg.Cluster},
		{"nodes", []config.Node{{Name: "fra1", Address: addr("198.51.100.11"), Second: addr("2001:db8::11"), VIPInterface: "lo", Zone: "eu-1a", PublicKey: publicKey}, {Name: "fra2.example.net", Address: addr("2001:db8::12"), Second: addr("198.51.100.12"), VIPInterface: "lo", Zone: "eu-1b"}}, cfg.Sites[0].Nodes},
		{"VIPs", config.VIPs{Interface: "lo", Linger: time.Second}, cfg.VIPs},
		{"a node's own interface", "eth1", cfg.Sites[1].Nodes[0].VIPInterface},
		{"country", "FR EU", cfg.Sites[0].Location.Country + " " + cfg.Sites[0].Location.Continent},
		{"network names", []string{"berlin", "branch", "lab", "office"}, []string{cfg.Networks[0].Name, cfg.Networks[1].Name, cfg.Networks[2].Name, cfg.Networks[3].Name}},
		{"network by location", "SG AS", cfg.Networks[1].Place.Country + " " + cfg.Networks[1].Place.Continent},
		{"network unknown", geo.Place{}, cfg.Networks[2].Place},
		{"network", geo.Place{Country: "US", Region: "CA", Continent: "NA", Point: cfg.Networks[3].Place.Point}, cfg.Networks[3].Place},
		{"databases", []string{"testdata/GeoLite2-City.mmdb", "/var/lib/GeoIP/asn.mmdb"}, cfg.Geo.Databases},
		{"policy", []config.Policy{
			{Kind: config.PolicyGeo, Rules: []config.GeoRule{
				{Where: "DE", Sites: []string{"fra"}},
				{Where: "US-CA", Sites: []string{"iad", "sin"}},
				{Where: "continent:EU", Sites: []string{"fra", "iad"}},
				{Where: "default", Sites: []string{"iad"}},
				{Where: "network:office", Sites: []string{"sin"}},
			}},
			{Kind: config.PolicyNearest},
			{Kind: config.PolicyFailover, Order: []string{"fra", "iad"}},
			{Kind: config.PolicyWeighted, Weights: []config.SiteWeight{{Site: "fra", Weight: 3}, {Site: "iad", Weight: 0}}},
		}, web.Policy},
		{"check", config.Check{
			Kind: config.CheckHTTPS, Every: 5 * time.Second, Timeout: time.Second, Jitter: 0.25, Rise: 1, Fall: 5,
			Recheck: 100 * time.Millisecond, VIPPort: 8443,
			Passive: config.PassiveCheck{Fall: 7, For: time.Minute}, Weight: config.WeightSource{Header: "X-Weight"},
			From: config.VantageAll, VIPFrom: 2, SlowStart: 30 * time.Second, Flap: config.FlapDamping{Limit: 10, HalfLife: 30 * time.Second},
			TLS: config.TLSCheck{SNI: "probe.example.com", Insecure: true, MinValid: 336 * time.Hour},
			HTTP: config.HTTPCheck{
				Method: "HEAD", Path: "/healthz?full=1", Host: "www.example.com:8443", SNI: "probe.example.com", Insecure: true,
				Headers: []config.Header{{Name: "X-Dollar", Value: "${PORT}"}, {Name: "X-Number", Value: "7"}, {Name: "X-Probe", Value: "pharos"}, {Name: "X-True", Value: "true"}},
				Status:  []config.StatusRange{{From: 200, To: 200}, {From: 300, To: 304}},
				Version: 3,
			},
		}, web.Check},
		{"balance", config.Balance{
			By: "bounded", Key: "cookie", KeyName: "session", Load: 1.5,
			Limit: config.Limit{PerBackend: 200, Queue: 50, Wait: 2 * time.Second, Rate: 500},
			Eject: config.Eject{
				Errors: 3, SuccessRate: 0.8, Latency: 4, Window: 5 * time.Second, MinWork: 10,
				For: 20 * time.Second, MaxFor: 2 * time.Minute, MaxShare: 0.3,
			},
		}, web.Balance},
		{"panic", 0.4, web.Panic},
		{"overflow", config.Overflow{On: true, To: []string{"sin", "fra"}}, web.Overflow},
		{"limits", config.Intake{Connections: 1000, Rate: 50, SessionRate: 70}, cfg.Limits},
		{"min_sites", 2, web.MinSites},
		{"pools", []config.Pool{
			{Site: "fra", Backends: []config.Backend{{Address: addrPort("10.0.1.10:8080"), Weight: 1}, {Address: addrPort("10.0.1.11:8080"), Weight: 3}}},
			{Site: "iad", Backends: []config.Backend{{Address: addrPort("10.1.1.10:8080"), Weight: 1}}},
			{Site: "sin", Backends: []config.Backend{{Address: addrPort("[2001:db8::1]:8080"), Weight: 1}}},
		}, web.Pools},
		{"vips", []config.VIP{
			{Site: "fra", Addresses: []netip.Addr{addr("198.51.100.80"), addr("2001:db8::80")}},
			{Site: "iad", Addresses: []netip.Addr{addr("203.0.113.80")}},
			{Site: "sin", Addresses: []netip.Addr{addr("192.0.2.80")}},
		}, web.VIPs},
		{"anycast", []netip.Addr{addr("192.0.2.200"), addr("2001:db8::200")}, web.Anycast},
		{"zone", "example.com. testdata/example.com.zone", cfg.Zones[0].Name + " " + cfg.Zones[0].MasterFile},
		{"apex", config.Name{FQDN: "example.com.", Service: "web", TTL: 30 * time.Second}, names["example.com."]},
		{"wildcard", config.Name{FQDN: "*.eu.example.com.", Service: "web", TTL: 30 * time.Second}, names["*.eu.example.com."]},
		{"anycast name", config.Name{FQDN: "any.example.com.", Service: "web", TTL: 30 * time.Second, Anycast: true}, names["any.example.com."]},
		{"absolute name", config.Name{FQDN: "abs.example.com.", Service: "api", TTL: 30 * time.Second}, names["abs.example.com."]},
		{"dns", config.DNS{
			Listen:  []config.Bind{{Host: "node", Port: 53}, {Addr: addr("127.0.0.1"), Port: 5300}},
			UDPSize: 1400, TCPMax: 10, TCPIdle: 2 * time.Second, ServerName: "dns.example.com",
		}, cfg.DNS},
		{"listener", config.Listener{Bind: config.Bind{Host: "vip", Port: 443}, HTTP: &config.HTTPListener{Idle: 30 * time.Second, TrustedHeader: "x-forwarded-for", XForwarded: "append", Forwarded: "none", Limits: defaultHTTPLimits, Times: defaultHTTPTimes, Routes: []config.Route{
			{Host: "www.example.com", Path: "/", Service: "web"}, {Host: "*.example.com", Path: "/api", Service: "api"}, {Path: "/", Service: "web"},
		}}, TLS: &config.TLSListener{
			MinVersion: "1.3", Certificates: []config.Certificate{
				{Certificate: "testdata/www.pem", Key: "/etc/pharos/www.key", OCSP: "testdata/www.ocsp"},
				{Certificate: "/etc/pharos/both.pem", Key: "/etc/pharos/both.pem"},
			},
			Client: &config.TLSClient{
				CA: "testdata/clients.pem", CRL: []string{"testdata/one.crl", "testdata/two.crl"}, Optional: true, OCSP: "try",
			},
		}}, cfg.Listeners[0]},
		{"tcp listener", config.Listener{Bind: config.Bind{Host: "vip", Port: 6379}, TCP: tcpDefaults("api", time.Hour, 500*time.Millisecond)}, cfg.Listeners[1]},
		{"bgp", config.BGP{
			ASN: 64500, Port: 1790, Lease: time.Second, Socket: "testdata/gobgp.sock",
			Prefixes: []config.Prefix{
				{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Requires: []string{"api", "web"}, Sites: []string{"fra"}, HalfLife: time.Minute, Need: 1, Attributes: config.Attributes{
					MED: 7, Communities: []config.Community{{High: 64500, Low: 100}, {High: 65535, Low: 65281}},
					Large: []config.LargeCommunity{{64500, 1, 2}}, Extended: []string{"rt:64500:1"},
				}},
				{Prefix: netip.MustParsePrefix("2001:db8::/48"), Requires: []string{"web"}, Sites: []string{"fra"}, HalfLife: time.Minute, Need: 1, To: []config.PeerRoute{
					{
						Peers:   []netip.Prefix{netip.MustParsePrefix("198.51.100.1/32"), netip.MustParsePrefix("198.51.100.2/32")},
						NextHop: addr("2001:db8::13"), Attributes: config.Attributes{Prepend: 2, Extended: []string{"soo:192.0.2.1:5"}},
					},
					{Peers: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/32"), netip.MustParsePrefix("198.51.100.2/32")}, Deny: true},
				}},
				{
					Prefix: netip.MustParsePrefix("203.0.113.0/24"), Requires: []string{"web"}, Sites: []string{"fra", "iad"},
					MinSites: 1, WarmUp: 20 * time.Second, Standby: []string{"iad"}, StandbyAnnounce: true, LocalOnly: []string{"fra"},
					Capacity: []config.SiteCapacity{{Site: "fra", Units: 10}, {Site: "iad", Units: 5}}, Need: 8,
				},
			},
			Depreference: config.Depreference{MED: 9, LocalPref: 8},
			Peers: []config.Peer{
				{
					Site: "fra", Address: addr("198.51.100.1"), ASN: 4200000000, Port: 179, Hold: 9 * time.Second, Password: config.NewSecret("hunter2"), BFD: config.BFD{Interval: 100 * time.Millisecond, Multiplier: 5, Multihop: true, Strict: true},
					TTLSecurity: 1, MaxPrefixes: 5, Look: true, Group: "transit",
					Attributes: config.Attributes{Prepend: 1, Communities: []config.Community{{High: 64500, Low: 2}, {High: 64500, Low: 1}}},
				},
				{Site: "fra", Address: addr("198.51.100.2"), ASN: 64496, Port: 1790, Hold: 30 * time.Second, Multihop: 4, Password: config.NewSecret("hunter2hunter2"), MaxPrefixes: 10_000, BFD: config.BFD{Interval: 300 * time.Millisecond, Multiplier: 3, Multihop: true, MinTTL: 250}},
				{Site: "fra", Address: addr("2001:db8::1"), ASN: 64500, Port: 1790, Hold: 9 * time.Second, MaxPrefixes: 10_000, Group: "core", Attributes: config.Attributes{LocalPref: 300}},
				{Site: "iad", Address: addr("203.0.113.1"), ASN: 64496, Port: 1790, Hold: 9 * time.Second, MaxPrefixes: 10_000},
			},
		}, cfg.BGP},
		{"drain", config.Drain{Depreference: 10 * time.Second, TrafficBelow: 2.5, Connections: time.Hour, Stop: 20 * time.Second}, cfg.Drain},
		{"admin", config.Admin{Socket: "testdata/pharos.sock", Listen: config.Bind{Addr: addr("127.0.0.1"), Port: 9153}, Token: config.NewSecret("0123456789abcdef")}, cfg.Admin},
		{"test", config.Test{Name: "a.b.eu.example.com.", Type: "A", From: "network:office", Down: []string{"fra", "iad"}, Expect: []string{"sin"}, Line: 181}, cfg.Tests[2]},
	} {
		if diff := cmp.Diff(c.want, c.got, same); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.name, diff)
		}
	}
}

// TestOrder: what is a mapping in the file is sorted, so that two files that say
// the same make the same configuration.
func TestOrder(t *testing.T) {
	a := mustParse(t, "a", "sites: {b: {location: FRA, nodes: {n2: 127.0.0.2, n1: 127.0.0.1}}, a: {location: FRA, nodes: {n3: 127.0.0.3}}}")
	b := mustParse(t, "a", "sites: {a: {location: FRA, nodes: {n3: 127.0.0.3}}, b: {location: FRA, nodes: {n1: 127.0.0.1, n2: 127.0.0.2}}}")
	b.Hash = a.Hash
	if diff := cmp.Diff(a, b, same); diff != "" {
		t.Error(diff)
	}
}
