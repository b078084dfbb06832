package bgp

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp/bed"
	"github.com/pharos-lb/pharos/bgp/internal/engine"
)

// A town is two speakers at two routers that speak with each other: "near" announces to an FRR, "far" only looks at what
// its BIRD sends.
type town struct {
	near, far *rig
	frr       *bed.FRR
	bird      *bed.BIRD
}

// silentFRR has FRR's own default for eBGP without policies (RFC 8212): it takes what is sent and drops it.
const silentFRR = `router bgp 64496
 bgp router-id 10.9.2.2
 neighbor 10.9.2.1 remote-as 64500
 neighbor 10.9.2.1 timers connect 1
 neighbor 10.9.3.2 remote-as 64497
 neighbor 10.9.3.2 timers connect 1
exit
`

const farBIRD = `
log stderr all;
router id 10.9.4.2;
protocol device {}
template bgp any { error wait time 1, 2; connect delay time 1; ipv4 { import all; export all; next hop self; }; ipv6 { import all; export all; }; }
protocol bgp frr from any { local 10.9.3.2 as 64497; neighbor 10.9.3.1 as 64496; }
protocol bgp pharos from any { local 10.9.4.2 as 64497; neighbor 10.9.4.1 as 64500; }
`

func newTown(t *testing.T) *town {
	t.Parallel()
	b := bed.New(t)
	near, frr, bird, far := b.Namespace("near"), b.Namespace("frr"), b.Namespace("bird"), b.Namespace("far")
	b.Link(near, "10.9.2.1/24", frr, "10.9.2.2/24")
	b.Link(frr, "10.9.3.1/24", bird, "10.9.3.2/24")
	b.Link(bird, "10.9.4.2/24", far, "10.9.4.1/24")
	w := &town{frr: frr.FRR(silentFRR), bird: bird.BIRD(farBIRD)}
	c := func(a string) Config {
		return Config{ASN: speakerASN, LocalAddress: netip.MustParseAddr(a), Lease: 10 * time.Second, Watch: []netip.Prefix{anycast, anycast6}}
	}
	w.near = speakIn(t, near, Options{Config: c("10.9.2.1"), Peers: []Peer{{Address: netip.MustParseAddr("10.9.2.2"), ASN: 64496}}}, Route{Prefix: anycast})
	w.far = speakIn(t, far, Options{Config: c("10.9.4.1"), Peers: []Peer{{Address: netip.MustParseAddr("10.9.4.2"), ASN: 64497, Look: true}}})
	return w
}

func speakIn(t *testing.T, ns *bed.Namespace, o Options, routes ...Route) *rig {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o = childOptions(o)
	o.Child = []string{"ip", "netns", "exec", ns.Name, self}
	return (&lab{t: t}).speaker(o, routes...)
}

// TestSilentDropIsVisible: FRR accepts the session and drops the route by policy, which BGP does not tell. Who looks
// elsewhere sees nothing, and sees the route with the AS it came through once FRR has a policy. Nothing of what is looked
// at is installed or passed on.
func TestSilentDropIsVisible(t *testing.T) {
	w := newTown(t)
	w.near.await("the route to be sent", func(s Status) bool {
		return len(s.Routes) == 1 && len(s.Routes[0].Peers) == 1 && s.Routes[0].Peers[0].Sent
	})
	w.far.await("the far session", func(s Status) bool { return s.Peers[0].State == "established" })
	bed.Await(t, "FRR to have dropped it by policy", func() bool {
		return strings.Contains(w.frr.Vtysh("show bgp ipv4 unicast summary"), "(Policy)")
	})
	if s := w.far.Status(); len(s.Seen) != 0 {
		t.Errorf("it is seen although FRR drops it: %s", show(s.Seen))
	}
	w.frr.Load(`route-map all permit 1
exit
router bgp 64496
 address-family ipv4 unicast
  neighbor 10.9.2.1 route-map all in
  neighbor 10.9.2.1 route-map all out
  neighbor 10.9.3.2 route-map all in
  neighbor 10.9.3.2 route-map all out
 exit-address-family
exit
`)
	// FRR asks for everything again (route-refresh): it had kept nothing.
	s := w.far.await("the route to be seen", func(s Status) bool { return len(s.Seen) == 1 })
	want := Sighting{Prefix: anycast, Peer: netip.MustParseAddr("10.9.4.2"), NextHop: netip.MustParseAddr("10.9.4.2"), ASPath: []uint32{64497, 64496, 64500}}
	if got := s.Seen[0]; got.Prefix != want.Prefix || got.Peer != want.Peer || got.NextHop != want.NextHop || !slices.Equal(got.ASPath, want.ASPath) {
		t.Errorf("seen %s, want %s", show(got), show(want))
	}
	if s.Peers[0].Sent != 0 || s.Peers[0].Received == 0 || !s.Peers[0].Refresh {
		t.Errorf("the looking session is %s, want something received, nothing sent", show(s.Peers[0]))
	}
	w.near.set()
	w.far.await("the sighting to go", func(s Status) bool { return len(s.Seen) == 0 })
}

