package bgp

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp/bed"
	"github.com/pharos-lb/pharos/bgp/peerconfig"
)

// A site is two speakers, "one" and "two", at one router.
type site struct {
	one, two *rig
	router   *bed.Namespace
	frr      *bed.FRR
	twoNS    *bed.Namespace
}

const siteBIRD = `
log stderr all;
router id 10.9.1.9;
protocol device {}
protocol kernel { merge paths on; ipv4 { import none; export all; }; }
template bgp pharos { local as 64496; hold time 3; error wait time 1, 2; connect delay time 1; ipv4 { import all; export none; }; }
protocol bgp one from pharos { neighbor 10.9.1.1 as 64500; }
protocol bgp two from pharos { neighbor 10.9.2.1 as 64500; }
`

const siteFRR = `router bgp 64496
 bgp router-id 10.9.1.9
 no bgp ebgp-requires-policy
 bgp bestpath as-path multipath-relax
 neighbor 10.9.1.1 remote-as 64500
 neighbor 10.9.1.1 timers 1 3
 neighbor 10.9.1.1 timers connect 1
 neighbor 10.9.2.1 remote-as 64500
 neighbor 10.9.2.1 timers 1 3
 neighbor 10.9.2.1 timers connect 1
 address-family ipv4 unicast
  maximum-paths 4
 exit-address-family
exit
`

// newSite starts a router, "BIRD" or "FRR" or, for an FRR with a configuration of its own, that.
func newSite(t *testing.T, router string, routes ...Route) *site {
	t.Parallel()
	b := bed.New(t)
	one, two := b.Namespace("one"), b.Namespace("two")
	s := &site{router: b.Namespace("router"), twoNS: two}
	b.Link(one, "10.9.1.1/24", s.router, "10.9.1.9/24")
	b.Link(two, "10.9.2.1/24", s.router, "10.9.2.9/24")
	switch router {
	case "BIRD":
		s.router.BIRD(siteBIRD)
	case "FRR":
		s.frr = s.router.ForwardingFRR(siteFRR)
	default:
		s.frr = s.router.ForwardingFRR(router)
	}
	speak := func(ns *bed.Namespace, local, peer string) *rig {
		p := Peer{Address: netip.MustParseAddr(peer), ASN: routerASN, Hold: 3 * time.Second}
		c := Config{ASN: speakerASN, LocalAddress: netip.MustParseAddr(local), Lease: 10 * time.Second}
		return speakIn(t, ns, Options{Config: c, Peers: []Peer{p}}, routes...)
	}
	s.one, s.two = speak(one, "10.9.1.1", "10.9.1.9"), speak(two, "10.9.2.1", "10.9.2.9")
	return s
}

// hops says which of the two the router's own table leads to: "", "1", "2" or "12".
func (s *site) hops() (out string) {
	table := s.router.Run("ip", "route", "show", anycast.String())
	for _, n := range []string{"1", "2"} {
		if strings.Contains(table, "via 10.9."+n+".1 ") {
			out += n
		}
	}
	return out
}

