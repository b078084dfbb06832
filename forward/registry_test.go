package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakePools is what a Board is to a Registry, set by hand.
type fakePools struct {
	mu      sync.Mutex
	version uint64
	pools   []ServicePool
}

func (f *fakePools) Version() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.version
}

func (f *fakePools) Edition() (uint64, []ServicePool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.version, f.pools
}

func (f *fakePools) publish(pools ...ServicePool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	f.pools = pools
}

// holder listens and keeps what connects, until the test ends.
func holder(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		for _, c := range conns {
			c.Close()
		}
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// nobody returns an address at which connections are refused.
func nobody(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func newRegistry(t *testing.T, opts Options) *Registry {
	t.Helper()
	r, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

var terms = Terms{Connect: time.Second, Reuse: true}

func TestNewRefusesBadOptions(t *testing.T) {
	tests := []struct {
		name string
		opts Options
	}{
		{"no pools", Options{}},
		{"idle below 0", Options{Pools: &fakePools{}, MaxIdle: -1}},
		{"idle too many", Options{Pools: &fakePools{}, MaxIdle: 65537}},
		{"negative duration", Options{Pools: &fakePools{}, IdleTimeout: -1}},
	}
	for _, tt := range tests {
		if _, err := New(tt.opts); err == nil {
			t.Errorf("%s: no error", tt.name)
		}
	}
}

func TestBorrowSaysWhyThereIsNone(t *testing.T) {
	addr := netip.MustParseAddrPort("127.0.0.1:1")
	down := ServicePool{Service: "web", Members: []Member{{Address: addr}}}
	tests := []struct {
		name  string
		pools []ServicePool
		want  error
	}{
		{"before the first plan", nil, ErrNoPlan},
		{"service without a pool", []ServicePool{{Service: "db"}}, ErrNoPool},
		{"empty pool", []ServicePool{{Service: "web"}}, ErrNoPool},
		{"nothing active", []ServicePool{down}, ErrNoBackend},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pools := &fakePools{}
			if tt.pools != nil {
				pools.publish(tt.pools...)
			}
			_, err := newRegistry(t, Options{Pools: pools}).Load().Borrow(t.Context(), "web", terms)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestBorrowTriesAnother(t *testing.T) {
	good, bad := holder(t), nobody(t)
	pools := &fakePools{}
	pools.publish(ServicePool{Service: "web", Members: []Member{
		{Address: bad, Weight: 1000, Active: true}, {Address: good, Weight: 1, Active: true},
	}})
	r := newRegistry(t, Options{Pools: pools, Penalty: time.Hour})
	for i := range 20 {
		lease, err := r.Load().Borrow(t.Context(), "web", terms)
		if err != nil {
			t.Fatalf("borrow %d: %v", i, err)
		}
		if got := lease.Backend.Address(); got != good {
			t.Fatalf("borrow %d: got %v, want %v", i, got, good)
		}
		lease.Release(false)
	}
	for _, s := range r.Snapshot() {
		if s.Address == bad && s.ConnectFailures != 1 {
			t.Errorf("the refusing backend was tried %d times, want 1: it has a penalty", s.ConnectFailures)
		}
		if s.InFlight != 0 {
			t.Errorf("%v: %d in flight, want 0", s.Address, s.InFlight)
		}
	}
}

func TestBorrowFailsWhenAllRefuse(t *testing.T) {
	pools := &fakePools{}
	pools.publish(ServicePool{Service: "web", Members: []Member{
		{Address: nobody(t), Active: true}, {Address: nobody(t), Active: true},
	}})
	r := newRegistry(t, Options{Pools: pools})
	_, err := r.Load().Borrow(t.Context(), "web", terms)
	if err == nil || errors.Is(err, ErrNoBackend) {
		t.Fatalf("got %v, want the network's errors", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Load().Borrow(ctx, "web", terms); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

func TestReuse(t *testing.T) {
	addr := holder(t)
	pools := &fakePools{}
	pool := ServicePool{Service: "web", Members: []Member{{Address: addr, Active: true}}}
	pools.publish(pool)
	r := newRegistry(t, Options{Pools: pools, MaxIdle: 1})
	borrow := func() Lease {
		t.Helper()
		l, err := r.Load().Borrow(t.Context(), "web", terms)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	status := func() Status { t.Helper(); return r.Snapshot()[0] }

	first, second := borrow(), borrow()
	if got := status().InFlight; got != 2 {
		t.Fatalf("in flight: got %d, want 2", got)
	}
	kept := first.Stream
	first.Release(true)
	second.Release(true) // over MaxIdle
	if got := status(); got.Idle != 1 || got.IdleDropped != 1 || got.InFlight != 0 {
		t.Fatalf("got %+v, want one idle, one dropped", got)
	}
	again := borrow()
	if !again.Reused || again.Stream != kept {
		t.Error("the idle connection was not used again")
	}
	again.Release(true)

	pools.publish(pool) // a new plan with the same backend changes nothing
	again = borrow()
	if again.Stream != kept {
		t.Error("the idle connection did not outlive the plan")
	}
	again.Release(true)
	r.Sweep(time.Now().Add(DefaultIdleTimeout + time.Second))
	if got := status().Idle; got != 0 {
		t.Errorf("after the idle timeout: %d idle, want 0", got)
	}
}

func TestReuseRefusesWhatIsNotQuiet(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pools := &fakePools{}
	pools.publish(ServicePool{Service: "web", Members: []Member{
		{Address: l.Addr().(*net.TCPAddr).AddrPort(), Active: true},
	}})
	r := newRegistry(t, Options{Pools: pools})
	for name, spoil := range map[string]func(net.Conn){
		"closed":    func(c net.Conn) { c.Close() },
		"unasked":   func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n") },
		"half-shut": func(c net.Conn) { c.(*net.TCPConn).CloseWrite() },
	} {
		lease, err := r.Load().Borrow(t.Context(), "web", terms)
		if err != nil {
			t.Fatal(err)
		}
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		spoil(peer)
		for deadline := time.Now().Add(5 * time.Second); lease.Stream.Quiet(); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: never noticed", name)
			}
		}
		before := r.Snapshot()[0].Stale
		lease.Release(true)
		lease, err = r.Load().Borrow(t.Context(), "web", terms)
		if err != nil {
			t.Fatal(err)
		}
		if lease.Reused || r.Snapshot()[0].Stale != before+1 {
			t.Errorf("%s: the connection was used again", name)
		}
		lease.Release(false)
		peer.Close()
		if peer, err = l.Accept(); err == nil {
			peer.Close()
		}
	}
}

func TestBackendsLeaveWhenUnused(t *testing.T) {
	a, b := holder(t), holder(t)
	pools := &fakePools{}
	member := func(addr netip.AddrPort, active bool) ServicePool {
		return ServicePool{Service: "web", Members: []Member{{Address: addr, Active: active}}}
	}
	pools.publish(member(a, true))
	r := newRegistry(t, Options{Pools: pools})
	lease, err := r.Load().Borrow(t.Context(), "web", terms)
	if err != nil {
		t.Fatal(err)
	}
	pools.publish(member(b, true))
	type row struct {
		Address         netip.AddrPort
		Active, Retired bool
		InFlight        int64
	}
	rows := func() map[netip.AddrPort]row {
		out := map[netip.AddrPort]row{}
		for _, s := range r.Snapshot() {
			out[s.Address] = row{s.Address, s.Active, s.Retired, s.InFlight}
		}
		return out
	}
	want := map[netip.AddrPort]row{a: {a, false, true, 1}, b: {b, true, false, 0}}
	if diff := cmp.Diff(want, rows(), cmp.AllowUnexported(), cmp.Comparer(func(x, y netip.AddrPort) bool { return x == y })); diff != "" {
		t.Errorf("while in use (-want +got):\n%s", diff)
	}
	lease.Release(true) // must not be kept: it has left the plan
	want = map[netip.AddrPort]row{b: {b, true, false, 0}}
	if diff := cmp.Diff(want, rows(), cmp.Comparer(func(x, y netip.AddrPort) bool { return x == y })); diff != "" {
		t.Errorf("after the last use (-want +got):\n%s", diff)
	}
}

func TestPickFollowsWeightAndLoad(t *testing.T) {
	pools := &fakePools{}
	var members []Member
	for i, w := range []int{1, 2, 5} {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}), 80)
		members = append(members, Member{Address: addr, Weight: w, Active: true})
	}
	pools.publish(ServicePool{Service: "web", Members: members})
	p := newRegistry(t, Options{Pools: pools}).Load().pools["web"]

	t.Run("idle", func(t *testing.T) {
		const n = 80000
		counts := map[*Backend]int{}
		for range n {
			counts[p.pick(0, false, nil)]++
		}
		for i, b := range p.active {
			share, want := float64(counts[b])/n, float64(p.weights[i])/8
			if share < want*0.93 || share > want*1.07 {
				t.Errorf("weight %d: got a share of %.3f, want about %.3f", p.weights[i], share, want)
			}
		}
	})
	t.Run("loaded", func(t *testing.T) {
		const n = 800
		for range n { // nothing ever ends
			p.pick(0, false, nil).begin()
		}
		for i, b := range p.active {
			got, want := float64(b.inFlight.Load()), n*float64(p.weights[i])/8
			if got < want*0.8-2 || got > want*1.2+2 {
				t.Errorf("weight %d: carries %v, want about %v", p.weights[i], got, want)
			}
		}
	})
}

func TestPickGivesEachOnce(t *testing.T) {
	pools := &fakePools{}
	var members []Member
	for i := range 3 {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}), 80)
		members = append(members, Member{Address: addr, Active: true})
	}
	pools.publish(ServicePool{Service: "web", Members: members})
	p := newRegistry(t, Options{Pools: pools}).Load().pools["web"]
	for range 1000 {
		var tried []*Backend
		seen := map[*Backend]bool{}
		for b := p.pick(0, false, tried); b != nil; b = p.pick(0, false, tried) {
			if seen[b] {
				t.Fatal("picked twice")
			}
			seen[b] = true
			tried = append(tried, b)
		}
		if len(seen) != 3 {
			t.Fatalf("got %d backends, want 3", len(seen))
		}
	}
}

func TestLoadDoesNotAllocate(t *testing.T) {
	pools := &fakePools{}
	pools.publish(ServicePool{Service: "web", Members: []Member{
		{Address: netip.MustParseAddrPort("127.0.0.1:1"), Active: true},
		{Address: netip.MustParseAddrPort("127.0.0.1:2"), Active: true},
	}})
	r := newRegistry(t, Options{Pools: pools})
	if n := testing.AllocsPerRun(1000, func() { r.Load().pools["web"].pick(0, false, nil) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func TestMetrics(t *testing.T) {
	pools := &fakePools{}
	pools.publish(ServicePool{Service: "web", Members: []Member{{Address: holder(t), Active: true}}})
	reg := prometheus.NewPedanticRegistry()
	r := newRegistry(t, Options{Pools: pools, Registerer: reg})
	lease, err := r.Load().Borrow(t.Context(), "web", terms)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release(false)
	lease.Backend.Report(OutcomeServed)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			got[f.GetName()] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"pharos_forward_inflight_leases": 1, "pharos_forward_active_backend": 1,
		"pharos_forward_connects_total": 1, "pharos_forward_outcomes_total": 1,
	} {
		if got[name] != want {
			t.Errorf("%s: got %v, want %v", name, got[name], want)
		}
	}
}
