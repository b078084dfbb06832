package bgp

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp/bed"
)

// A crowd is a speaker that names a prefix of peers, and four routers in it: two FRRs and two BIRDs.
type crowd struct {
	*rig
	peer    Peer
	config  Config
	bed     *bed.Bed
	us      *bed.Namespace
	routers []*bed.Namespace
}

const guestFRR = `router bgp 64496
 bgp router-id 10.9.6.%[1]d
 no bgp ebgp-requires-policy
 neighbor 10.9.6.1 remote-as 64500
 neighbor 10.9.6.1 timers connect 1
 neighbor 10.9.6.1 password hunter2
exit
`

const guestBIRD = `
log stderr all;
router id 10.9.6.%[1]d;
protocol device {}
protocol bgp pharos { local 10.9.6.%[1]d as 64496; neighbor 10.9.6.1 as 64500; password "hunter2"; connect retry time 1; error wait time 1, 2; connect delay time 1;
  ipv4 { import all; export none; }; }
`

// newCrowd puts everybody on one link, by a bridge.
func newCrowd(t *testing.T, most int) *crowd {
	t.Parallel()
	b := bed.New(t)
	c := &crowd{
		bed: b, us: b.Namespace("us"),
		peer:   Peer{From: netip.MustParsePrefix("10.9.6.0/24"), ASN: routerASN, Most: most, Password: "hunter2"},
		config: Config{ASN: speakerASN, LocalAddress: netip.MustParseAddr("10.9.6.1"), Lease: 10 * time.Second},
	}
	c.us.Run("ip", "link", "add", "br0", "type", "bridge")
	c.us.Run("ip", "addr", "add", "10.9.6.1/24", "dev", "br0")
	c.us.Run("ip", "link", "set", "br0", "up")
	return c
}

// join adds a router with the host number; FRR for even ones.
func (c *crowd) join(host int) (table func() string) {
	ns := c.bed.Namespace(fmt.Sprint("r", host))
	link, _ := c.bed.Link(c.us, "", ns, fmt.Sprintf("10.9.6.%d/24", host))
	c.us.Run("ip", "link", "set", link, "master", "br0")
	c.routers = append(c.routers, ns)
	if host%2 == 0 {
		r := ns.FRR(fmt.Sprintf(guestFRR, host))
		return func() string { return r.Vtysh("show bgp ipv4 unicast") }
	}
	r := ns.BIRD(fmt.Sprintf(guestBIRD, host))
	return func() string { return r.Birdc("show route all") }
}

