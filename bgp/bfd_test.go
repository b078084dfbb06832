package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp/bed"
	"github.com/pharos-lb/pharos/bgp/bfd"
)

// A street is a speaker and a router with BFD in namespaces of their own.
type street struct {
	*rig
	us, them *bed.Namespace
	bed      *bed.Bed
	peer     Peer
	link     string
}

func newStreet(t *testing.T) *street {
	t.Parallel()
	b := bed.New(t)
	s := &street{bed: b, us: b.Namespace("us"), them: b.Namespace("them")}
	_, s.link = b.Link(s.us, "10.9.1.1/24", s.them, "10.9.1.2/24")
	s.peer = Peer{
		Address: netip.MustParseAddr("10.9.1.2"), ASN: routerASN,
		BFD: BFD{Interval: 300 * time.Millisecond, Multiplier: 3},
	}
	return s
}

// speak starts the speaker; its child lives in the namespace.
func (s *street) speak(t *testing.T) {
	l := &lab{t: t}
	o := childOptions(Options{
		Config: Config{ASN: speakerASN, LocalAddress: netip.MustParseAddr("10.9.1.1"), Lease: 10 * time.Second},
		Peers:  []Peer{s.peer},
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o.Child = []string{"ip", "netns", "exec", s.us.Name, self}
	s.rig = l.speaker(o, Route{Prefix: anycast})
}

const birdBFD = `
log stderr all;
router id 10.9.1.2;
protocol device {}
protocol bfd { interface %q { interval 300 ms; multiplier 3; }; }
protocol bgp pharos {
	local 10.9.1.2 as 64496;
	neighbor 10.9.1.1 as 64500;
	bfd on;
	error wait time 1, 2;
	connect delay time 1;
	ipv4 { import all; export none; };
}
`

func (s *street) bird() (routed func() bool, stop func(syscall.Signal)) {
	r := s.them.BIRD(fmt.Sprintf(birdBFD, s.link))
	return func() bool { return strings.Contains(r.Birdc("show route"), anycast.String()) }, r.Signal
}

func (s *street) frr() (routed func() bool, stop func(syscall.Signal)) {
	r := s.them.FRR(`router bgp 64496
 bgp router-id 10.9.1.2
 no bgp ebgp-requires-policy
 neighbor 10.9.1.1 remote-as 64500
 neighbor 10.9.1.1 timers connect 1
 neighbor 10.9.1.1 bfd
exit
`)
	return func() bool { return strings.Contains(r.Vtysh("show bgp ipv4 unicast"), anycast.String()) }, r.Signal
}

func bfdState(state string) func(Status) bool {
	return func(s Status) bool {
		p := s.Peers[0]
		return p.State == "established" && p.BFD != nil && p.BFD.State == state && p.BFD.Detection == 900*time.Millisecond
	}
}

// TestBFD: a silent host loses its route at the router within 1.5 s, a silent router its session here, and all comes back.
func TestBFD(t *testing.T) {
	for name, start := range map[string]func(*street) (func() bool, func(syscall.Signal)){"BIRD": (*street).bird, "FRR": (*street).frr} {
		t.Run(name, func(t *testing.T) {
			s := newStreet(t)
			routed, hang := start(s)
			s.speak(t)
			// FRR begins BFD anew when BGP is established.
			before := s.await("BFD and BGP to be steady", func(s Status) bool {
				return bfdState("up")(s) && time.Since(s.Peers[0].BFD.Since) > 1500*time.Millisecond
			}).Peers[0].BFD.Failures
			bed.Await(t, "the route", routed)

			// The host falls silent: BFD, BGP, everything.
			meter := measureStalls()
			began := time.Now()
			undo := s.them.Drop("ip saddr 10.9.1.1")
			bed.Await(t, "the route to go", func() bool { return !routed() })
			took := time.Since(began)
			t.Logf("silent host: route gone after %v", took.Round(time.Millisecond))
			meter.atMost(t, took, 1500*time.Millisecond)
			s.await("the reset here", func(s Status) bool { return s.Peers[0].BFD.Failures > before })
			undo()
			before = s.await("BFD and BGP again", func(s Status) bool {
				return bfdState("up")(s) && time.Since(s.Peers[0].BFD.Since) > 1500*time.Millisecond
			}).Peers[0].BFD.Failures
			bed.Await(t, "the route again", routed)

			// The router hangs; its kernel goes on acknowledging, so that only BFD can tell.
			meter = measureStalls()
			began = time.Now()
			hang(syscall.SIGSTOP)
			got := s.await("the loss of the session", func(s Status) bool { return s.Peers[0].State != "established" })
			took = time.Since(began)
			t.Logf("silent router: session reset after %v", took.Round(time.Millisecond))
			meter.atMost(t, took, 1500*time.Millisecond)
			if p := got.Peers[0]; p.BFD.Failures != before+1 || !strings.Contains(p.LastError, "BFD") {
				t.Errorf("the reason is not told: %s", show(p))
			}
			hang(syscall.SIGCONT)
			s.await("BFD and BGP again", bfdState("up"))
			bed.Await(t, "the route again", routed)
		})
	}
}

// TestBFDStrict: the session waits for BFD, and says so; without strict it does not wait.
func TestBFDStrict(t *testing.T) {
	s := newStreet(t)
	s.peer.BFD.Strict = true
	routed, _ := s.bird()
	undo := s.them.Drop("udp dport 3784")
	s.speak(t)
	waits := func(s Status) bool { return strings.Contains(s.Peers[0].LastError, "waits for BFD") }
	s.await("the session to wait", waits)
	// It would be established by now.
	time.Sleep(3 * time.Second)
	if st := s.Status(); !waits(st) || routed() {
		t.Fatalf("it did not wait: %s", show(st))
	}
	undo()
	s.await("both", bfdState("up"))
	bed.Await(t, "the route", routed)

	// Not strict: BGP runs without BFD.
	s.them.Drop("udp dport 3784")
	s.await("the loss", func(s Status) bool { return s.Peers[0].BFD.Failures > 0 && waits(s) })
	s.peer.BFD.Strict = false
	if err := s.Reconfigure(Config{ASN: speakerASN, LocalAddress: netip.MustParseAddr("10.9.1.1"), Lease: 10 * time.Second}, []Peer{s.peer}); err != nil {
		t.Fatal(err)
	}
	s.await("a session without BFD", func(s Status) bool { return s.Peers[0].State == "established" && s.Peers[0].BFD.State != "up" })
}

// TestBFDAdminDown: a router that takes BFD down on purpose does not lose the session.
func TestBFDAdminDown(t *testing.T) {
	s := newStreet(t)
	s.them.BIRD(strings.ReplaceAll(strings.ReplaceAll(birdBFD, "protocol bfd { interface %q { interval 300 ms; multiplier 3; }; }", ""), "bfd on;", ""))
	// BIRD goes silent when BFD is disabled; others say admin down, as ours does.
	other := bfd.New(bfd.Options{})
	key := bfd.Key{Local: s.peer.Address, Remote: netip.MustParseAddr("10.9.1.1")}
	s.them.Do(func() error {
		return other.Set([]bfd.Peer{{Key: key, Interval: 300 * time.Millisecond, Multiplier: 3}})[key]
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = other.Run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	s.speak(t)
	s.await("both", bfdState("up"))
	since := s.Status().Peers[0].Since
	other.Set(nil)
	got := s.await("the end of BFD", func(s Status) bool { return s.Peers[0].BFD.State == "down" })
	if p := got.Peers[0]; p.BFD.Failures != 0 || p.State != "established" || !p.Since.Equal(since) {
		t.Errorf("admin down counts as a failure: %s", show(p))
	}
}
