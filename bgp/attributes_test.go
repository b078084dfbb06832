package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pharos-lb/pharos/bgp/internal/engine"
)

func TestExports(t *testing.T) {
	external := Peer{Address: netip.MustParseAddr("192.0.2.10"), ASN: routerASN}
	second := Peer{Address: netip.MustParseAddr("192.0.2.11"), ASN: routerASN}
	internal := Peer{Address: netip.MustParseAddr("2001:db8::9"), ASN: speakerASN}
	only := func(p ...Peer) (out []netip.Prefix) {
		for _, p := range p {
			out = append(out, p.key())
		}
		return out
	}
	hop, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for _, tc := range []struct {
		name  string
		c     Config
		route Route
		peers []Peer
		want  []engine.Export
	}{
		{
			name: "peers that hear the same are together", route: Route{Attributes: Attributes{MED: 5}}, peers: []Peer{external, second},
			want: []engine.Export{{Neighbors: only(external, second), Attributes: engine.Attributes{NextHop: hop, MED: 5}}},
		},
		{
			name: "prepend to eBGP and local preference to iBGP only", peers: []Peer{external, internal},
			route: Route{Attributes: Attributes{Prepend: 2, LocalPref: 200, Communities: []uint32{7}}},
			want: []engine.Export{
				{Neighbors: only(external), Attributes: engine.Attributes{NextHop: hop, Prepend: 2, Communities: []uint32{7}}},
				{Neighbors: only(internal), Attributes: engine.Attributes{NextHop: hop, LocalPref: 200, Communities: []uint32{7}}},
			},
		},
		{
			name: "an override goes before the route, that before the peer; communities add up",
			peers: []Peer{{
				Address: external.Address, ASN: routerASN,
				Attributes: Attributes{MED: 1, Prepend: 1, Communities: []uint32{9}, Extended: []string{"rt:1:1"}},
			}},
			route: Route{
				Attributes: Attributes{MED: 2, Communities: []uint32{8, 9}, Large: []LargeCommunity{{1, 2, 3}}},
				To: []Override{
					{Peers: only(second), Deny: true},
					{Peers: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, NextHop: other, Attributes: Attributes{MED: 3, Communities: []uint32{7}}},
					{Peers: only(external), Deny: true}, // the first one counted
				},
			},
			want: []engine.Export{{Neighbors: only(external), Attributes: engine.Attributes{
				NextHop: other, MED: 3, Prepend: 1, Communities: []uint32{7, 8, 9}, Large: []LargeCommunity{{1, 2, 3}}, Extended: []string{"rt:1:1"},
			}}},
		},
		{
			name: "denied", route: Route{To: []Override{{Peers: only(external), Deny: true}}}, peers: []Peer{external, second},
			want: []engine.Export{{Neighbors: only(second), Attributes: engine.Attributes{NextHop: hop}}},
		},
		{
			name: "standby", route: Route{Standing: Standby, Attributes: Attributes{MED: 5, Prepend: 1, LocalPref: 300}}, peers: []Peer{external, internal},
			want: []engine.Export{
				{Neighbors: only(external), Attributes: engine.Attributes{NextHop: hop, MED: 105, Prepend: 4}},
				{Neighbors: only(internal), Attributes: engine.Attributes{NextHop: hop, MED: 105, LocalPref: 50}},
			},
		},
		{
			name: "leaving, as configured", c: Config{Depreference: Depreference{Prepend: 20, LocalPref: 7}}, peers: []Peer{external, internal},
			route: Route{Standing: Leaving, Attributes: Attributes{MED: 1<<32 - 1}},
			want: []engine.Export{
				{Neighbors: only(external), Attributes: engine.Attributes{NextHop: hop, MED: 1<<32 - 1, Prepend: 16, Communities: []uint32{GracefulShutdown}}},
				{Neighbors: only(internal), Attributes: engine.Attributes{NextHop: hop, MED: 1<<32 - 1, LocalPref: 1, Communities: []uint32{GracefulShutdown}}},
			},
		},
		{
			name: "local only", route: Route{LocalOnly: true, Attributes: Attributes{Communities: []uint32{NoExport}}}, peers: []Peer{external},
			want: []engine.Export{{Neighbors: only(external), Attributes: engine.Attributes{NextHop: hop, Communities: []uint32{NoExport}}}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.route.Prefix, tc.route.NextHop, tc.c.ASN = anycast, hop, speakerASN
			got := tc.c.path(tc.route, tc.peers)
			if diff := cmp.Diff(tc.want, got.Exports, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestCheckExtended(t *testing.T) {
	for text, ok := range map[string]bool{
		"rt:64500:4294967295": true, "soo:4200000000:65535": true, "rt:192.0.2.1:1": true,
		"rt:4200000000:65536": false, "rt:192.0.2.1:65536": false, "rt:2001:db8::1:1": false, "lb:64500:1": false, "rt:64500": false, "rt:x:1": false, "": false,
	} {
		if err := CheckExtended(text); (err == nil) != ok {
			t.Errorf("CheckExtended(%q) = %v, want ok %v", text, err, ok)
		}
	}
}

const birdTwoConfig = `
log stderr all;
debug protocols { states, routes };
router id %[2]s;
protocol device { scan time 60; }
protocol bgp pharos {
	local %[2]s port %[3]d as %[4]d;
	neighbor %[1]s port %[3]d as 64500;
	strict bind yes;
	multihop 2;
	error wait time 1, 2;
	connect delay time 1;
	ipv4 { import all; export none; };
	ipv6 { import all; export none; };
}
`

// TestEveryAttributeArrives announces to an external and an internal BIRD over IPv4 sessions, and changes what each
// hears while the sessions stay.
func TestEveryAttributeArrives(t *testing.T) {
	l := newLab(t)
	ebgp := runBird(t, fmt.Sprintf(birdTwoConfig, l.addr(1), l.addr(2), l.port, routerASN))
	ibgp := runBird(t, fmt.Sprintf(birdTwoConfig, l.addr(1), l.addr(3), l.port, speakerASN))
	external, internal := l.peer(2), l.peer(3)
	external.Multihop = 2
	external.Communities = []uint32{64500<<16 | 1}
	internal.ASN = speakerASN
	c := l.config()
	c.NextHop6 = netip.MustParseAddr("2001:db8::1")
	full := Route{Prefix: anycast, Attributes: Attributes{
		MED: 50, LocalPref: 250, Prepend: 2,
		Communities: []uint32{64500<<16 | 7, NoExport, GracefulShutdown, Blackhole},
		Large:       []LargeCommunity{{4200000000, 1, 4294967295}},
		Extended:    []string{"rt:64500:70000", "soo:192.0.2.9:5", "rt:4200000000:9"},
	}}
	six := Route{Prefix: anycast6, To: []Override{
		{Peers: []netip.Prefix{internal.key()}, NextHop: netip.MustParseAddr("2001:db8::77"), Attributes: Attributes{LocalPref: 7}},
	}}
	g := l.speaker(Options{Config: c, Peers: []Peer{external, internal}}, full, six)

	four, all6 := []string{"show", "route", anycast.String(), "all"}, []string{"show", "route", anycast6.String(), "all"}
	shared := []string{
		"BGP.next_hop: " + l.addr(1).String(), "BGP.med: 50", "BGP.origin: IGP",
		"(64500,7)", "(65535,65281)", "(65535,0)", "(65535,666)",
		"BGP.large_community: (4200000000, 1, 4294967295)",
		"(rt, 64500, 70000)", "(ro, 192.0.2.9, 5)", "(rt, 4200000000, 9)",
	}
	ebgp.awaitTable(four, append(slices.Clone(shared), "BGP.as_path: 64500 64500 64500", "(64500,1)", "BGP.local_pref: 100")...)
	ibgp.awaitTable(four, append(slices.Clone(shared), "!BGP.as_path: 64500", "!(64500,1)", "BGP.local_pref: 250")...)
	ebgp.awaitTable(all6, "BGP.next_hop: 2001:db8::1", "BGP.as_path: 64500", "!BGP.med")
	ibgp.awaitTable(all6, "BGP.next_hop: 2001:db8::77", "BGP.local_pref: 7")

	// Standings, and back: the sessions stay, nothing of the old is left, and no tag of ours gets out.
	since := g.Status().Peers[0].Since
	full.Standing, full.Attributes = Leaving, Attributes{}
	g.set(full, six)
	ebgp.awaitTable(four, "BGP.as_path: 64500 64500 64500 64500", "BGP.med: 100", "BGP.community: (64500,1) (65535,0)", "!large", "!ext_community")
	ibgp.awaitTable(four, "BGP.local_pref: 1", "BGP.community: (65535,0)", "!(64500,1)")
	full.Standing = Preferred
	g.set(full, six)
	ebgp.awaitTable(four, "BGP.as_path: 64500 ", "!64500 64500", "!BGP.med", "BGP.community: (64500,1)", "!(65535,0)")
	ibgp.awaitTable(four, "BGP.local_pref: 100", "!BGP.community")

	// One peer is denied the prefix: it alone loses it. Then the other.
	full.To = []Override{{Peers: []netip.Prefix{internal.key()}, Deny: true}}
	g.set(full, six)
	ibgp.awaitTable(four, "!BGP.origin")
	ebgp.awaitTable(four, "BGP.origin")
	full.To[0] = Override{Peers: []netip.Prefix{external.key()}, Deny: true}
	g.set(full, six)
	ebgp.awaitTable(four, "!BGP.origin")
	ibgp.awaitTable(four, "BGP.origin")
	if now := g.Status().Peers[0].Since; !now.Equal(since) {
		t.Errorf("the session began anew at %s, was up since %s", now, since)
	}
}
