package bgp

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// TestQuarantineIsNeverFull: whoever ended the child is put away, however many did before, and those that are forgiven are
// forgotten.
func TestQuarantineIsNeverFull(t *testing.T) {
	s := &Speaker{quarantined: map[netip.Addr]quarantine{}}
	start := time.Now()
	addr := func(i int) netip.Addr {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x0a000000+uint32(i))))
	}
	away := func(a netip.Addr, now time.Time) bool { return s.quarantined[a].until.After(now) }
	for i := range 2 * maxQuarantined {
		now := start.Add(time.Duration(i) * time.Millisecond)
		if !s.blame(addr(i), "a crash", now) || !away(addr(i), now) {
			t.Fatalf("culprit %d is not put away", i)
		}
		if len(s.quarantined) > maxQuarantined {
			t.Fatalf("%d are kept, want at most %d", len(s.quarantined), maxQuarantined)
		}
	}
	// One that is known takes nobody's place, and is away for longer.
	known, oldest := addr(2*maxQuarantined-1), addr(maxQuarantined)
	if now := start.Add(time.Minute); !s.blame(known, "a crash", now) || s.quarantined[known].crashes != 2 || !away(known, now.Add(3*time.Minute)) {
		t.Errorf("a known one: %+v", s.quarantined[known])
	}
	if _, ok := s.quarantined[oldest]; !ok || len(s.quarantined) != maxQuarantined {
		t.Errorf("%d are kept, the oldest: %v", len(s.quarantined), ok)
	}
	if now := start.Add(2 * quarantineClean); !s.blame(addr(0), "a crash", now) || len(s.quarantined) != 1 {
		t.Errorf("%d are kept, want those that are forgiven to be forgotten", len(s.quarantined))
	}
	if s.blame(netip.Addr{}, "a crash", start) {
		t.Error("nobody was blamed")
	}
}

// TestGuestsAreSorted: the routers of a prefix are in the order of their addresses, whether they have a session or are away.
func TestGuestsAreSorted(t *testing.T) {
	in := netip.MustParsePrefix("10.9.6.0/24")
	at := func(host byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 6, host}) }
	s := &Speaker{quarantined: map[netip.Addr]quarantine{}, peers: []Peer{{From: in, ASN: routerASN, Most: 100}}, reported: &report{}}
	for host := byte(40); host > 0; host-- {
		if host%2 == 0 {
			s.quarantined[at(host)] = quarantine{crashes: 1, last: time.Now(), until: time.Now().Add(time.Hour)}
		} else {
			s.reported.Peers = append(s.reported.Peers, PeerStatus{Address: at(host), From: in, State: "established"})
		}
	}
	s.reported.Peers = append(s.reported.Peers, PeerStatus{Address: at(2), From: in, State: "established"}) // an old report
	for range 5 {
		got := s.Status().Peers
		if len(got) != 40 || !slices.IsSortedFunc(got, func(a, b PeerStatus) int { return a.Address.Compare(b.Address) }) {
			t.Fatalf("not sorted, or not each once: %s", show(got))
		}
	}
}
