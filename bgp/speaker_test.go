package bgp

import (
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pharos-lb/pharos/bgp/router"
)

var (
	anycast  = netip.MustParsePrefix("192.0.2.0/24")
	second   = netip.MustParsePrefix("198.51.100.0/24")
	anycast6 = netip.MustParsePrefix("2001:db8:1::/48")
)

func TestAnnounceChangeWithdraw(t *testing.T) {
	l := newLab(t)
	r, _ := l.router(2)
	c := l.config()
	c.NextHop6 = netip.MustParseAddr("2001:db8::1")
	g := l.speaker(Options{Config: c, Peers: []Peer{l.peer(2)}},
		Route{Prefix: anycast, Attributes: Attributes{Communities: []uint32{64500<<16 | 7, 64500<<16 | 5}, MED: 50}},
		Route{Prefix: anycast6})

	awaitRouter(t, r, "both routes", func(routes []router.Route) bool { return len(routes) == 2 })
	want := []router.Route{
		{
			Prefix: anycast, From: l.addr(1), NextHop: l.addr(1), ASPath: []uint32{speakerASN},
			Communities: []uint32{64500<<16 | 5, 64500<<16 | 7}, MED: 50,
		},
		{Prefix: anycast6, From: l.addr(1), NextHop: c.NextHop6, ASPath: []uint32{speakerASN}},
	}
	if diff := cmp.Diff(want, r.Routes(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("routes at the router (-want +got):\n%s", diff)
	}
	s := g.await("status of the session", func(s Status) bool {
		return s.Peers[0].State == "established" && s.Peers[0].Sent == 2
	})
	wantRoutes := []RouteStatus{{Prefix: anycast, Installed: true}, {Prefix: anycast6, Installed: true}}
	if diff := cmp.Diff(wantRoutes, s.Routes, cmpopts.EquateComparable(netip.Prefix{}), cmpopts.IgnoreFields(RouteStatus{}, "Peers")); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}

	// An attribute alone changes: the route is replaced, not lost.
	g.set(Route{Prefix: anycast, Attributes: Attributes{Communities: []uint32{64500<<16 | 9}}}, Route{Prefix: anycast6})
	awaitRouter(t, r, "the new community", func(routes []router.Route) bool {
		return len(routes) == 2 && slices.Equal(routes[0].Communities, []uint32{64500<<16 | 9})
	})

	// One goes, the other stays.
	meter := measureStalls()
	g.set(Route{Prefix: anycast6})
	took := awaitRouter(t, r, "the withdrawal", func(routes []router.Route) bool { return !has(anycast)(routes) })
	meter.atMost(t, took, time.Second)
	if !has(anycast6)(r.Routes()) {
		t.Error("withdrawing one prefix took the other with it")
	}
	g.set()
	awaitRouter(t, r, "an empty table", none)
}

func TestStopWithdrawsAndSaysGoodbye(t *testing.T) {
	l := newLab(t)
	r, _ := l.router(2)
	g := l.speaker(Options{Peers: []Peer{l.peer(2)}}, Route{Prefix: anycast})
	awaitRouter(t, r, "the route", has(anycast))
	pid := g.Status().Child.PID

	g.stop()
	awaitRouter(t, r, "an empty table", none)
	if s := g.Status(); s.Child.State != "stopped" || s.Child.PID != 0 || s.Child.Restarts != 0 {
		t.Errorf("after stop the child is %+v", s.Child)
	}
	if err := syscall.Kill(pid, 0); err == nil {
		t.Errorf("the child %d still runs", pid)
	}
	awaitSession(t, r, "a goodbye", func(s router.Session) bool {
		return strings.Contains(s.LastError, "6(cease) subcode 3(peer deconfigured)")
	})
}

func awaitSession(t *testing.T, r *remoteRouter, what string, cond func(router.Session) bool) {
	t.Helper()
	awaitRouter(t, r, what, func([]router.Route) bool {
		sessions := r.Sessions()
		return len(sessions) > 0 && cond(sessions[0])
	})
}

func TestChildKilled(t *testing.T) {
	l := newLab(t)
	r, _ := l.router(2)
	g := l.speaker(Options{Peers: []Peer{l.peer(2)}}, Route{Prefix: anycast})
	awaitRouter(t, r, "the route", has(anycast))

	pid := g.Status().Child.PID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitRouter(t, r, "the withdrawal by death", none)
	took := awaitRouter(t, r, "the announcement by the new child", has(anycast))
	t.Logf("announced again %s after the withdrawal", took)
	s := g.await("a running child", func(s Status) bool { return s.Child.State == "running" })
	if s.Child.PID == pid || s.Child.Restarts != 1 || s.Child.LastError != "signal: killed" {
		t.Errorf("child is %+v", s.Child)
	}
}