// TestRouterSettings holds TTL security, passwords and both families over one session against FRR, and names what is set
// wrong.
func TestRouterSettings(t *testing.T) {
	t.Parallel()
	b := bed.New(t)
	us, them := b.Namespace("us"), b.Namespace("them")
	b.Link(us, "10.9.5.1/24 2001:db8:5::1/64", them, "10.9.5.2/24 2001:db8:5::2/64")
	router := them.FRR(`router bgp 64496
 bgp router-id 10.9.5.2
 no bgp ebgp-requires-policy
 neighbor 10.9.5.1 remote-as 64500
 neighbor 10.9.5.1 timers connect 1
 neighbor 10.9.5.1 ttl-security hops 1
 neighbor 10.9.5.1 password hunter2
 neighbor 2001:db8:5::1 remote-as 64500
 neighbor 2001:db8:5::1 timers connect 1
 address-family ipv6 unicast
  neighbor 10.9.5.1 activate
  neighbor 2001:db8:5::1 activate
 exit-address-family
exit
`)
	four := Peer{Address: netip.MustParseAddr("10.9.5.2"), ASN: 64496, TTLSecurity: 1, Password: "hunter2"}
	six := Peer{Address: netip.MustParseAddr("2001:db8:5::2"), ASN: 64496}
	c := Config{
		ASN: speakerASN, LocalAddress: netip.MustParseAddr("10.9.5.1"), SecondAddress: netip.MustParseAddr("2001:db8:5::1"), Lease: 10 * time.Second,
	}
	g := speakIn(t, us, Options{Config: c, Peers: []Peer{four, six}}, Route{Prefix: anycast}, Route{Prefix: anycast6})
	g.await("both families on both sessions", func(s Status) bool {
		for _, r := range s.Routes {
			if len(r.Peers) != 2 || !r.Peers[0].Sent || !r.Peers[1].Sent {
				return false
			}
		}
		return len(s.Routes) == 2
	})

	// The AS number is wrong.
	wrong := six
	wrong.ASN = 64499
	if err := g.Reconfigure(c, []Peer{four, wrong}); err != nil {
		t.Fatal(err)
	}
	g.await("the AS numbers to be named", func(s Status) bool {
		return s.Peers[1].State != "established" && (strings.Contains(s.Peers[1].Hint, "AS number configured here") || strings.Contains(s.Peers[1].Hint, "AS numbers disagree"))
	})
	// The AS number that FRR expects of us is another: of that GoBGP says nothing.
	router.Load("router bgp 64496\n neighbor 2001:db8:5::1 remote-as 64501\nexit\n")
	if err := g.Reconfigure(c, []Peer{four, six}); err != nil {
		t.Fatal(err)
	}
	g.await("the refusal of our OPEN", func(s Status) bool {
		return s.Peers[1].State != "established" && s.Peers[1].LastError == engine.RefusedOpen && strings.Contains(s.Peers[1].Hint, "another AS number")
	})
	router.Load("router bgp 64496\n neighbor 2001:db8:5::1 remote-as 64500\nexit\n")
	// The password is wrong.
	wrong = four
	wrong.Password = "hunter3"
	if err := g.Reconfigure(c, []Peer{wrong, six}); err != nil {
		t.Fatal(err)
	}
	g.await("the password to be named", func(s Status) bool {
		return s.Peers[0].State != "established" && strings.Contains(s.Peers[0].Hint, "password") && s.Peers[1].State == "established"
	})
	// The address is wrong: nobody is there, and the router that connects is a stranger.
	wrong = six
	wrong.Address = netip.MustParseAddr("2001:db8:5::3")
	if err := g.Reconfigure(c, []Peer{four, wrong}); err != nil {
		t.Fatal(err)
	}
	g.await("the stranger to be named", func(s Status) bool {
		return slices.Contains(s.Strangers, six.Address) && s.Peers[0].State == "established"
	})
}