// TestDynamicNeighbors: routers that nobody named connect from the prefix, with the password, and hear what they should;
// above the limit they are refused, and let in when there is room; a change of the configuration ends them all.
func TestDynamicNeighbors(t *testing.T) {
	c := newCrowd(t, 2)
	special := netip.MustParsePrefix("203.0.113.0/24")
	c.rig = speakIn(t, c.us, Options{Config: c.config, Peers: []Peer{c.peer}},
		Route{Prefix: anycast, Attributes: Attributes{Communities: []uint32{64500<<16 | 7}}},
		Route{Prefix: special, To: []Override{{Peers: []netip.Prefix{c.peer.From}, Deny: true}}})
	c.await("the prefix to be open", func(s Status) bool { return len(s.Ranges) == 1 && s.Ranges[0].Error == "" && len(s.Peers) == 0 })
	frr, bird := c.join(2), c.join(3)
	bed.Await(t, "FRR to have the route", func() bool { return strings.Contains(frr(), anycast.String()) })
	bed.Await(t, "BIRD to have the route", func() bool {
		return strings.Contains(bird(), anycast.String()) && strings.Contains(bird(), "(64500,7)")
	})
	if text := frr() + bird(); strings.Contains(text, special.String()) {
		t.Errorf("a denied route was sent:\n%s", text)
	}
	s := c.await("both in the status", func(s Status) bool {
		return len(s.Peers) == 2 && s.Peers[0].State == "established" && s.Peers[1].State == "established" && s.Peers[0].Sent == 1 && s.Ranges[0].Sessions == 2 && s.Ranges[0].Full
	})
	for i, p := range s.Peers {
		if want := fmt.Sprintf("10.9.6.%d", 2+i); p.Address.String() != want || p.From != c.peer.From || p.ASN != routerASN || p.Hint != "" {
			t.Errorf("peer %d is %s", i, show(p))
		}
	}
	for _, r := range s.Routes {
		for _, p := range r.Peers {
			if want := r.Prefix == anycast; p.Sent != want || p.Wanted != want {
				t.Errorf("%s at %s: %+v", r.Prefix, p.Address, p)
			}
		}
	}

	// Two is the limit.
	c.us.Drop("tcp dport 1")() // needs nft
	for _, rule := range []string{"add table ip knocks", "add chain ip knocks in { type filter hook input priority 0; }", "add rule ip knocks in ip saddr 10.9.6.4 tcp dport 179 tcp flags syn counter"} {
		c.us.Run("nft", rule)
	}
	third := c.join(4)
	// The kernel drops what is signed with a key that it does not have any more: the speaker does not see it come.
	bed.Await(t, "the third to have tried twice", func() bool {
		text := c.us.Run("nft", "list", "table", "ip", "knocks")
		return strings.Contains(text, "counter packets") && !strings.Contains(text, "packets 0 ") && !strings.Contains(text, "packets 1 ")
	})
	if s := c.Status(); len(s.Peers) != 2 || strings.Contains(third(), anycast.String()) {
		t.Errorf("more than two have sessions: %s", show(s.Peers))
	}
	// One leaves, and there is room.
	c.routers[0].Run("ip", "link", "set", "lo", "down")
	undo := c.routers[0].Drop("tcp dport 179")
	undoToo := c.routers[0].Drop("tcp sport 179")
	bed.Await(t, "the third to be let in", func() bool { return strings.Contains(third(), anycast.String()) })
	undo()
	undoToo()

	// New routes, withdrawals and a new limit reach them.
	c.set()
	bed.Await(t, "the withdrawal", func() bool {
		return !strings.Contains(bird(), anycast.String()) && !strings.Contains(third(), anycast.String())
	})
	c.set(Route{Prefix: anycast})
	since := func(s Status) map[netip.Addr]time.Time {
		out := map[netip.Addr]time.Time{}
		for _, p := range s.Peers {
			if p.State == "established" {
				out[p.Address] = p.Since
			}
		}
		return out
	}
	before := since(c.await("two sessions", func(s Status) bool { return len(since(s)) == 2 }))
	c.peer.Most = 3
	if err := c.Reconfigure(c.config, []Peer{c.peer}); err != nil {
		t.Fatal(err)
	}
	bed.Await(t, "all three", func() bool {
		return strings.Contains(frr(), anycast.String()) && strings.Contains(bird(), anycast.String()) && strings.Contains(third(), anycast.String())
	})

	after := since(c.await("three sessions", func(s Status) bool { return len(since(s)) == 3 && s.Ranges[0].Most == 3 }))
	for a, at := range before {
		if !after[a].Equal(at) {
			t.Errorf("a higher limit ended the session of %s: it was of %s, is of %s", a, at, after[a])
		}
	}

	// Another AS number: nobody is let in, and no half-open session stays.
	c.peer.ASN = 64497
	if err := c.Reconfigure(c.config, []Peer{c.peer}); err != nil {
		t.Fatal(err)
	}
	bed.Await(t, "all to go", func() bool {
		return !strings.Contains(frr()+bird()+third(), anycast.String())
	})
	c.await("the reason", func(s Status) bool {
		return len(s.Peers) > 0 && s.Peers[0].State != "established" && strings.Contains(s.Peers[0].LastError, "as number mismatch")
	})
	if err := c.Reconfigure(c.config, nil); err != nil {
		t.Fatal(err)
	}
	c.await("nobody", func(s Status) bool { return len(s.Peers) == 0 && len(s.Ranges) == 0 })
}

// TestDeadlyGuestIsQuarantined: a router from a prefix that crashes the BGP process is refused alone.
func TestDeadlyGuestIsQuarantined(t *testing.T) {
	l := newLab(t)
	r, _ := l.router(2)
	from := netip.PrefixFrom(l.addr(128), 25)
	p := Peer{From: from, ASN: routerASN}
	g := l.speaker(Options{Config: l.config(), Peers: []Peer{l.peer(2), p}}, Route{Prefix: anycast})
	awaitRouter(t, r, "the route", has(anycast))
	dial := func() (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: l.addr(130).AsSlice()}, Timeout: 5 * time.Second}
		return d.Dial("tcp", netip.AddrPortFrom(l.addr(1), l.port).String())
	}
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	establish(conn)
	if _, err := conn.Write(deadly); err != nil {
		t.Fatal(err)
	}
	g.await("the quarantine", func(s Status) bool {
		return len(s.Peers) == 2 && s.Peers[1].State == "quarantined" && s.Peers[1].Address == l.addr(130) && s.Peers[0].State == "established" && s.Child.State == "running"
	})
	awaitRouter(t, r, "the route again", has(anycast))
	restarts := g.Status().Child.Restarts
	conn, err = dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("it is spoken to: %d, %v", n, err)
	}
	if s := g.Status(); s.Child.Restarts != restarts {
		t.Errorf("it did it again: %d restarts, were %d", s.Child.Restarts, restarts)
	}
}
