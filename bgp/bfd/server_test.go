package bfd

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/ipv4"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var hosts atomic.Uint32

// host returns a loopback address that no other test uses; the ports of BFD are fixed.
func host() netip.Addr {
	n := hosts.Add(1)
	return netip.AddrFrom4([4]byte{127, byte(128 + os.Getpid()%100), byte(n >> 8), byte(n)})
}

// patience bounds every wait; nothing waits for it when all is well.
const patience = 20 * time.Second

// start runs a Server until the test ends or stop is called.
func start(t testing.TB, peers ...Peer) (s *Server, stop func()) {
	t.Helper()
	s = New(Options{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	for key, err := range s.Set(peers) {
		t.Fatalf("%v: %v", key, err)
	}
	return s, stop
}

// await waits on the Server's events until its first session is as wanted.
func await(t testing.TB, s *Server, what string, cond func(Status) bool) Status {
	t.Helper()
	deadline := time.After(patience)
	look := time.NewTicker(10 * time.Millisecond) // timers and counters change without an event
	defer look.Stop()
	for {
		all, drops := s.Status()
		if len(all) > 0 && cond(all[0]) {
			return all[0]
		}
		select {
		case <-s.Changed():
		case <-look.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s: %+v, %+v", what, all, drops)
		}
	}
}

func isUp(s Status) bool { return s.State == Up && s.PeerState == Up }

func pair(a, b netip.Addr, interval time.Duration, multihop bool) (Peer, Peer) {
	x := Peer{Key: Key{Local: a, Remote: b, Multihop: multihop}, Interval: interval, Multiplier: 3}
	y := Peer{Key: Key{Local: b, Remote: a, Multihop: multihop}, Interval: interval, Multiplier: 3}
	return x, y
}

func TestServers(t *testing.T) {
	x, y := pair(host(), host(), 100*time.Millisecond, false)
	a, _ := start(t, x)
	b, stopB := start(t, y)
	await(t, a, "up", isUp)
	await(t, b, "up", isUp)

	// Other parameters are negotiated while both stay up.
	x.Interval, x.Multiplier = 50*time.Millisecond, 4
	a.Set([]Peer{x})
	await(t, b, "the new multiplier", func(s Status) bool { return s.Detection == 400*time.Millisecond })
	y.Interval = 50 * time.Millisecond
	b.Set([]Peer{y})
	s := await(t, b, "the new interval", func(s Status) bool { return s.Detection == 200*time.Millisecond })
	if s.Failures != 0 || s.State != Up {
		t.Errorf("negotiating interrupted the session: %+v", s)
	}

	// A stop is no failure.
	stopB()
	s = await(t, a, "the end", func(s Status) bool { return s.State == Down })
	if s.Cause != CausePeerAdmin || s.Failures != 0 {
		t.Errorf("a stop counts as %q, %d failures", s.Cause, s.Failures)
	}

	// A new process with other discriminators.
	b, _ = start(t, y)
	await(t, a, "up again", isUp)

	// What is no longer wanted ends in the same way.
	b.Set(nil)
	s = await(t, a, "the end", func(s Status) bool { return s.State == Down })
	if s.Failures != 0 {
		t.Errorf("a removed session counts as a failure: %+v", s)
	}
	if all, _ := b.Status(); len(all) != 0 {
		t.Errorf("%d sessions left", len(all))
	}
	b.Set([]Peer{y})
	await(t, a, "up again", isUp)
}

// A voice sends packets by hand.
type voice struct {
	t    *testing.T
	conn *ipv4.PacketConn
	to   net.Addr
}

func newVoice(t *testing.T, from, to netip.Addr, ttl int) voice {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := ipv4.NewPacketConn(conn)
	if err := p.SetTTL(ttl); err != nil {
		t.Fatal(err)
	}
	return voice{t, p, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, SingleHopPort))}
}

func (v voice) say(b []byte) {
	v.t.Helper()
	if _, err := v.conn.WriteTo(b, nil, v.to); err != nil {
		v.t.Fatal(err)
	}
}

// TestStrangers: what is malformed, from further away, or of nobody we speak with changes nothing and is counted.
func TestStrangers(t *testing.T) {
	x, y := pair(host(), host(), 100*time.Millisecond, false)
	a, _ := start(t, x)
	b, _ := start(t, y)
	await(t, a, "up", isUp)
	var mine uint32
	a.mu.Lock()
	for d := range a.byDisc {
		mine = d
	}
	a.mu.Unlock()
	down := Packet{State: Down, Multiplier: 3, Mine: 99, Yours: mine, DesiredMinTx: time.Second, RequiredMinRx: time.Second}.Append(nil)
	far, near, stranger := newVoice(t, x.Remote, x.Local, 254), newVoice(t, x.Remote, x.Local, 255), newVoice(t, host(), x.Local, 255)
	far.say(down)
	stranger.say(down)
	near.say(down[:20])
	near.say(make([]byte, 1400))
	near.say(Packet{State: Down, Multiplier: 3, Mine: 99, Yours: mine + 1}.Append(nil))
	want := Drops{Malformed: 2, TTL: 1, Unknown: 2}
	await(t, a, "the drops", func(Status) bool { _, d := a.Status(); return d == want })
	if s := await(t, b, "the session", isUp); s.Failures != 0 {
		t.Errorf("strangers brought the session down: %+v", s)
	}
	// The same packet, from where it should come, does.
	near.say(down)
	await(t, a, "the loss", func(s Status) bool { return s.Failures == 1 && s.Cause == CauseSignal })
}

