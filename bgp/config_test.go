package bgp

import (
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func validOptions() Options {
	return Options{
		Child:   []string{"/bin/true"},
		Config:  Config{ASN: 64500, LocalAddress: netip.MustParseAddr("192.0.2.1")},
		Peers:   []Peer{{Address: netip.MustParseAddr("192.0.2.2"), ASN: 64496}},
		Desired: func() []Route { return nil },
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"no child", func(o *Options) { o.Child = nil }, "command line is missing"},
		{"no desired", func(o *Options) { o.Desired = nil }, "Desired is missing"},
		{"no asn", func(o *Options) { o.Config.ASN = 0 }, "asn is missing"},
		{"no local address", func(o *Options) { o.Config.LocalAddress = netip.Addr{} }, "not a unicast address"},
		{"IPv6 without router ID", func(o *Options) {
			o.Config.LocalAddress, o.Peers = netip.MustParseAddr("2001:db8::1"), nil
		}, "router ID"},
		{"port", func(o *Options) { o.Config.ListenPort = 65536 }, "listen port 65536"},
		{"lease", func(o *Options) { o.Config.Lease = time.Millisecond }, "lease 1ms"},
		{"next hop of the wrong family", func(o *Options) { o.Config.NextHop6 = netip.MustParseAddr("192.0.2.1") }, "IPv6 next hop"},
		{"peer without asn", func(o *Options) { o.Peers[0].ASN = 0 }, "peer 192.0.2.2: asn is missing"},
		{"peer without address", func(o *Options) { o.Peers[0].Address = netip.Addr{} }, "not a unicast address"},
		{"peer is self", func(o *Options) { o.Peers[0].Address = o.Config.LocalAddress }, "the same"},
		{"peer of the other family", func(o *Options) { o.Peers[0].Address = netip.MustParseAddr("2001:db8::2") }, "other family"},
		{"peer twice", func(o *Options) { o.Peers = append(o.Peers, o.Peers[0]) }, "192.0.2.2 appears twice"},
		{"hold too short", func(o *Options) { o.Peers[0].Hold = time.Second }, "hold time 1s"},
		{"hold of half a second", func(o *Options) { o.Peers[0].Hold = 3500 * time.Millisecond }, "whole seconds"},
		{"multihop", func(o *Options) { o.Peers[0].Multihop = 256 }, "multihop 256"},
		{"long password", func(o *Options) { o.Peers[0].Password = strings.Repeat("x", 81) }, "password has 81 bytes"},
		{"passive without a listener", func(o *Options) { o.Peers[0].Passive, o.Config.ListenPort = true, -1 }, "passive"},
		{"too many peers", func(o *Options) { o.Peers = make([]Peer, MaxPeers+1) }, "257 peers"},
		{"two errors at once", func(o *Options) { o.Config.ASN, o.Peers[0].ASN = 0, 0 }, "bgp: asn is missing\nbgp: peer 192.0.2.2: asn"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := validOptions()
			tc.change(&o)
			_, err := New(o)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("New: %v, want %q in it", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "xxxx") {
				t.Error("the password is in the error")
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	o := validOptions()
	c, peers, err := normalize(o.Config, o.Peers)
	if err != nil {
		t.Fatal(err)
	}
	local := o.Config.LocalAddress
	wantConfig := Config{
		ASN: 64500, LocalAddress: local, RouterID: local, NextHop4: local, ListenPort: 179, Lease: 3 * time.Second,
	}
	if !reflect.DeepEqual(c, wantConfig) {
		t.Errorf("config %+v, want %+v", c, wantConfig)
	}
	wantPeer := Peer{Address: o.Peers[0].Address, ASN: 64496, LocalAddress: local, Port: 179, Hold: 9 * time.Second}
	if !peers[0].equal(wantPeer) {
		t.Errorf("peer %#v, want %#v", peers[0], wantPeer)
	}
}

func TestNeedsRestart(t *testing.T) {
	base := validOptions()
	for _, tc := range []struct {
		name   string
		change func(*Options)
		want   bool
	}{
		{"nothing", func(*Options) {}, false},
		{"asn", func(o *Options) { o.Config.ASN++ }, true},
		{"router ID", func(o *Options) { o.Config.RouterID = netip.MustParseAddr("10.0.0.1") }, true},
		{"port", func(o *Options) { o.Config.ListenPort = 1790 }, true},
		{"local address", func(o *Options) { o.Config.LocalAddress = netip.MustParseAddr("192.0.2.3") }, true},
		{"lease and next hop", func(o *Options) {
			o.Config.Lease, o.Config.NextHop4 = time.Second, netip.MustParseAddr("192.0.2.3")
		}, false},
		{"peer", func(o *Options) {
			o.Peers = []Peer{{Address: netip.MustParseAddr("192.0.2.9"), ASN: 1, Password: "x"}}
		}, false},
		{"peer with a local address of its own", func(o *Options) {
			o.Peers = []Peer{{Address: netip.MustParseAddr("2001:db8::9"), ASN: 1, LocalAddress: netip.MustParseAddr("2001:db8::1")}}
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			changed := base
			tc.change(&changed)
			a, aPeers, err := normalize(base.Config, base.Peers)
			if err != nil {
				t.Fatal(err)
			}
			b, bPeers, err := normalize(changed.Config, changed.Peers)
			if err != nil {
				t.Fatal(err)
			}
			if got := needsRestart(a, b, aPeers, bPeers); got != tc.want {
				t.Errorf("needsRestart = %v, want %v", got, tc.want)
			}
		})
	}
}

func TestPasswordNeverPrints(t *testing.T) {
	p := Peer{Address: netip.MustParseAddr("192.0.2.2"), ASN: 64496, Password: "hunter2"}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("peer", "peer", p)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("peer", "peer", p)
	fmt.Fprintf(&b, "%v %+v %#v %s %v", p, p, p, p, []Peer{p})
	n := neighbor(Config{}, p)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("peer", "peer", n)
	fmt.Fprintf(&b, "%v %+v %#v", n, n, n)
	if strings.Contains(b.String(), "hunter2") {
		t.Errorf("the password shows: %s", &b)
	}
	if !strings.Contains(b.String(), "192.0.2.2") {
		t.Errorf("the address does not: %s", &b)
	}
}

func TestChildEnvironment(t *testing.T) {
	for _, tc := range []struct {
		name      string
		env, want []string
	}{
		{"empty", nil, []string{"GODEBUG=multipathtcp=0,tracebacklabels=1"}},
		{"kept", []string{"A=b"}, []string{"A=b", "GODEBUG=multipathtcp=0,tracebacklabels=1"}},
		{"merged", []string{"GODEBUG=x=1", "A=b"}, []string{"A=b", "GODEBUG=x=1,multipathtcp=0,tracebacklabels=1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, childEnvironment(tc.env)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestMetricsAreFreed(t *testing.T) {
	r := prometheus.NewRegistry()
	for range 2 { // the second New needs what Close freed
		o := validOptions()
		o.Registerer = r
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		families, err := r.Gather()
		if err != nil || len(families) != 16 {
			t.Errorf("%d metrics (%v), want 16", len(families), err)
		}
		if _, err := New(o); err == nil {
			t.Error("two speakers share a registerer")
		}
		for range 2 {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
