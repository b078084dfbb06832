package bfd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp/bed"
)

// A world is a Server of ours beside a router, one or two hops away, and the router's view of it.
type world struct {
	t        *testing.T
	us, them *bed.Namespace
	server   *Server
	stop     func()
	peer     Peer
	link     string // the router's interface
	state    func() string
	hang     func(syscall.Signal)
}

const (
	interopInterval = 300 * time.Millisecond
	detectionTime   = 3 * interopInterval
)

// newWorld lays the network: directly connected, or with a router between.
func newWorld(t *testing.T, multihop, ipv6 bool) *world {
	b := bed.New(t)
	w := &world{t: t, us: b.Namespace("us"), them: b.Namespace("them")}
	ours, theirs := "10.9.1.1", "10.9.1.2"
	if ipv6 {
		ours, theirs = "2001:db8:1::1", "2001:db8:1::2"
	}
	if multihop {
		theirs = strings.Replace(theirs, "9.1", "9.2", 1)
		theirs = strings.Replace(theirs, "8:1", "8:2", 1)
		mid := b.Namespace("mid")
		b.Link(w.us, "10.9.1.1/24 2001:db8:1::1/64", mid, "10.9.1.9/24 2001:db8:1::9/64")
		_, w.link = b.Link(mid, "10.9.2.9/24 2001:db8:2::9/64", w.them, "10.9.2.2/24 2001:db8:2::2/64")
		w.us.Run("ip", "route", "add", "10.9.2.0/24", "via", "10.9.1.9")
		w.us.Run("ip", "route", "add", "2001:db8:2::/64", "via", "2001:db8:1::9")
		w.them.Run("ip", "route", "add", "10.9.1.0/24", "via", "10.9.2.9")
		w.them.Run("ip", "route", "add", "2001:db8:1::/64", "via", "2001:db8:2::9")
	} else {
		_, w.link = b.Link(w.us, "10.9.1.1/24 2001:db8:1::1/64", w.them, "10.9.1.2/24 2001:db8:1::2/64")
	}
	w.peer = Peer{
		Key:      Key{Remote: netip.MustParseAddr(theirs), Local: netip.MustParseAddr(ours), Multihop: multihop},
		Interval: interopInterval, Multiplier: 3,
	}
	return w
}

func (w *world) bird() {
	kind, how := fmt.Sprintf("interface %q", w.link), fmt.Sprintf("dev %q local %s", w.link, w.peer.Remote)
	if w.peer.Multihop {
		kind, how = "multihop", fmt.Sprintf("local %s multihop yes", w.peer.Remote)
	}
	r := w.them.BIRD(fmt.Sprintf(`
log stderr all;
router id 10.9.1.2;
protocol device {}
protocol bfd {
	%s { interval 300 ms; idle tx interval 1 s; multiplier 3; };
	neighbor %s %s;
}
`, kind, w.peer.Local, how))
	w.hang = r.Signal
	w.state = func() string {
		for line := range strings.Lines(r.Birdc("show bfd sessions")) {
			if f := strings.Fields(line); len(f) > 2 && f[0] == w.peer.Local.String() {
				return strings.ToLower(f[2])
			}
		}
		return "none"
	}
}

func (w *world) frr() {
	how := "interface " + w.link
	ttl := ""
	if w.peer.Multihop {
		how = "multihop local-address " + w.peer.Remote.String()
		ttl = "  minimum-ttl 254\n"
	} else if w.peer.Remote.Is6() {
		how = "local-address " + w.peer.Remote.String() + " " + how
	}
	r := w.them.FRR(fmt.Sprintf(`bfd
 peer %s %s
  detect-multiplier 3
  receive-interval 300
  transmit-interval 300
%s exit
exit
`, w.peer.Local, how, ttl))
	w.hang = r.Signal
	w.state = func() string {
		var peers []struct{ Peer, Status string }
		if err := r.JSON("show bfd peers", &peers); err != nil || len(peers) != 1 {
			return "none"
		}
		return peers[0].Status
	}
}

// run starts our side.
func (w *world) run() {
	w.server = New(Options{})
	w.us.Do(func() error {
		var errs []error
		for _, err := range w.server.Set([]Peer{w.peer}) {
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.server.Run(ctx)
	}()
	w.stop = func() {
		cancel()
		<-done
	}
	w.t.Cleanup(w.stop)
}

func (w *world) ours() Status {
	all, _ := w.server.Status()
	if len(all) != 1 {
		return Status{}
	}
	return all[0]
}

func (w *world) await(what string, cond func() bool) time.Duration {
	w.t.Helper()
	defer func() {
		if w.t.Failed() {
			w.t.Logf("we: %+v", w.ours())
		}
	}()
	return bed.Await(w.t, what, cond)
}

func (w *world) awaitUp() {
	w.t.Helper()
	w.await("both up", func() bool { return w.ours().State == Up && w.state() == "up" })
	// Only negotiated timers make what follows meaningful.
	w.await("timers", func() bool {
		s := w.ours()
		return s.Detection == detectionTime && s.Transmit == interopInterval
	})
}

// TestInterop holds BFD against BIRD and FRR: up with negotiated timers, each side notices when it hears nothing of the
// other, and an administrative end is no failure.
func TestInterop(t *testing.T) {
	routers := []struct {
		name  string
		start func(*world)
	}{{"BIRD", (*world).bird}, {"FRR", (*world).frr}}
	for _, r := range routers {
		for _, multihop := range []bool{false, true} {
			for _, ipv6 := range []bool{false, true} {
				name := fmt.Sprintf("%s/multihop=%v/ipv6=%v", r.name, multihop, ipv6)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, multihop, ipv6)
					r.start(w)
					w.run()
					w.interop()
				})
			}
		}
	}
}

func (w *world) interop() {
	w.awaitUp()
	port := fmt.Sprintf("udp dport %d", w.peer.port())

	// They hear nothing of us: they go down, and tell us.
	began := time.Now()
	undo := w.them.Drop(port)
	w.await("their loss", func() bool { return w.state() != "up" })
	w.t.Logf("they noticed our silence after %v", time.Since(began).Round(time.Millisecond))
	w.await("ours", func() bool { return w.ours().Failures == 1 })
	if s := w.ours(); s.Cause != CauseSignal {
		w.t.Errorf("cause %q, want that the neighbor says so", s.Cause)
	}
	undo()
	w.awaitUp()

	// They hang: nothing is heard of them.
	began = time.Now()
	w.hang(syscall.SIGSTOP)
	w.await("our loss", func() bool { return w.ours().Failures == 2 })
	took := time.Since(began)
	w.t.Logf("we noticed their silence after %v", took.Round(time.Millisecond))
	if s := w.ours(); s.Cause != CauseSilence || s.Diag != DiagTimeExpired {
		w.t.Errorf("cause %q, diagnostic %q, want silence", s.Cause, s.Diag)
	}
	w.hang(syscall.SIGCONT)
	w.awaitUp()

	w.stop()
	w.await("their end", func() bool { return w.state() != "up" })
}