// TestHoldTimeChanges: a changed hold time ends no session that is up; the next one has it.
func TestHoldTimeChanges(t *testing.T) {
	l := newLab(t)
	r, stop := l.router(2)
	p := l.peer(2)
	g := l.speaker(Options{Peers: []Peer{p}}, Route{Prefix: anycast})
	since := g.await("the session", func(s Status) bool { return s.Peers[0].State == "established" && s.Peers[0].Hold == DefaultHold }).Peers[0].Since
	awaitRouter(t, r, "the route", has(anycast))
	p.Hold = 6 * time.Second
	if err := g.Reconfigure(l.config(), []Peer{p}); err != nil {
		t.Fatal(err)
	}
	g.set(Route{Prefix: anycast}, Route{Prefix: netip.MustParsePrefix("198.51.100.0/24")})
	s := g.await("the new state", func(s Status) bool { return s.Peers[0].Sent == 2 })
	if !s.Peers[0].Since.Equal(since) || s.Peers[0].Hold != DefaultHold {
		t.Errorf("the session is of %s with hold %s, want that of %s", s.Peers[0].Since, s.Peers[0].Hold, since)
	}
	stop()
	g.await("the loss", func(s Status) bool { return s.Peers[0].State != "established" })
	_, _ = l.router(2)
	g.await("the session with the new hold time", func(s Status) bool {
		return s.Peers[0].State == "established" && s.Peers[0].Hold == 6*time.Second
	})
}

// TestGobgpCommand: the stock command line of the same module can ask the child, and change nothing.
func TestGobgpCommand(t *testing.T) {
	l := newLab(t)
	r, _ := l.router(2)
	dir := t.TempDir()
	tool := filepath.Join(dir, "gobgp")
	build := exec.Command("go", "build", "-o", tool, "github.com/osrg/gobgp/v3/cmd/gobgp")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build gobgp: %v\n%s", err, out)
	}
	c := l.config()
	c.Socket = filepath.Join(dir, "gobgp.sock")
	l.speaker(Options{Config: c, Peers: []Peer{l.peer(2)}}, Route{Prefix: anycast})
	awaitRouter(t, r, "the route", has(anycast))
	ask := func(args ...string) (string, error) {
		out, err := exec.Command(tool, append([]string{"--target", "unix://" + c.Socket}, args...)...).CombinedOutput()
		return string(out), err
	}
	for _, q := range []struct {
		args []string
		want string
	}{
		{[]string{"neighbor"}, l.addr(2).String()},
		{[]string{"neighbor", l.addr(2).String(), "adj-out"}, anycast.String()},
		{[]string{"global", "rib"}, anycast.String()},
	} {
		if out, err := ask(q.args...); err != nil || !strings.Contains(out, q.want) {
			t.Errorf("gobgp %v: %v\n%s", q.args, err, out)
		}
	}
	if out, err := ask("global", "rib", "add", "203.0.113.0/24"); err == nil || !strings.Contains(out, "change its configuration") {
		t.Errorf("gobgp may add a route: %v\n%s", err, out)
	}
	if info, err := os.Stat(c.Socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v (%v), want 0600", info.Mode(), err)
	}
}

func TestHints(t *testing.T) {
	c := Config{ASN: 64500, RouterID: netip.MustParseAddr("10.0.0.1")}
	p := Peer{Address: netip.MustParseAddr("10.0.0.2"), LocalAddress: netip.MustParseAddr("10.0.0.1"), ASN: 64496, Port: 179, Hold: 9 * time.Second}
	secret := p
	secret.Password = "x"
	var failing md5Watch
	failing.rose[md5Failure] = time.Now()
	for _, tc := range []struct {
		peer  Peer
		state string
		error string
		md5   md5Watch
		want  string
	}{
		{p, "active", "connect: dial tcp 10.0.0.2:179: connect: connection refused", md5Watch{}, "nothing listens on port 179"},
		{p, "active", "connect: dial tcp: i/o timeout", md5Watch{}, "firewall"},
		{secret, "active", "connect: dial tcp: i/o timeout", failing, "passwords likely differ"},
		{p, "idle", "refused it: code 2(open message error) subcode 2(bad peer as)", md5Watch{}, "AS numbers disagree"},
		{p, "idle", engine.RefusedOpen, md5Watch{}, "another AS number than AS64500"},
		{p, "idle", "it refused: code 6(cease) subcode 5(connection rejected)", md5Watch{}, "does not know us"},
		{p, "established", "", md5Watch{}, "takes no IPv4"},
	} {
		if got := hint(c, tc.peer, PeerStatus{State: tc.state, LastError: tc.error}, tc.md5); !strings.Contains(got, tc.want) {
			t.Errorf("hint for %q in %s is %q, want %q in it", tc.error, tc.state, got, tc.want)
		}
	}
	text := fmt.Sprintf("TcpExt: A %s B %s %s\nTcpExt: 1 2 3 4 5\nIpExt: X\nIpExt: 7\n", md5Names[0], md5Names[1], md5Names[2])
	if got := readMD5([]byte(text)); got != [md5Counters]uint64{2, 4, 5} {
		t.Errorf("the kernel's counters are read as %v", got)
	}
}