func TestParentHangs(t *testing.T) {
	l := newLab(t)
	r, _ := l.router(2)
	g := l.speaker(Options{Config: l.shortLease(), Peers: []Peer{l.peer(2)}}, Route{Prefix: anycast})
	awaitRouter(t, r, "the route", has(anycast))

	meter := measureStalls()
	g.hang()
	took := awaitRouter(t, r, "the withdrawal by lease", none)
	meter.atMost(t, took, shortLease+time.Second)
	g.await("a lapsed child", func(s Status) bool { return s.Child.State == "lapsed" })
	if s := r.Sessions(); s[0].State != "established" {
		t.Errorf("the session is %s, want it kept", s[0].State)
	}
	g.release()
	awaitRouter(t, r, "the announcement when the parent is back", has(anycast))
	s := g.await("a running child", func(s Status) bool { return s.Child.State == "running" })
	if s.Child.Restarts != 0 {
		t.Errorf("child was restarted %d times, want none", s.Child.Restarts)
	}
}

func TestChildHangs(t *testing.T) {
	l := newLab(t)
	r, _ := l.router(2)
	g := l.speaker(Options{Peers: []Peer{l.peer(2)}}, Route{Prefix: anycast})
	awaitRouter(t, r, "the route", has(anycast))

	// A stopped process keeps its sockets: only the parent can help.
	pid := g.Status().Child.PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	awaitRouter(t, r, "the withdrawal", none)
	s := g.await("a new child", func(s Status) bool { return s.Child.Restarts == 1 })
	if s.Child.LastError == "" {
		t.Error("no reason is given")
	}
	awaitRouter(t, r, "the announcement by the new child", has(anycast))
}

func TestPeerDownAndBack(t *testing.T) {
	l := newLab(t)
	r, stop := l.router(2)
	g := l.speaker(Options{Peers: []Peer{l.peer(2), l.peer(3)}}, Route{Prefix: anycast})
	awaitRouter(t, r, "the route", has(anycast)) // although 3 is not there
	s := g.await("why peer 3 is missing", func(s Status) bool { return s.Peers[1].LastError != "" })
	if got := s.Peers[1]; got.State == "established" || !strings.Contains(got.LastError, "connection refused") {
		t.Errorf("unreachable peer is %+v", got)
	}

	stop()
	g.await("the loss of peer 2", func(s Status) bool { return s.Peers[0].State != "established" })
	r, _ = l.router(2)
	awaitRouter(t, r, "the route after its return", has(anycast))
	other, _ := l.router(3)
	awaitRouter(t, other, "the route at the late peer", has(anycast))
	if s := g.Status(); s.Child.Restarts != 0 {
		t.Errorf("child restarted %d times", s.Child.Restarts)
	}
}

func TestWrongASN(t *testing.T) {
	l := newLab(t)
	l.router(2, func(o *router.Options) { o.ASN = 65001 })
	r, _ := l.router(3)
	g := l.speaker(Options{Peers: []Peer{l.peer(2), l.peer(3)}}, Route{Prefix: anycast})
	awaitRouter(t, r, "the route at the right peer", has(anycast))
	g.await("the reason", func(s Status) bool {
		return s.Peers[0].State != "established" && strings.Contains(s.Peers[0].LastError, "as number mismatch expected 64496, received 65001")
	})
}