// TestStall: a Server that did not run for a while reads what waits for it before it calls anybody dead.
func TestStall(t *testing.T) {
	x, y := pair(host(), host(), 50*time.Millisecond, false)
	a, _ := start(t, x)
	b, _ := start(t, y)
	await(t, a, "up", isUp)
	await(t, b, "fast timers", func(s Status) bool { return s.Detection == 150*time.Millisecond })
	await(t, a, "fast timers", func(s Status) bool { return s.Detection == 150*time.Millisecond })
	a.mu.Lock() // now it does not run
	defer a.mu.Unlock()
	var e *entry
	for _, e = range a.byKey {
	}
	e.session.heard = time.Now().Add(-time.Hour)
	seemsDead := func(looks int) {
		t.Helper()
		for range looks {
			a.service(e, time.Now())
		}
	}
	// What the reader has in its hands shows nowhere: it gets a moment.
	if seemsDead(1); e.session.state != Up {
		t.Error("it called the neighbour dead with the first look")
	}
	// b goes on sending: the reader takes one batch and waits for the lock, the rest waits in the kernel.
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if e.via.waiting() {
			break
		}
	}
	if seemsDead(maxLooks - 1); e.session.state != Up {
		t.Error("it called the neighbour dead unread")
	}
	if seemsDead(1); e.session.state != Down {
		t.Error("packets that wait keep a dead neighbour alive for ever")
	}
}

func TestSetRefuses(t *testing.T) {
	good := Peer{Key: Key{Local: host(), Remote: host()}, Interval: 300 * time.Millisecond, Multiplier: 3}
	tests := []struct {
		name   string
		change func(*Peer)
	}{
		{"no address", func(p *Peer) { p.Remote = netip.Addr{} }},
		{"two families", func(p *Peer) { p.Remote = netip.IPv6Loopback() }},
		{"interval too short", func(p *Peer) { p.Interval = time.Millisecond }},
		{"interval too long", func(p *Peer) { p.Interval = time.Hour }},
		{"multiplier", func(p *Peer) { p.Multiplier = 256 }},
		{"TTL", func(p *Peer) { p.MinTTL = 256 }},
		{"not our address", func(p *Peer) { p.Local = netip.MustParseAddr("192.0.2.1") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bad := good
			tt.change(&bad)
			s, _ := start(t)
			if errs := s.Set([]Peer{bad}); errs[bad.Key] == nil || len(errs) != 1 {
				t.Errorf("errors %v, want one", errs)
			}
		})
	}
	// One that fails stops no other.
	s, _ := start(t)
	bad := good
	bad.Local = netip.MustParseAddr("192.0.2.1")
	if errs := s.Set([]Peer{bad, good}); len(errs) != 1 {
		t.Errorf("errors %v, want one", errs)
	}
	if all, _ := s.Status(); len(all) != 1 {
		t.Errorf("%d sessions, want one", len(all))
	}
	// Another daemon has the port.
	other := New(Options{})
	defer other.Close()
	if err := other.Set([]Peer{good})[good.Key]; err == nil {
		t.Error("two servers hold one port")
	}
}

// TestHundred counts what 100 sessions at 100 ms send, and is the place to see what they cost.
func TestHundred(t *testing.T) {
	cost, rate := hundred(t, 2*time.Second)
	t.Logf("100 sessions at 100 ms: %.1f %% of a core, %.0f packets/s each way", 100*cost, rate)
	// 100 to 133 packets a second and session would be 75 to 100 ms; on a busy machine fewer.
	if rate > 1400 {
		t.Errorf("%.0f packets/s, want at most 1,333", rate)
	}
}

// hundred runs 100 sessions between two Servers of this process and returns the CPU of one, as a part of a core, and
// the packets per second that one sends.
func hundred(t testing.TB, d time.Duration) (cost, rate float64) {
	t.Helper()
	hub := host()
	var here, there []Peer
	for range 100 {
		x, y := pair(hub, host(), 100*time.Millisecond, false)
		here, there = append(here, x), append(there, y)
	}
	a, stopA := start(t, here...)
	_, stopB := start(t, there...)
	await(t, a, "all up", func(Status) bool {
		all, _ := a.Status()
		for _, s := range all {
			if !isUp(s) || s.Detection != 300*time.Millisecond {
				return false
			}
		}
		return true
	})
	sent := func() (n uint64) {
		all, _ := a.Status()
		for _, s := range all {
			n += s.Out
		}
		return n
	}
	cpu, packets, began := usage(), sent(), time.Now()
	var stall time.Duration                     // the longest time in which the machine let nobody here run
	for last := began; time.Since(began) < d; { // measured, not waited for
		time.Sleep(10 * time.Millisecond)
		now := time.Now()
		stall, last = max(stall, now.Sub(last)), now
	}
	took := time.Since(began)
	cpu, packets = usage()-cpu, sent()-packets
	all, _ := a.Status()
	for _, s := range all {
		if s.Failures > 0 && stall < 150*time.Millisecond { // half of what a session allows
			t.Errorf("the session with %s failed %d times: %s", s.Remote, s.Failures, s.Cause)
		}
	}
	stopA()
	stopB()
	return cpu.Seconds() / 2 / took.Seconds(), float64(packets) / took.Seconds()
}

func usage() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func BenchmarkHundred(b *testing.B) {
	for range b.N {
		cost, rate := hundred(b, 5*time.Second)
		b.ReportMetric(100*cost, "%core")
		b.ReportMetric(rate, "packets/s")
	}
}

func BenchmarkParse(b *testing.B) {
	p := decode(b, wire)
	b.ReportAllocs()
	for range b.N {
		if _, err := Parse(p); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleState_String() {
	fmt.Println(AdminDown, Down, Init, Up)
	// Output: admin_down down init up
}
