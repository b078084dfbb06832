package forward

import (
	"errors"
	"net/netip"
	"testing"
)

// TestOverflow: what the pool has nobody for goes to other sites, but nothing that has been
// forwarded once already, and nothing that does not ask for it.
func TestOverflow(t *testing.T) {
	own := netip.MustParseAddrPort("10.0.0.1:80")
	far := []netip.Addr{netip.MustParseAddr("198.51.100.3"), netip.MustParseAddr("198.51.100.4")}
	node := netip.MustParseAddr("192.0.2.1")
	pools := &fakePools{}
	publish := func(active bool, overflow []netip.Addr, limit int64) {
		pools.publish(ServicePool{
			Service: "web", Overflow: overflow, Fleet: []netip.Addr{node}, Policy: Policy{Limit: Limit{PerBackend: limit}},
			Members: []Member{{Address: own, Weight: 1, Active: active}},
		})
	}
	r, err := New(Options{Pools: pools})
	if err != nil {
		t.Fatal(err)
	}
	client := Flow{Client: netip.MustParseAddrPort("203.0.113.9:4711"), Overflow: 5432}
	claim := func(f Flow, tried ...*Backend) *Backend {
		b, err := r.Load().Claim("web", f, tried)
		if err != nil && !errors.Is(err, ErrNoBackend) && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		return b
	}
	where := func(b *Backend) string {
		if b == nil {
			return "nobody"
		}
		return b.Address().String()
	}
	expect := func(what string, b *Backend, want string) *Backend {
		t.Helper()
		if got := where(b); got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
		return b
	}
	publish(true, far, 0)
	expect("the pool works", claim(client), "10.0.0.1:80").Done()
	publish(false, far, 0)
	first := expect("nobody is up", claim(client), "198.51.100.3:5432")
	second := expect("the first was tried", claim(client, first), "198.51.100.4:5432")
	expect("both were tried", claim(client, first, second), "nobody")
	expect("nobody asked for it", claim(Flow{Client: client.Client}), "nobody")
	expect("from another node", claim(Flow{Client: netip.AddrPortFrom(node, 1), Overflow: 5432}), "nobody")
	expect("a client's, by another node's header", claim(Flow{Client: client.Client, From: node, Overflow: 5432}), "nobody")
	first.Failed(errors.New("refused"))
	expect("the first has just refused", claim(client), "198.51.100.4:5432").Done()
	if !first.Elsewhere() || !first.InUse() {
		t.Errorf("elsewhere %v, in use %v", first.Elsewhere(), first.InUse())
	}
	publish(true, far, 1)
	held := expect("the pool again", claim(client), "10.0.0.1:80")
	expect("the pool is full", claim(client), "198.51.100.4:5432").Done()
	held.Done()
	publish(true, far[1:], 0)
	r.Load()
	if first.InUse() || !second.InUse() {
		t.Errorf("in use: %v, %v; the first is no longer named", first.InUse(), second.InUse())
	}
	first.Done()
	second.Done()
	if q := r.Queues(); len(q) != 1 || q[0].Overflowed != 4 {
		t.Errorf("got %+v, want 4 overflowed", q)
	}
	for _, s := range r.Snapshot() {
		if s.InFlight != 0 || s.Address == first.Address() {
			t.Errorf("left: %+v", s)
		}
	}
}

// TestIntake: a rate for all, which a reload does not give anew.
func TestIntake(t *testing.T) {
	r, err := New(Options{Pools: &fakePools{}})
	if err != nil {
		t.Fatal(err)
	}
	in := r.Intake()
	if in.Connections() != DefaultMaxConns || !in.Take() {
		t.Fatalf("%d connections by default", in.Connections())
	}
	in.Set(7, 5)
	taken := 0
	for range 100 {
		if in.Take() {
			taken++
		}
		in.Set(7, 5)
	}
	if taken < 5 || taken > 6 || in.Connections() != 7 {
		t.Errorf("%d of 100 taken, want 5; %d connections", taken, in.Connections())
	}
}

// TestOverflowIsBounded: while a pool works, no more goes elsewhere than is in proportion, lest two full sites that do not know each other's
// addresses hand on to each other without end; where it does not, all does.
func TestOverflowIsBounded(t *testing.T) {
	pools := &fakePools{}
	publish := func(active bool, limit int64) {
		pools.publish(ServicePool{
			Service: "web", Overflow: []netip.Addr{netip.MustParseAddr("198.51.100.3"), netip.MustParseAddr("198.51.100.4")},
			Policy:  Policy{Limit: Limit{PerBackend: limit}},
			Members: []Member{{Address: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1, Active: active}},
		})
	}
	r, err := New(Options{Pools: pools})
	if err != nil {
		t.Fatal(err)
	}
	fill := func(most int) (own, away int) {
		for range most {
			b, err := r.Load().Claim("web", Flow{Client: netip.MustParseAddrPort("203.0.113.9:4711"), Overflow: 5432}, nil)
			switch {
			case err != nil && !Limited(err):
				t.Fatal(err)
			case err != nil:
				return own, away
			case b.Elsewhere():
				away++
			default:
				own++
			}
		}
		return own, away
	}
	publish(true, 10)
	if own, away := fill(10_000); own != 10 || away != spillMost {
		t.Errorf("%d and %d elsewhere, want 10 and %d", own, away, spillMost)
	}
	publish(true, 100)
	if own, away := fill(10_000); own != 90 || away != 100*spillTimes-spillMost {
		t.Errorf("%d more and %d more elsewhere, want 90 and %d", own, away, 100*spillTimes-spillMost)
	}
	publish(false, 100)
	if own, away := fill(1000); own != 0 || away != 1000 {
		t.Errorf("the pool is down: %d and %d elsewhere, want all 1000", own, away)
	}
}
