package bgp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp/bed"
)

// farAwayFRR and farAwayBIRD are a router that is two hops away. BIRD dials as well. FRR does not: of a connection whose
// other end fell silent before it said anything, which is what a TTL too small makes of it, FRR waits for the OPEN for
// minutes, and closes every other one until then.
const farAwayFRR = `router bgp 64496
 bgp router-id 10.9.4.2
 no bgp ebgp-requires-policy
 neighbor 10.9.2.1 remote-as 64500
 neighbor 10.9.2.1 ebgp-multihop 2
 neighbor 10.9.2.1 timers connect 1
 neighbor 10.9.2.1 disable-connected-check
 neighbor 10.9.2.1 passive
exit
`

const farAwayBIRD = `
log stderr all;
router id 10.9.4.2;
protocol device {}
protocol static { ipv4; route 10.9.2.0/24 via 10.9.4.1; }
protocol bgp pharos { local 10.9.4.2 as 64496; neighbor 10.9.2.1 as 64500; multihop 2; connect retry time 1; error wait time 1, 2; connect delay time 1;
  ipv4 { import all; export none; }; }
`

// TestMultihop: a router behind another one has a session and the route if multihop says so, and none otherwise.
func TestMultihop(t *testing.T) {
	for _, router := range []string{"BIRD", "FRR"} {
		t.Run(router, func(t *testing.T) {
			t.Parallel()
			b := bed.New(t)
			us, middle, far := b.Namespace("us"), b.Namespace("middle"), b.Namespace("far")
			b.Link(us, "10.9.2.1/24", middle, "10.9.2.2/24")
			b.Link(middle, "10.9.4.1/24", far, "10.9.4.2/24")
			middle.Run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
			us.Run("ip", "route", "add", "10.9.4.0/24", "via", "10.9.2.2")
			far.Run("ip", "route", "add", "10.9.2.0/24", "via", "10.9.4.1")
			var table func() string
			if router == "FRR" {
				r := far.FRR(farAwayFRR)
				table = func() string { return r.Vtysh("show bgp ipv4 unicast") }
			} else {
				r := far.BIRD(farAwayBIRD)
				table = func() string { return r.Birdc("show route all") }
			}
			p := Peer{Address: netip.MustParseAddr("10.9.4.2"), ASN: routerASN, Multihop: 2}
			c := Config{ASN: speakerASN, LocalAddress: netip.MustParseAddr("10.9.2.1"), Lease: 10 * time.Second}
			g := speakIn(t, us, Options{Config: c, Peers: []Peer{p}}, Route{Prefix: anycast})
			bed.Await(t, "the route two hops away", func() bool { return strings.Contains(table(), anycast.String()) })
			g.await("the session", func(s Status) bool { return s.Peers[0].State == "established" && s.Peers[0].Sent == 1 })

			// A hop less, and what we send ends in the middle.
			p.Multihop = 0
			before := expired(middle)
			if err := g.Reconfigure(c, []Peer{p}); err != nil {
				t.Fatal(err)
			}
			bed.Await(t, "the route to go", func() bool { return !strings.Contains(table(), anycast.String()) })
			bed.Await(t, "packets to end in the middle", func() bool { return expired(middle) >= before+3 })
			if s := g.Status(); s.Peers[0].State == "established" {
				t.Errorf("there is a session with a TTL of 1: %s", show(s.Peers))
			}
			p.Multihop = 2
			if err := g.Reconfigure(c, []Peer{p}); err != nil {
				t.Fatal(err)
			}
			bed.Await(t, "the route again", func() bool { return strings.Contains(table(), anycast.String()) })
		})
	}
}

// expired counts the packets whose TTL ended on a machine: the ICMP errors that it made of them.
func expired(ns *bed.Namespace) (n int) {
	fields := strings.Fields(ns.Run("nstat", "-asz", "IcmpOutTimeExcds"))
	for i, f := range fields {
		if f == "IcmpOutTimeExcds" && i+1 < len(fields) {
			_, _ = fmt.Sscan(fields[i+1], &n)
		}
	}
	return n
}

const refreshFRR = `router bgp 64496
 bgp router-id 10.9.2.2
 no bgp ebgp-requires-policy
 neighbor 10.9.2.1 remote-as 64500
 neighbor 10.9.2.1 timers connect 1
exit
`

const refreshBIRD = `
log stderr all;
router id 10.9.2.2;
protocol device {}
protocol bgp pharos { local 10.9.2.2 as 64496; neighbor 10.9.2.1 as 64500; connect retry time 1; error wait time 1, 2; connect delay time 1;
  ipv4 { import all; export none; }; }
`

// TestRouteRefresh: a router that asks for all routes again (RFC 2918) is sent each of them, in the session that is up.
func TestRouteRefresh(t *testing.T) {
	for _, router := range []string{"BIRD", "FRR"} {
		t.Run(router, func(t *testing.T) {
			t.Parallel()
			b := bed.New(t)
			us, there := b.Namespace("us"), b.Namespace("there")
			b.Link(us, "10.9.2.1/24", there, "10.9.2.2/24")
			var ask func()
			var updates func() int // that the router has received; -1 = not known yet
			if router == "FRR" {
				r := there.FRR(refreshFRR)
				ask = func() { r.Vtysh("clear bgp ipv4 unicast 10.9.2.1 soft in") }
				updates = func() int {
					var all map[string]struct {
						MessageStats struct{ UpdatesRecv int }
					}
					if r.JSON("show bgp neighbors 10.9.2.1", &all) != nil {
						return -1
					}
					return all["10.9.2.1"].MessageStats.UpdatesRecv
				}
			} else {
				r := there.BIRD(refreshBIRD)
				ask = func() { r.Birdc("reload in pharos") }
				updates = func() int {
					_, rest, ok := strings.Cut(r.Birdc("show protocols all pharos"), "Import updates:")
					n := -1
					if ok {
						_, _ = fmt.Sscan(rest, &n)
					}
					return n
				}
			}
			c := Config{ASN: speakerASN, LocalAddress: netip.MustParseAddr("10.9.2.1"), Lease: 10 * time.Second}
			other := netip.MustParsePrefix("203.0.113.0/24")
			g := speakIn(t, us, Options{Config: c, Peers: []Peer{{Address: netip.MustParseAddr("10.9.2.2"), ASN: routerASN}}},
				Route{Prefix: anycast}, Route{Prefix: other, Attributes: Attributes{MED: 7}}) // attributes of its own, so an UPDATE of its own
			before := g.await("both routes to be sent", func(s Status) bool {
				return s.Peers[0].State == "established" && s.Peers[0].Sent == 2 && s.Peers[0].Refresh
			})
			bed.Await(t, "both routes to be there", func() bool { return updates() >= 2 })
			for range 3 {
				had := updates()
				ask()
				bed.Await(t, "both routes once more", func() bool { return updates() >= had+2 })
			}
			after := g.Status()
			if p := after.Peers[0]; p.State != "established" || !p.Since.Equal(before.Peers[0].Since) || after.Child.Restarts != 0 {
				t.Errorf("a refresh cost the session: %s, was %s", show(after), show(before))
			}
		})
	}
}