func TestReconfigurePeers(t *testing.T) {
	l := newLab(t)
	r2, _ := l.router(2)
	r3, _ := l.router(3)
	g := l.speaker(Options{Peers: []Peer{l.peer(2), l.peer(3)}}, Route{Prefix: anycast})
	awaitRouter(t, r2, "the route at 2", has(anycast))
	awaitRouter(t, r3, "the route at 3", has(anycast))
	since := r2.Sessions()[0].Since

	// An invalid configuration changes nothing.
	if err := g.Reconfigure(l.config(), []Peer{{Address: l.addr(2)}}); err == nil {
		t.Error("a peer without ASN was accepted")
	}
	if err := g.Reconfigure(l.config(), []Peer{l.peer(2)}); err != nil {
		t.Fatal(err)
	}
	awaitRouter(t, r3, "the withdrawal at 3", none)
	if n := len(g.await("one peer", func(s Status) bool { return len(s.Peers) == 1 }).Peers); n != 1 {
		t.Errorf("%d peers", n)
	}
	// Back, and a changed one beside it.
	changed := l.peer(3)
	changed.Hold = 30 * time.Second
	if err := g.Reconfigure(l.config(), []Peer{l.peer(2), changed}); err != nil {
		t.Fatal(err)
	}
	awaitRouter(t, r3, "the route back at 3", has(anycast))
	if got := r2.Sessions()[0].Since; got != since {
		t.Errorf("the session of peer 2 was interrupted: since %s, was %s", got, since)
	}

	// A new router ID means a new child, which is no crash.
	c := l.config()
	c.RouterID = netip.MustParseAddr("203.0.113.9")
	pid := g.Status().Child.PID
	if err := g.Reconfigure(c, []Peer{l.peer(2)}); err != nil {
		t.Fatal(err)
	}
	s := g.await("a new child", func(s Status) bool {
		return s.Child.PID != pid && s.Child.State == "running" && s.Peers[0].State == "established"
	})
	if s.Child.Restarts != 0 {
		t.Errorf("a replacement counts as %d crashes", s.Child.Restarts)
	}
	awaitRouter(t, r2, "the route from the new child", has(anycast))
}

func TestPassivePeer(t *testing.T) {
	l := newLab(t)
	r, _ := l.router(2, func(o *router.Options) {
		o.Neighbors[0].Passive, o.Neighbors[0].Port = false, l.port
	})
	p := l.peer(2)
	p.Passive = true
	l.speaker(Options{Peers: []Peer{p}}, Route{Prefix: anycast})
	awaitRouter(t, r, "the route over a session that the peer opened", has(anycast))
}

func TestNothingIsAccepted(t *testing.T) {
	l := newLab(t)
	// Two speakers that peer with each other: neither may pass on what the
	// other sends.
	r, _ := l.router(2)
	a := l.speaker(Options{Peers: []Peer{
		l.peer(2),
		{Address: l.addr(3), ASN: 64501, Port: l.port},
	}}, Route{Prefix: anycast})
	b := l.speaker(Options{
		Config: Config{ASN: 64501, LocalAddress: l.addr(3), ListenPort: int(l.port)},
		Peers:  []Peer{{Address: l.addr(1), ASN: speakerASN, Port: l.port, Passive: true}},
	}, Route{Prefix: second})
	a.await("both sessions", func(s Status) bool { return s.Peers[0].Sent == 1 && s.Peers[1].Sent == 1 })
	b.await("the session", func(s Status) bool { return s.Peers[0].Sent == 1 })
	// A marker sent after the foreign route: what came before it has come.
	marker := netip.MustParsePrefix("203.0.113.0/24")
	b.set(Route{Prefix: second}, Route{Prefix: marker})
	b.await("the marker sent", func(s Status) bool { return s.Peers[0].Sent == 2 })
	a.set(Route{Prefix: anycast}, Route{Prefix: anycast6, NextHop: netip.MustParseAddr("2001:db8::1")})
	awaitRouter(t, r, "our second route", has(anycast6))
	for _, route := range r.Routes() {
		if route.Prefix != anycast && route.Prefix != anycast6 {
			t.Errorf("a foreign route was passed on: %+v", route)
		}
	}
	if s := a.Status(); len(s.Routes) != 2 {
		t.Errorf("routes installed: %s", show(s.Routes))
	}
}

func TestChildCannotStart(t *testing.T) {
	l := newLab(t)
	r, _ := l.router(2)
	for _, tc := range []struct {
		name    string
		options Options
		want    string
	}{
		{"no such program", Options{Child: []string{"/nonexistent/pharos"}}, "no such file"},
		{"panics", Options{Child: []string{"/proc/self/exe"}, ChildEnv: []string{childVerb + "=broken"}}, "panic: told to break (exit status 2)"},
		{"address in use", childOptions(Options{Config: Config{ASN: 64500, LocalAddress: l.addr(2), ListenPort: int(l.port)}}), "address already in use"},
	} {
		o := tc.options
		g := l.speaker(o, Route{Prefix: anycast})
		s := g.await(tc.name, func(s Status) bool { return s.Child.Restarts >= 2 })
		if !strings.Contains(s.Child.LastError, tc.want) {
			t.Errorf("%s: last error is %q, want %q in it", tc.name, s.Child.LastError, tc.want)
		}
		for _, r := range s.Routes {
			if r.Installed {
				t.Errorf("%s: route is reported as installed", tc.name)
			}
		}
		g.stop()
	}
	_ = r
}
