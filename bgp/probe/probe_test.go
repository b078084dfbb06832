package probe

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp/bed"
)

// quick is for what never answers.
const quick = 1500 * time.Millisecond

var (
	us   = netip.MustParseAddr("10.9.1.1")
	them = netip.MustParseAddr("10.9.1.2")
)

func target() Target {
	return Target{Local: us, Peer: them, Port: 179, ASN: 64500, PeerASN: 64496, RouterID: us, Hold: 9 * time.Second}
}

// probeIn runs a probe on a machine.
func probeIn(ns *bed.Namespace, t Target, o Options) (r Result) {
	if o.Timeout == 0 {
		o.Timeout = quick
	}
	ns.Do(func() error {
		r = Run(context.Background(), t, o)
		return nil
	})
	return r
}

const frr = `router bgp 64496
 bgp router-id 10.9.1.2
 no bgp ebgp-requires-policy
 neighbor 10.9.1.1 remote-as 64500
 neighbor 10.9.1.1 timers connect 1
exit
`

const birdConfig = `
log stderr all;
router id 10.9.1.2;
protocol device {}
protocol bgp pharos { local 10.9.1.2 as 64496; neighbor 10.9.1.1 as 64500; passive on; error wait time 1, 2; connect delay time 1; OPTIONS
  ipv4 { import all; export none; }; ipv6 { import all; export none; }; }
`

// TestFRR has FRR set in every way that keeps a session down, and the probe tell them apart.
func TestFRR(t *testing.T) {
	t.Parallel()
	b := bed.New(t)
	here, there := b.Namespace("us"), b.Namespace("them")
	b.Link(here, "10.9.1.1/24", there, "10.9.1.2/24")
	if r := probeIn(here, target(), Options{}); r.Cause != Refused {
		t.Errorf("without a router: %+v", r)
	}
	router := there.FRR(frr)
	change := func(t Target, f func(*Target)) Target {
		f(&t)
		return t
	}
	for _, tc := range []struct {
		name   string
		lines  string
		target Target
		open   bool
		want   Cause
		detail string
	}{
		{"right", "", target(), false, Spoke, ""},
		{"right, spoken to", "", target(), true, Spoke, ""},
		{"our AS is another there", "", change(target(), func(t *Target) { t.ASN = 64501 }), true, Said, "bad peer as"},
		{"it wants a password", "neighbor 10.9.1.1 password hunter2", target(), false, Silent, ""},
		{"the right password", "", change(target(), func(t *Target) { t.Password = "hunter2" }), false, Spoke, ""},
		{"another password", "", change(target(), func(t *Target) { t.Password = "hunter3" }), false, Silent, ""},
		{"it has no password", "no neighbor 10.9.1.1 password", change(target(), func(t *Target) { t.Password = "hunter2" }), false, NoPassword, ""},
		{"we have TTL security", "", change(target(), func(t *Target) { t.TTLSecurity = 1 }), false, LacksTTL, ""},
		{"it has TTL security", "neighbor 10.9.1.1 ttl-security hops 1", target(), false, WantsTTL, ""},
		{"both have", "", change(target(), func(t *Target) { t.TTLSecurity = 1 }), false, Spoke, ""},
		{"it does not know us", "no neighbor 10.9.1.1", target(), false, Closed, ""},
		{"nobody has the source", "", change(target(), func(t *Target) { t.Local = netip.MustParseAddr("10.9.1.77") }), false, NoSource, ""},
	} {
		if tc.lines != "" {
			router.Load("router bgp 64496\n " + tc.lines + "\nexit\n")
		}
		// FRR takes a moment to be ready for the next connection.
		var r Result
		for began := time.Now(); time.Since(began) < 15*time.Second; {
			if r = probeIn(here, tc.target, Options{Open: tc.open}); r.Cause == tc.want {
				break
			}
		}
		if r.Cause != tc.want {
			t.Errorf("%s: %v %+v, want %v", tc.name, r.Cause, r, tc.want)
		}
		if !strings.Contains(r.Detail, tc.detail) {
			t.Errorf("%s: %+v, want %q", tc.name, r, tc.detail)
		}
		if r.Cause == Spoke && (r.Heard.ASN != 64496 || !r.Heard.IPv4 || r.Heard.RouterID != them || r.Took != tc.open) {
			t.Errorf("%s: heard %+v, took %v", tc.name, r.Heard, r.Took)
		}
	}
}

// TestBIRD is the same with BIRD, and what has to do with the path.
func TestBIRD(t *testing.T) {
	t.Parallel()
	b := bed.New(t)
	here, there := b.Namespace("us"), b.Namespace("them")
	b.Link(here, "10.9.1.1/24 2001:db8:1::1/64", there, "10.9.1.2/24 2001:db8:1::2/64")
	there.BIRD(strings.Replace(birdConfig, "OPTIONS", "", 1))
	r := probeIn(here, target(), Options{})
	if r.Cause != Spoke || r.Heard.ASN != 64496 || !r.Heard.IPv4 || !r.Heard.IPv6 || r.Heard.Hold != 240*time.Second {
		t.Errorf("BIRD: %+v %+v", r, r.Heard)
	}
	undo := there.Drop("tcp dport 179")
	if r := probeIn(here, target(), Options{}); r.Cause != Silent {
		t.Errorf("filtered: %+v", r)
	}
	undo()
	nobody := target()
	nobody.Peer = netip.MustParseAddr("10.9.1.3")
	if r := probeIn(here, nobody, Options{Timeout: DefaultTimeout}); r.Cause != Unreachable {
		t.Errorf("an address that nobody has: %+v", r)
	}
	nobody.Peer = netip.MustParseAddr("203.0.113.1")
	if r := probeIn(here, nobody, Options{}); r.Cause != Unreachable {
		t.Errorf("no route: %+v", r)
	}
	six := target()
	six.Local, six.Peer = netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:1::2")
	if r := probeIn(here, six, Options{}); r.Cause != Refused { // BIRD listens on the other address
		t.Errorf("over IPv6: %+v", r)
	}
}