// TestTwoNodesOfASite: the router's kernel has both nodes of a site as next hops; one hangs, and the other stays without a
// look in between at which there was no route; it comes back, and there are two again.
func TestTwoNodesOfASite(t *testing.T) {
	for _, router := range []string{"BIRD", "FRR"} {
		t.Run(router, func(t *testing.T) {
			s := newSite(t, router, Route{Prefix: anycast})
			bed.Await(t, "both next hops", func() bool { return s.hops() == "12" })
			child := s.one.Status().Child.PID
			if err := syscall.Kill(child, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			bed.Await(t, "the dead one to go", func() bool {
				now := s.hops()
				if !strings.Contains(now, "2") {
					t.Fatalf("the next hop that lives was gone: %q", now)
				}
				return now == "2"
			})
			// A child that says nothing is replaced.
			s.one.await("another child", func(s Status) bool { return s.Child.PID != child && s.Child.PID != 0 })
			bed.Await(t, "both next hops again", func() bool {
				now := s.hops()
				if !strings.Contains(now, "2") {
					t.Fatalf("the next hop that lives was gone: %q", now)
				}
				return now == "12"
			})
			// A drained one is left alone, too.
			s.one.set()
			bed.Await(t, "the drained one to go", func() bool { return s.hops() == "2" })
		})
	}
}

// TestHoldTimer: packets vanish without a word in both directions, and both sides end the session by the hold time.
func TestHoldTimer(t *testing.T) {
	for _, router := range []string{"BIRD", "FRR"} {
		t.Run(router, func(t *testing.T) {
			s := newSite(t, router, Route{Prefix: anycast})
			bed.Await(t, "both next hops", func() bool { return s.hops() == "12" })
			up := s.one.await("the session", func(s Status) bool { return s.Peers[0].State == "established" })
			if got := up.Peers[0].Hold; got != 3*time.Second {
				t.Fatalf("agreed on a hold time of %v", got)
			}
			meter := measureStalls()
			began := time.Now()
			undo := s.router.Drop("ip saddr 10.9.1.1")
			bed.Await(t, "the route through the silent one to go", func() bool { return s.hops() == "2" })
			took := time.Since(began)
			t.Logf("gone after %v", took.Round(time.Millisecond))
			if took < time.Second {
				t.Errorf("gone after %v: not by the hold time of 3 s", took)
			}
			meter.atMost(t, took, 4500*time.Millisecond)
			undo()
			bed.Await(t, "both next hops again", func() bool { return s.hops() == "12" })

			// The other direction: the router is not heard.
			gate := s.two
			before := gate.await("the session", func(s Status) bool { return s.Peers[0].State == "established" }).Peers[0].Since
			undo = s.twoNS.Drop("ip saddr 10.9.2.9")
			got := gate.await("the loss", func(s Status) bool { return s.Peers[0].State != "established" || s.Peers[0].Since.After(before) })
			undo()
			if p := got.Peers[0]; !strings.Contains(p.LastError, "hold timer expired") {
				t.Errorf("the reason is %q (%q)", p.LastError, p.Hint)
			}
			bed.Await(t, "both next hops at the end", func() bool { return s.hops() == "12" })
		})
	}
}

// TestGracefulShutdownAtFRR: with what peer-config prints, FRR takes any other way before one that says GRACEFUL_SHUTDOWN, and that
// one where there is no other.
func TestGracefulShutdownAtFRR(t *testing.T) {
	text, err := peerconfig.Render("frr", peerconfig.Router{
		Site: "fra", Address: netip.MustParseAddr("10.9.1.9"), ASN: routerASN, Port: 179, Fleet: speakerASN, FleetPort: 179,
		Nodes: []peerconfig.Node{{Name: "one", Address: netip.MustParseAddr("10.9.1.1")}, {Name: "two", Address: netip.MustParseAddr("10.9.2.1")}},
		Hold:  3 * time.Second, Prefixes: []netip.Prefix{anycast},
	})
	if err != nil {
		t.Fatal(err)
	}
	// The community alone must do it, so nothing else is said.
	leaving := Route{Prefix: anycast, Attributes: Attributes{Communities: []uint32{GracefulShutdown}}}
	s := newSite(t, text, Route{Prefix: anycast})
	table := func() string { return s.frr.Vtysh("show bgp ipv4 unicast " + anycast.String()) }
	bed.Await(t, "both paths", func() bool { return strings.Contains(table(), "10.9.1.1") && strings.Contains(table(), "10.9.2.1") })
	for _, leaver := range []int{1, 2} {
		rigs := []*rig{s.one, s.two}
		rigs[leaver-1].set(leaving)
		rigs[2-leaver].set(Route{Prefix: anycast})
		stays := fmt.Sprint(3 - leaver)
		bed.Await(t, "the other way: "+stays, func() bool { return s.hops() == stays })
		if got := table(); strings.Count(got, "localpref 0,") != 1 || !strings.Contains(got, "graceful-shutdown") {
			t.Errorf("FRR has:\n%s", got)
		}
	}
	// Nothing else is left: it is used all the same.
	s.one.set()
	bed.Await(t, "the last way", func() bool { return s.hops() == "2" })
}
