package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
)

func bgpStatus() *admin.Status {
	now := time.Now()
	return &admin.Status{
		Node: "fra1", Site: "fra",
		Routes: []admin.RouteStatus{{Prefix: netip.MustParsePrefix("198.18.0.0/24"), Announce: true, Installed: true, Peers: []admin.RoutePeerStatus{
			{Address: netip.MustParseAddr("10.9.1.2"), Wanted: true, Sent: true, Accepted: admin.AcceptedYes, Seen: admin.SeenYes, SeenBy: []admin.SeenBy{{Node: "iad1"}, {Node: "iad1"}, {Node: "sin1"}}, MED: 50, Prepend: 3, Communities: []string{"64500:7"}},
			{Address: netip.MustParseAddr("10.9.1.3"), Wanted: true, Sent: true, Accepted: admin.AcceptedUnknown, Seen: admin.SeenUnknown},
		}}},
		Speaker: &admin.SpeakerStatus{State: "running", Peers: []admin.PeerStatus{
			{
				Address: netip.MustParseAddr("10.9.1.2"), ASN: 64496, State: "established", Since: now.Add(-time.Minute), Sent: 1,
				BFD: &admin.BFDStatus{State: "up", DetectionMS: 900},
			},
			{Address: netip.MustParseAddr("10.9.1.3"), ASN: 64496, State: "established", Since: now.Add(-time.Minute), Sent: 1},
		}},
	}
}

func TestPeersAndRoutes(t *testing.T) {
	tests := []struct {
		name          string
		change        func(*admin.Status)
		peers, routes bool // fine
		say           string
	}{
		{"all is well", func(*admin.Status) {}, true, true, "900ms"},
		{"a session is down", func(s *admin.Status) {
			s.Speaker.Peers[1].State, s.Speaker.Peers[1].LastError = "active", "connection refused"
			s.Routes[0].Peers[1].Sent = false
		}, false, false, "connection refused"},
		{"BFD is down", func(s *admin.Status) {
			s.Speaker.Peers[0].BFD = &admin.BFDStatus{State: "down", LastError: "the router has not been heard", Failures: 7}
		}, false, true, "BFD: the router has not been heard"},
		{"the speaker is gone", func(s *admin.Status) {
			s.Speaker.State, s.Speaker.LastError = "backoff", "exit status 2"
			s.Routes[0].Installed = false
		}, false, false, "backoff: exit status 2"},
		{"a VIP is missing", func(s *admin.Status) { s.Routes[0].Error = "VIP 198.18.0.80 is not on lo" }, true, false, "VIP 198.18.0.80 is not on lo"},
		{"not wanted", func(s *admin.Status) { s.Routes[0].Announce, s.Routes[0].Installed = false, false }, true, true, "no"},
		{"who sees it", func(*admin.Status) {}, true, true, "198.18.0.0/24  10.9.1.2  yes     yes   yes       iad1, sin1  med 50, prepend 3, 64500:7"},
		{"a route is not sent", func(s *admin.Status) { s.Routes[0].Peers[1].Sent = false }, true, false, "1 of 2"},
		{"a router drops it", func(s *admin.Status) {
			s.Routes[0].Peers[1].Accepted, s.Routes[0].Peers[1].Seen = admin.AcceptedNo, admin.SeenNot
		}, true, false, "no        nobody"},
		{"a router is not to hear it", func(s *admin.Status) { s.Routes[0].Peers[1].Wanted, s.Routes[0].Peers[1].Sent = false, false }, true, true, "1 of 1"},
		{"no BGP", func(s *admin.Status) { s.Speaker, s.Routes = nil, nil }, true, true, "has no BGP"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := bgpStatus()
			tt.change(st)
			var b strings.Builder
			peers, err := printPeers(&b, st, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			routes, err := printRoutes(&b, st, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if peers != tt.peers || routes != tt.routes || !strings.Contains(b.String(), tt.say) {
				t.Errorf("peers fine %v, routes fine %v, want %v, %v and %q:\n%s", peers, routes, tt.peers, tt.routes, tt.say, &b)
			}
		})
	}
}
