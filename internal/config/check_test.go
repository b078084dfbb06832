package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/config"
)

// TestCheckKinds: every kind of check arrives as it was written.
func TestCheckKinds(t *testing.T) {
	checks := map[string]config.Check{}
	for _, s := range good(t, "everything.yaml").Services {
		checks[s.Name] = s.Check
	}
	part := func(weight int, c config.Check) config.WeightedCheck {
		return config.WeightedCheck{Weight: weight, Check: c}
	}
	https := func(path string) config.Check {
		return config.Check{Kind: config.CheckHTTPS, HTTP: config.HTTPCheck{
			Method: "GET", Path: path, Status: []config.StatusRange{{From: 200, To: 399}}, Version: 1,
		}}
	}
	tcp, icmp := config.Check{Kind: config.CheckTCP}, config.Check{Kind: config.CheckICMP}
	for _, tt := range []struct {
		name string
		want config.Check // without the schedule's defaults
	}{
		{"api", config.Check{
			Kind: config.CheckHTTP, From: 1, Weight: config.WeightSource{JSON: "$.weight"},
			HTTP: config.HTTPCheck{
				Method: "GET", Path: "/", Status: []config.StatusRange{{From: 204, To: 204}}, Body: "ok: yes", BodyRegexp: "(?i)^ok", Version: 2,
				JSON: []config.JSONMatch{{Path: `$.nodes[0]["up"]`, Value: "true"}, {Path: "$.status", Value: "ok"}},
			},
		}},
		{"tls", config.Check{Kind: config.CheckTLS, TLS: config.TLSCheck{SNI: "db.example.com", Insecure: true, MinValid: 24 * time.Hour}}},
		{"dns", config.Check{Kind: config.CheckDNS, DNS: config.DNSCheck{
			Name: "www.example.com.", Type: "MX", TCP: true, RCode: "NOERROR", Expect: []string{"10 mail.example.com."},
		}}},
		{"nxdomain", config.Check{Kind: config.CheckDNS, DNS: config.DNSCheck{Name: "_x.example.com.", Type: "A", RCode: "NXDOMAIN"}}},
		{"udp", config.Check{Kind: config.CheckUDP, UDP: config.UDPCheck{Send: "\xff\xff\x00", Expect: "pong"}}},
		{"grpc", config.Check{Kind: config.CheckGRPC, GRPC: config.GRPCCheck{Service: "shop.Cart", TLS: true, SNI: "cart.example.com", Insecure: true}}},
		{"icmp", icmp},
		{"exec", config.Check{Kind: config.CheckExec, Exec: config.ExecCheck{Command: []string{"/usr/bin/check", "{host}", "", "{json}"}, User: "nobody"}}},
		{"file", config.Check{Kind: config.CheckFile, File: config.FileCheck{Path: "/feed/{service}/{address}", MaxAge: time.Minute}}},
		{"feed", config.Check{Kind: config.CheckFile, File: config.FileCheck{Path: "/run/feed", MaxAge: 9 * time.Second}}},
		{"passive", config.Check{Kind: config.CheckPassive, Passive: config.PassiveCheck{Fall: 5, For: 10 * time.Second}}},
		{"combined", config.Check{
			Kind: config.CheckAtLeast, Need: 3, Passive: config.PassiveCheck{Fall: 5, For: 10 * time.Second},
			Of: []config.WeightedCheck{
				part(2, https("/deep")),
				part(1, tcp),
				part(1, config.Check{Kind: config.CheckAny, Of: []config.WeightedCheck{
					part(1, icmp),
					part(1, config.Check{Kind: config.CheckAll, Of: []config.WeightedCheck{
						part(1, config.Check{Kind: config.CheckFile, File: config.FileCheck{Path: "/run/feed", MaxAge: 12 * time.Second}}),
						part(1, config.Check{Kind: config.CheckTLS, TLS: config.TLSCheck{MinValid: time.Hour}}),
					}}),
				}}),
			},
		}},
		{"either", config.Check{Kind: config.CheckAny, Of: []config.WeightedCheck{part(1, tcp), part(1, config.Check{Kind: config.CheckGRPC})}}},
		{"both", config.Check{Kind: config.CheckAll, Of: []config.WeightedCheck{part(1, tcp), part(1, https("/"))}}},
	} {
		got := checks[tt.name]
		got.Every, got.Timeout, got.Recheck, got.Jitter, got.Rise, got.Fall, got.Flap = 0, 0, 0, 0, 0, 0, config.FlapDamping{}
		if diff := cmp.Diff(tt.want, got, same); diff != "" {
			t.Errorf("%s: -want +got:\n%s", tt.name, diff)
		}
	}
	if got := checks["api"].Flap; got != (config.FlapDamping{}) {
		t.Errorf("flap: off is read as %+v", got)
	}
}

// TestKeyring: all keys of the file are read, the first is the one to send with,
// and none of it is in the hash, for the nodes of a fleet differ while they rotate.
func TestKeyring(t *testing.T) {
	const text = "cluster: {secret_file: %s}\nsites: {fra: {location: FRA, nodes: {fra1: 198.51.100.11}}}\n"
	c := mustParse(t, "testdata/pharos.yaml", fmt.Sprintf(text, "ring.key")).Cluster
	long, short := config.NewSecret("0123456789abcdef0123456789abcdef"), config.NewSecret("0123456789abcdef")
	if diff := cmp.Diff([]config.Secret{long, short}, c.Keys, same); diff != "" || c.Key != long {
		t.Errorf("keys: -want +got:\n%s", diff)
	}
	if c.KeyFile != "testdata/ring.key" {
		t.Errorf("key file is %q", c.KeyFile)
	}
	hash := func(ring string) uint64 {
		src := sources()
		read := src.ReadFile
		src.ReadFile = func(string) ([]byte, error) { return read("testdata/" + ring) }
		cfg, err := config.Parse("testdata/pharos.yaml", []byte(fmt.Sprintf(text, "gossip.key")), src)
		if err != nil {
			t.Fatal(err)
		}
		return cfg.Hash
	}
	if hash("ring.key") != hash("other-ring.key") {
		t.Error("the hash depends on the gossip keys")
	}
}

// TestDeepChecks: checks without end are refused at once, with one mistake.
func TestDeepChecks(t *testing.T) {
	text := "sites: {fra: {location: FRA, nodes: {fra1: 127.0.0.1}}}\nservices: {web: {backends: {fra: [10.0.0.1:80]}, check: " +
		strings.Repeat("{all: [", 2000) + "tcp" + strings.Repeat("]}", 2000) + "}}\n"
	_, err := config.Parse("x", []byte(text), sources())
	errs, ok := err.(config.Errors)
	if !ok || len(errs) != 1 || !strings.Contains(errs[0].Message, "too deep") {
		t.Errorf("got %v", err)
	}
}
