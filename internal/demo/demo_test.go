package demo

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/node"
	"github.com/pharos-lb/pharos/internal/steer"
)

// The configuration and the stage name the same addresses.
func TestConfigAgreesWithTheStage(t *testing.T) {
	file := filepath.Join(t.TempDir(), configName)
	if err := os.WriteFile(file, configText, 0o600); err != nil {
		t.Fatal(err)
	}
	setup, err := node.Load(file, "")
	if err != nil {
		t.Fatal(err)
	}
	cfg := setup.Config
	if got := cfg.DNS.Listen[0]; got.Addr != dnsAddress.Addr() || got.Port != dnsAddress.Port() {
		t.Errorf("dns.listen: got %v, want %v", got, dnsAddress)
	}
	if got := cfg.BGP.Prefixes[0].Prefix.String(); got != routeText {
		t.Errorf("prefix: got %s, want %s", got, routeText)
	}
	if got := cfg.Zones[0].Names[0].FQDN; got != steeredName+"." {
		t.Errorf("name: got %s, want %s", got, steeredName)
	}
	web := cfg.Services[0]
	for i, s := range sites {
		if got := cfg.Sites[i]; got.Name != s.name || got.Nodes[0].Name != s.node() || got.Nodes[0].Address != s.nodeAddr() {
			t.Errorf("site %s: got %+v", s.name, got)
		}
		if got := web.VIPs[i].Addresses[0]; got != s.vip().Addr() {
			t.Errorf("VIP of %s: got %s, want %s", s.name, got, s.vip())
		}
		for j, b := range web.Pools[i].Backends {
			if b.Address != s.backend(j) {
				t.Errorf("backend %d of %s: got %s, want %s", j, s.name, b.Address, s.backend(j))
			}
		}
		if got := peerOf(cfg, s.name); got.Address != s.router().Addr() || got.ASN != s.routerASN() || got.Port != s.router().Port() {
			t.Errorf("peer of %s: got %+v, want %s AS%d", s.name, got, s.router(), s.routerASN())
		}
	}
	for _, test := range cfg.Tests {
		if r := steer.Check(setup.Topology, test); !r.OK {
			t.Error(r)
		}
	}
}

func peerOf(cfg *config.Config, site string) config.Peer {
	for _, p := range cfg.BGP.Peers {
		if p.Site == site {
			return p
		}
	}
	return config.Peer{}
}

func TestFind(t *testing.T) {
	tests := []struct {
		name string
		want target
	}{
		{"fra", target{site: 0, backend: -1}},
		{"sin", target{site: 2, backend: -1}},
		{"iad-b1", target{site: 1, backend: 0}},
		{"iad-b2", target{site: 1, backend: 1}},
		{"sin1", target{site: 2, node: true}},
	}
	for _, tt := range tests {
		if got, err := find(tt.name); err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v, want %+v", tt.name, got, err, tt.want)
		}
	}
	for _, name := range []string{"", "lhr", "fra2", "fra-b3", "FRA"} {
		if got, err := find(name); err == nil || !strings.Contains(err.Error(), "fra-b1") {
			t.Errorf("%q: got %+v, %v, want an error that lists what there is", name, got, err)
		}
	}
}

func TestClaim(t *testing.T) {
	path := filepath.Join(t.TempDir(), "demo")
	first, err := claim(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claim(path); err == nil || !strings.Contains(err.Error(), "already running") {
		t.Errorf("second claim: got %v", err)
	}
	first.lock.Close() // as when the demo is killed: the files stay
	if err := os.WriteFile(filepath.Join(path, "fra1.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := claim(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path, "fra1.sock")); !os.IsNotExist(err) {
		t.Error("what a killed demo left was not removed")
	}
	again.remove()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error("the folder is still there")
	}
}
