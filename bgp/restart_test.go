package bgp

import (
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp/bed"
)

const restartBIRD = `
log stderr all;
router id 10.9.1.2;
protocol device {}
protocol kernel { ipv4 { import none; export all; }; }
protocol bgp pharos { local 10.9.1.2 as 64496; neighbor 10.9.1.1 as 64500; hold time 9; error wait time 1, 2; connect delay time 1; ipv4 { import all; export none; }; }
`

const restartFRR = `router bgp 64496
 bgp router-id 10.9.1.2
 no bgp ebgp-requires-policy
 neighbor 10.9.1.1 remote-as 64500
 neighbor 10.9.1.1 timers connect 1
exit
`

// A routeWatch follows a machine's own table.
type routeWatch struct {
	has  func() bool
	lost func() bool // since the watch began
}

// watchRoute has the kernel tell of a route.
func watchRoute(t *testing.T, ns *bed.Namespace, prefix netip.Prefix) routeWatch {
	t.Helper()
	cmd := ns.Command("ip", "-o", "monitor", "route")
	var out lockedText
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	// It hears: a test route comes.
	bed.Await(t, "the watch to hear", func() bool {
		_ = ns.Command("ip", "route", "del", "blackhole", "198.51.100.77/32").Run()
		_ = ns.Command("ip", "route", "add", "blackhole", "198.51.100.77/32").Run()
		return strings.Contains(out.String(), "198.51.100.77")
	})
	return routeWatch{
		has:  func() bool { return strings.Contains(ns.Run("ip", "route", "show", prefix.String()), prefix.String()) },
		lost: func() bool { return strings.Contains(out.String(), "Deleted "+prefix.String()) },
	}
}

// TestGracefulRestart: with graceful restart the route stays in the router's own table when the child dies and comes back. A
// lease that runs out and a stop withdraw all the same, and it can be turned off and on while the speaker runs.
func TestGracefulRestart(t *testing.T) {
	for _, router := range []string{"BIRD", "FRR"} {
		t.Run(router, func(t *testing.T) {
			t.Parallel()
			b := bed.New(t)
			us, them := b.Namespace("us"), b.Namespace("them")
			b.Link(us, "10.9.1.1/24", them, "10.9.1.2/24")
			if router == "BIRD" {
				them.BIRD(restartBIRD)
			} else {
				them.ForwardingFRR(restartFRR)
			}
			c := Config{ASN: speakerASN, LocalAddress: netip.MustParseAddr("10.9.1.1"), Lease: 2 * time.Second, Restart: 20 * time.Second}
			p := Peer{Address: netip.MustParseAddr("10.9.1.2"), ASN: routerASN}
			g := speakIn(t, us, Options{Config: c, Peers: []Peer{p}}, Route{Prefix: anycast})
			up := func(s Status) bool { return s.Peers[0].State == "established" && s.Peers[0].Sent == 1 }
			g.await("the session", up)
			watch := watchRoute(t, them, anycast)
			bed.Await(t, "the route", watch.has)

			// The child dies, twice.
			for range 2 {
				child := g.Status().Child.PID
				if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				g.await("the session of another child", func(s Status) bool { return s.Child.PID != child && up(s) })
			}
			// The end of what a router keeps comes with our End-of-RIB, after the routes.
			time.Sleep(time.Second)
			if watch.lost() || !watch.has() {
				t.Fatal("the end of the BGP process withdrew the route")
			}

			// The node hangs: withdrawn all the same.
			g.hang()
			bed.Await(t, "the route to go with the lease", func() bool { return !watch.has() })
			g.release()
			bed.Await(t, "the route again", watch.has)

			// It is turned off and on again while it runs.
			for _, c.Restart = range []time.Duration{0, 20 * time.Second} {
				if err := g.Reconfigure(c, []Peer{p}); err != nil {
					t.Fatal(err)
				}
				since := time.Now()
				g.await("a new session", func(s Status) bool { return up(s) && s.Peers[0].Since.After(since) })
				bed.Await(t, "the route of the new session", watch.has)
			}
			g.stop()
			bed.Await(t, "the route to go with a stop", func() bool { return !watch.has() })
		})
	}
}

// TestGracefulRestartOfTheParent: the parent is killed. With graceful restart the child ends without a word, and the router
// keeps the route until the time is over; without, it withdraws.
func TestGracefulRestartOfTheParent(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		router  string
		restart time.Duration
	}{{"BIRD", 0}, {"BIRD", 6 * time.Second}, {"FRR", 0}, {"FRR", 6 * time.Second}} {
		restart := tc.restart
		t.Run(tc.router+" "+restart.String(), func(t *testing.T) {
			t.Parallel()
			b := bed.New(t)
			us, them := b.Namespace("us"), b.Namespace("them")
			b.Link(us, "10.9.1.1/24", them, "10.9.1.2/24")
			if tc.router == "BIRD" {
				them.BIRD(restartBIRD)
			} else {
				them.ForwardingFRR(restartFRR)
			}
			c := Config{ASN: speakerASN, LocalAddress: netip.MustParseAddr("10.9.1.1"), Lease: 10 * time.Second, Restart: restart}
			parent := startParentIn(t, us, c, Peer{Address: netip.MustParseAddr("10.9.1.2"), ASN: routerASN})
			watch := watchRoute(t, them, anycast)
			bed.Await(t, "the route", watch.has)
			time.Sleep(time.Second) // the router has everything
			began := time.Now()
			parent()
			bed.Await(t, "the route to go", func() bool { return !watch.has() })
			took := time.Since(began)
			t.Logf("gone after %v", took.Round(time.Millisecond))
			if restart == 0 && took > 2*time.Second || restart > 0 && took < restart-time.Second {
				t.Errorf("the route went after %v, with %v of graceful restart", took, restart)
			}
		})
	}
}

// startParentIn runs a speaker in a process of its own on a machine; kill ends it without a word.
func startParentIn(t *testing.T, ns *bed.Namespace, c Config, p Peer) (kill func()) {
	t.Helper()
	state, err := json.Marshal(order{Config: c, Peers: []Peer{p}, Routes: []Route{{Prefix: anycast}}})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := ns.Command(self)
	cmd.Env = append(os.Environ(), parentVerb+"="+string(state))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	return kill
}

// A lockedText is what a process printed so far.
type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

// Write implements io.Writer.
func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
