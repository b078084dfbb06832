package node

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/steer"
)

func TestDegraded(t *testing.T) {
	setup := parse(t, twoSites)
	prefix := netip.MustParsePrefix("192.0.2.0/24")
	route := func(r admin.RouteStatus) func(*admin.Status) {
		return func(st *admin.Status) {
			r.Prefix = prefix
			st.Routes = []admin.RouteStatus{r}
		}
	}
	speaker := func(s admin.SpeakerStatus) func(*admin.Status) {
		return func(st *admin.Status) { st.Speaker = &s }
	}
	site := func(st *admin.Status) *admin.SiteStatus { return &st.Services[0].Sites[1] }
	for _, tt := range []struct {
		name   string
		change func(*admin.Status)
		want   []string
	}{
		{"all well", func(*admin.Status) {}, []string{}},
		{"starting", func(st *admin.Status) { st.State = "starting" }, []string{"this node is starting"}},
		{"refused reload, its first line", func(st *admin.Status) { st.Config.LastError = "bad\nmore" }, []string{"the newest reload was refused: bad"}},
		{"fail-open", func(st *admin.Status) { st.Services[0].FailOpen = true }, []string{"service web: no site is fit, so those that are not are answered (fail-open)"}},
		{"a site is out", func(st *admin.Status) {
			*site(st) = admin.SiteStatus{Site: "b", Why: steer.ReasonBackendsDown, Backends: site(st).Backends}
			site(st).Backends[0].Status = "down" // said by the line of its site
		}, []string{"service web at b: " + steer.ReasonBackendsDown.String()}},
		{"a site has no address", func(st *admin.Status) {
			*site(st) = admin.SiteStatus{Site: "b", Why: steer.ReasonNoAddress}
		}, []string{}},
		{"a backend is down", func(st *admin.Status) { site(st).Backends[0].Status = "down" }, []string{"service web at b: backend 127.9.1.4:80 is down"}},
		{"a backend is not known", func(st *admin.Status) { site(st).Backends[0].Status = "unknown" }, []string{}},
		{"route refused", route(admin.RouteStatus{Announce: true, Error: "no next hop"}), []string{"prefix 192.0.2.0/24 cannot be announced: no next hop"}},
		{"route not installed", route(admin.RouteStatus{Announce: true}), []string{"prefix 192.0.2.0/24 is not announced yet"}},
		{"route installed", route(admin.RouteStatus{Announce: true, Installed: true}), []string{}},
		{"route withdrawn", route(admin.RouteStatus{Why: steer.ReasonUnreachedHere}), []string{"prefix 192.0.2.0/24 is not announced: " + steer.ReasonUnreachedHere.String()}},
		{"route not for this site", route(admin.RouteStatus{Why: steer.ReasonSiteNotAllowed}), []string{}},
		{"speaker runs", speaker(admin.SpeakerStatus{State: "running"}), []string{}},
		{"speaker lapsed", speaker(admin.SpeakerStatus{State: "lapsed", LastError: "silence"}), []string{"BGP speaker is lapsed: silence"}},
		{"peers", speaker(admin.SpeakerStatus{State: "running", Peers: []admin.PeerStatus{
			{Address: netip.MustParseAddr("127.9.1.7"), State: "established"},
			{Address: netip.MustParseAddr("127.9.1.8"), State: "active"},
		}}), []string{"BGP peer 127.9.1.8 is active"}},
		{"a node is silent", func(st *admin.Status) { st.Members[1].Heard = false }, []string{"node b1 is not heard from"}},
		{"a node was never seen", func(st *admin.Status) { st.Members = st.Members[:1] }, []string{"node b1 is not heard from"}},
		{"a node runs another configuration", func(st *admin.Status) { st.Members[1].Config = "2222" }, []string{"node b1 runs another configuration (2222)"}},
		{"a silent node's configuration is old news", func(st *admin.Status) {
			st.Members[1].Heard, st.Members[1].Config = false, "2222"
		}, []string{"node b1 is not heard from"}},
		{"a stranger", func(st *admin.Status) {
			st.Members = append(st.Members, admin.MemberStatus{Name: "x9", Heard: false, Config: "2222"})
		}, []string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := func(addr string) []admin.TargetStatus {
				return []admin.TargetStatus{{Address: netip.MustParseAddrPort(addr), Status: "up", Active: true}}
			}
			st := &admin.Status{
				Node: "a1", State: "serving", Config: admin.ConfigStatus{Hash: "1111"},
				Services: []admin.ServiceStatus{{Name: "web", Sites: []admin.SiteStatus{
					{Site: "a", Eligible: true, Backends: up("127.9.1.3:80")},
					{Site: "b", Eligible: true, Backends: up("127.9.1.4:80")},
				}}},
				Members: []admin.MemberStatus{
					{Name: "a1", Self: true, Heard: true, Config: "1111"},
					{Name: "b1", Heard: true, Config: "1111"},
				},
			}
			tt.change(st)
			if diff := cmp.Diff(tt.want, degraded(st, setup)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
