package node

import (
	"net/netip"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp"
	"github.com/pharos-lb/pharos/internal/admin"
)

func TestJudgeSeen(t *testing.T) {
	four, six := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/48")
	const own, peer = 64500, 64496
	path := func(p netip.Prefix, as ...uint32) []sighting { return []sighting{{Prefix: p, ASPath: as}} }
	for _, tc := range []struct {
		name   string
		prefix netip.Prefix
		peer   uint32
		sent   time.Duration
		heard  map[string]outlook
		want   string
		by     int
	}{
		{"nobody looks", four, peer, time.Hour, nil, admin.SeenUnknown, 0},
		{"seen through the peer", four, peer, time.Second, map[string]outlook{"a": {IPv4: true, Seen: path(four, 64497, peer, own)}}, admin.SeenYes, 1},
		{"seen with our number prepended", four, peer, time.Hour, map[string]outlook{"a": {IPv4: true, Seen: path(four, peer, own, own, own)}}, admin.SeenYes, 1},
		{"seen by two", four, peer, time.Hour, map[string]outlook{"a": {Seen: path(four, peer, own)}, "b": {Seen: path(four, peer, own)}}, admin.SeenYes, 2},
		{"another path hides it", four, peer, time.Hour, map[string]outlook{"a": {IPv4: true, Seen: path(four, 64499, own)}}, admin.SeenUnknown, 0},
		{"nothing is seen", four, peer, time.Hour, map[string]outlook{"a": {IPv4: true}}, admin.SeenNot, 0},
		{"nothing is seen yet", four, peer, time.Second, map[string]outlook{"a": {IPv4: true}}, admin.SeenUnknown, 0},
		{"who looks announces it", four, peer, time.Hour, map[string]outlook{"a": {IPv4: true, Announces: []netip.Prefix{four}}}, admin.SeenUnknown, 0},
		{"who looks has the other family", six, peer, time.Hour, map[string]outlook{"a": {IPv4: true, Seen: path(four, peer, own)}}, admin.SeenUnknown, 0},
		{"who looks has no session", four, peer, time.Hour, map[string]outlook{"a": {}}, admin.SeenUnknown, 0},
		{"an internal peer", four, own, time.Hour, map[string]outlook{"a": {IPv4: true}}, admin.SeenUnknown, 0},
		{"somebody else's prefix", four, peer, time.Hour, map[string]outlook{"a": {IPv4: true, Seen: path(four, peer, 64510)}}, admin.SeenUnknown, 0},
	} {
		got, by := judgeSeen(tc.prefix, tc.peer, own, tc.sent, []uint32{own<<16 | 100, bgp.NoPeer}, tc.heard)
		if got != tc.want || len(by) != tc.by {
			t.Errorf("%s: %s by %d, want %s by %d", tc.name, got, len(by), tc.want, tc.by)
		}
	}
}

// TestJudgeSeenKept: a prefix that its peer is asked not to pass on (local_only, or a community of the operator's) is
// seen nowhere because of that, which is no alarm.
func TestJudgeSeenKept(t *testing.T) {
	four := netip.MustParsePrefix("192.0.2.0/24")
	const own, peer = 64500, 64496
	nothing := map[string]outlook{"a": {IPv4: true}}
	for _, kept := range []uint32{bgp.NoExport, bgp.NoAdvertise, bgp.NoExportSubconfed} {
		says := []uint32{own<<16 | 100, kept}
		if got, _ := judgeSeen(four, peer, own, time.Hour, says, nothing); got != admin.SeenUnknown {
			t.Errorf("with %x and seen by nobody: %s, want unknown", kept, got)
		}
		// A router that passes it on all the same is a fact.
		seen := map[string]outlook{"a": {IPv4: true, Seen: []sighting{{Prefix: four, ASPath: []uint32{peer, own}}}}}
		if got, _ := judgeSeen(four, peer, own, time.Hour, says, seen); got != admin.SeenYes {
			t.Errorf("with %x and seen: %s, want seen", kept, got)
		}
	}
}

// TestOutlookFits: an answer is never longer than what the cluster carries.
func TestOutlookFits(t *testing.T) {
	o := outlook{Announces: make([]netip.Prefix, 4000)}
	for i := range o.Announces {
		o.Announces[i] = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 8), byte(i), 1}), 128)
	}
	for range maxOutlook {
		o.Seen = append(o.Seen, sighting{o.Announces[0], o.Announces[0].Addr(), o.Announces[0].Addr(), make([]uint32, 255)})
	}
	if raw := encodeOutlook(o); len(raw) == 0 || len(raw) > maxEvidence {
		t.Errorf("the answer has %d bytes, at most %d", len(raw), maxEvidence)
	}
}