// TestFurther has routers two and three hops away.
func TestFurther(t *testing.T) {
	t.Parallel()
	b := bed.New(t)
	here, one, two, there := b.Namespace("us"), b.Namespace("one"), b.Namespace("two"), b.Namespace("them")
	toOne, _ := b.Link(here, "10.9.1.1/24", one, "10.9.1.9/24")
	b.Link(one, "10.9.2.1/24", two, "10.9.2.2/24")
	b.Link(two, "10.9.3.1/24", there, "10.9.3.2/24")
	here.Run("ip", "route", "add", "default", "via", "10.9.1.9", "dev", toOne)
	one.Run("ip", "route", "add", "10.9.3.0/24", "via", "10.9.2.2")
	two.Run("ip", "route", "add", "10.9.1.0/24", "via", "10.9.2.1")
	there.Run("ip", "route", "add", "default", "via", "10.9.3.1")
	there.BIRD(`
log stderr all;
router id 10.9.3.2;
protocol device {}
protocol bgp pharos { local 10.9.3.2 as 64496; neighbor 10.9.1.1 as 64500; multihop 3; passive on; ipv4 { import all; export none; }; }
`)
	away := target()
	away.Peer = netip.MustParseAddr("10.9.3.2")
	for _, quiet := range []bool{false, true} {
		if quiet { // routers that do not say that the time is exceeded
			here.Drop("icmp type time-exceeded")
		}
		for multihop, want := range map[int]Result{0: {Cause: Further, Hops: 3}, 2: {Cause: Further, Hops: 3}, 3: {Cause: Spoke}} {
			away.Multihop = multihop
			r := probeIn(here, away, Options{Timeout: quick / 3})
			if r.Cause != want.Cause || r.Hops != want.Hops {
				t.Errorf("multihop %d, quiet %v: %+v, want %+v", multihop, quiet, r, want)
			}
		}
	}
}

// TestStrangeAnswers has something else than a router answer.
func TestStrangeAnswers(t *testing.T) {
	t.Parallel()
	marker := strings.Repeat("\xff", 16)
	for name, tc := range map[string]struct {
		say  string
		stay bool
		want Cause
	}{
		"nothing":              {"", true, Mute},
		"nothing, and closes":  {"", false, Closed},
		"SSH":                  {"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", true, Foreign},
		"half a header":        {"\xff\xff", false, Foreign},
		"an unknown type":      {marker + "\x00\x14\x63\x00", true, Foreign},
		"a length of nothing":  {marker + "\x00\x05\x01", true, Foreign},
		"a length of too much": {marker + "\xff\xff\x01", true, Foreign},
		"half an OPEN":         {marker + "\x00\x1d\x01\x04\xfb", false, Foreign},
		"an OPEN that lies":    {marker + "\x00\x1f\x01\x04\xfb\xf0\x00\x09\x0a\x00\x00\x01\x02\x02\xff", true, Foreign},
		"a KEEPALIVE":          {marker + "\x00\x13\x04", true, Foreign},
		"a NOTIFICATION":       {marker + "\x00\x15\x03\x06\x05", true, Said},
		"an OPEN of AS 64496":  {marker + "\x00\x1d\x01\x04\xfb\xf0\x00\x09\x0a\x00\x00\x01\x00", true, Spoke},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			release := make(chan struct{})
			defer close(release)
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = conn.Write([]byte(tc.say))
				if tc.stay {
					<-release
				}
			}()
			at := l.Addr().(*net.TCPAddr).AddrPort()
			r := Run(t.Context(), Target{Local: at.Addr(), Peer: at.Addr(), Port: at.Port(), ASN: 64500, PeerASN: 64496}, Options{Timeout: quick / 3})
			if r.Cause != tc.want {
				t.Errorf("%+v, want %v", r, tc.want)
			}
			if r.Cause == Spoke && (r.Heard.ASN != 64496 || r.Heard.Hold != 9*time.Second || !r.Heard.IPv4 || r.Heard.IPv6) {
				t.Errorf("heard %+v", r.Heard)
			}
		})
	}
}

// FuzzReadMessage: nothing that a router sends ends the process, and what is read is a message that can come here.
func FuzzReadMessage(f *testing.F) {
	marker := strings.Repeat("\xff", 16)
	for _, seed := range []string{
		"", marker, marker + "\x00\x13\x04", marker + "\x00\x1d\x01\x04\xfb\xf0\x00\x09\x0a\x00\x00\x01\x00", marker + "\x00\x15\x03\x06\x05",
		marker + "\x00\x14\x63\x00", marker + "\x00\x25\x01\x04\xfb\xf0\x00\x09\x0a\x00\x00\x01\x08\x02\x06\x41\x04\x00\x01\x00\x01",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := readMessage(strings.NewReader(string(in)))
		if err == nil && m == nil {
			t.Fatal("neither a message nor an error")
		}
		if err != nil {
			if broken(err).Cause == Broken {
				t.Fatalf("%v is none of the causes", err)
			}
			return
		}
		if m.Body == nil || len(in) < 19 {
			t.Fatalf("read %+v of %d bytes", m, len(in))
		}
		_ = refusalOf(m)
	})
}
