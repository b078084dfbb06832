package bgp

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp/router"
)

// patience bounds every wait in the tests; nothing waits for it when all is well.
const patience = 30 * time.Second

const (
	speakerASN = 64500
	routerASN  = 64496
)

var labs atomic.Uint32

// A lab is a private range of loopback addresses with one port free on all of them.
type lab struct {
	t    *testing.T
	net  [3]byte
	port uint16
}

func newLab(t *testing.T) *lab {
	t.Helper()
	t.Parallel()
	return newSerialLab(t)
}

// newSerialLab is for tests that look at the whole process.
func newSerialLab(t *testing.T) *lab {
	t.Helper()
	pid := uint32(os.Getpid())
	l := &lab{t: t, port: uint16(17900 + pid%10000)}
	for range 1000 {
		n := labs.Add(1)
		l.net = [3]byte{127, byte(64 + pid%128), byte(n)}
		probe, err := net.Listen("tcp", netip.AddrPortFrom(l.addr(2), l.port).String())
		if err == nil {
			_ = probe.Close()
			return l
		}
	}
	t.Fatal("no free loopback addresses")
	return nil
}

func (l *lab) addr(host byte) netip.Addr {
	return netip.AddrFrom4([4]byte{l.net[0], l.net[1], l.net[2], host})
}

func (l *lab) config() Config {
	return Config{ASN: speakerASN, LocalAddress: l.addr(1), ListenPort: int(l.port), Lease: 10 * time.Second}
}

// shortLease is for tests in which the lease runs out.
const shortLease = time.Second

func (l *lab) shortLease() Config {
	c := l.config()
	c.Lease = shortLease
	return c
}

func (l *lab) peer(host byte) Peer {
	return Peer{Address: l.addr(host), ASN: routerASN, Port: l.port}
}

// A rig is a running speaker with a route table that the test sets.
type rig struct {
	*Speaker
	t    *testing.T
	wake chan struct{}
	logs *logTap
	stop func() // ends Run and waits

	mu     sync.Mutex
	routes []Route
	hold   chan struct{} // not nil: Desired blocks until it is closed
}

func childOptions(o Options) Options {
	o.Child = []string{"/proc/self/exe"}
	o.ChildEnv = append(os.Environ(), childVerb+"=1")
	return o
}

func (l *lab) speaker(o Options, routes ...Route) *rig {
	l.t.Helper()
	g := &rig{t: l.t, wake: make(chan struct{}, 1), routes: routes, logs: newLogTap(l.t)}
	if o.Child == nil {
		o = childOptions(o)
	}
	if o.Config.ASN == 0 {
		o.Config = l.config()
	}
	o.Wake, o.Log = g.wake, slog.New(g.logs)
	o.Desired = g.desired
	s, err := New(o)
	if err != nil {
		l.t.Fatal(err)
	}
	g.Speaker = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			l.t.Errorf("speaker: %v", err)
		}
	}()
	g.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		_ = s.Close()
		if raced(g.logs.String()) {
			l.t.Errorf("the child has a data race:\n%s", g.logs)
		}
	})
	l.t.Cleanup(g.stop)
	l.t.Cleanup(g.release)
	return g
}

// raced reports whether the race detector found something in the child, but for one thing: GoBGP 3.37 notes that graceful
// restart was offered to a peer (a flag for display) while it lists peers for us.
func raced(log string) bool {
	_, reports, _ := strings.Cut(log, "DATA RACE")
	for report := range strings.SplitSeq(reports, "DATA RACE") {
		if report != "" && !(strings.Contains(report, "capabilitiesFromConfig") && strings.Contains(report, "toConfig")) {
			return true
		}
	}
	return false
}

func (g *rig) desired() []Route {
	g.mu.Lock()
	hold, routes := g.hold, g.routes
	g.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return routes
}

// set changes what is desired and wakes the speaker.
func (g *rig) set(routes ...Route) {
	g.mu.Lock()
	g.routes = routes
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// hang makes Desired block until release.
func (g *rig) hang() {
	g.mu.Lock()
	g.hold = make(chan struct{})
	g.mu.Unlock()
}

func (g *rig) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hold != nil {
		close(g.hold)
		g.hold = nil
	}
}

// await waits on the speaker's events until cond holds.
func (g *rig) await(what string, cond func(Status) bool) Status {
	g.t.Helper()
	deadline := time.After(patience)
	for {
		s := g.Status()
		if cond(s) {
			return s
		}
		select {
		case <-g.Watch():
		case <-deadline:
			g.t.Fatalf("waited in vain for %s; status: %s\nlog:\n%s", what, show(s), g.logs)
		}
	}
}

// awaitRouter waits on the router's events until cond holds and returns how long that took.
func awaitRouter(t *testing.T, r *remoteRouter, what string, cond func([]router.Route) bool) time.Duration {
	t.Helper()
	began := time.Now()
	deadline := time.After(patience)
	for !cond(r.Routes()) {
		select {
		case <-r.Watch():
		case <-deadline:
			t.Fatalf("waited in vain for %s; routes: %s; sessions: %s", what, show(r.Routes()), show(r.Sessions()))
		}
	}
	return time.Since(began)
}

func has(prefix netip.Prefix) func([]router.Route) bool {
	return func(routes []router.Route) bool {
		for _, r := range routes {
			if r.Prefix == prefix {
				return true
			}
		}
		return false
	}
}

func none(routes []router.Route) bool { return len(routes) == 0 }

func show(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// A logTap keeps what is logged, to search it.
type logTap struct {
	t  *testing.T
	mu *sync.Mutex
	b  *strings.Builder
	slog.Handler
}

func newLogTap(t *testing.T) *logTap {
	l := &logTap{t: t, mu: &sync.Mutex{}, b: &strings.Builder{}}
	l.Handler = slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})
	return l
}

func (l *logTap) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() < 1<<20 {
		l.b.Write(p)
	}
	return len(p), nil
}

func (l *logTap) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A stallMeter measures for how long this process did not get the CPU that it asked for. Bounds on time are about the
// speaker, not about a machine that is busy with other things.
type stallMeter struct {
	stop chan struct{}
	lost chan time.Duration
}

func measureStalls() *stallMeter {
	m := &stallMeter{stop: make(chan struct{}), lost: make(chan time.Duration, 1)}
	go func() {
		const step = 5 * time.Millisecond
		ticker := time.NewTicker(step)
		defer ticker.Stop()
		var lost time.Duration
		last := time.Now()
		for {
			select {
			case <-ticker.C:
				lost += max(0, time.Since(last)-2*step)
				last = time.Now()
			case <-m.stop:
				m.lost <- lost + max(0, time.Since(last)-2*step)
				return
			}
		}
	}()
	return m
}

// atMost fails the test if took is above limit, plus twice what was lost to stalls since the meter started: the other
// processes were stalled too.
func (m *stallMeter) atMost(t *testing.T, took, limit time.Duration) {
	t.Helper()
	close(m.stop)
	if lost := <-m.lost; took > limit+2*lost {
		t.Errorf("it took %s, want at most %s (and %s lost to stalls)", took, limit, lost)
	}
}
