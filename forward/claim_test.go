package forward

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
)

// TestClaim: a claim passes over what was tried, counts as in flight until Done, and tells why there is none.
func TestClaim(t *testing.T) {
	a, b := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")
	pools := &fakePools{}
	pools.publish(ServicePool{Service: "db", Members: []Member{
		{Address: a, Weight: 1, Active: true}, {Address: b, Weight: 1, Active: true},
	}})
	var told []bool
	r, err := New(Options{Pools: pools, Outcome: func(_ string, _ netip.AddrPort, ok bool) { told = append(told, ok) }})
	if err != nil {
		t.Fatal(err)
	}
	e := r.Load()
	first, err := e.Claim("db", Flow{}, nil)
	if err != nil || first == nil {
		t.Fatal(first, err)
	}
	first.Failed(syscall.EMFILE) // ours
	first.Failed(syscall.ECONNREFUSED)
	second, err := e.Claim("db", Flow{}, []*Backend{first})
	if err != nil || second == nil || second == first {
		t.Fatal(second, err)
	}
	second.Opened()
	if none, err := e.Claim("db", Flow{}, []*Backend{first, second}); none != nil || err != nil {
		t.Errorf("got %v, %v with everything tried", none, err)
	}
	if _, err := e.Claim("web", Flow{}, nil); !errors.Is(err, ErrNoPool) {
		t.Errorf("got %v, want ErrNoPool", err)
	}
	for _, s := range r.Snapshot() {
		if s.InFlight != 1 || s.Leases != 1 {
			t.Errorf("got %+v, want one in flight", s)
		}
	}
	first.Done()
	second.Done()
	for _, s := range r.Snapshot() {
		if s.InFlight != 0 {
			t.Errorf("got %+v, want none in flight", s)
		}
	}
	if len(told) != 1 || told[0] {
		t.Errorf("told %v, want one failure: what this machine lacks is not told", told)
	}
	pools.publish()
	r.Load()
	if first.InUse() {
		t.Error("a backend that has left the plan is in use")
	}
}

// TestClaimAddress: one that is bound to a backend gets it, unless that carries all that it may; then nothing is counted.
func TestClaimAddress(t *testing.T) {
	a := netip.MustParseAddrPort("127.0.0.1:1")
	pools := &fakePools{}
	pools.publish(ServicePool{Service: "db", Members: []Member{{Address: a, Weight: 1, Active: true}}, Policy: Policy{Limit: Limit{PerBackend: 1}}})
	r, err := New(Options{Pools: pools})
	if err != nil {
		t.Fatal(err)
	}
	r.Load()
	if b := r.ClaimAddress("db", netip.MustParseAddrPort("127.0.0.1:2")); b != nil {
		t.Errorf("got %s, which no plan has", b.Text())
	}
	first := r.ClaimAddress("db", a)
	if first == nil {
		t.Fatal("no claim")
	}
	if b := r.ClaimAddress("db", a); b != nil {
		t.Error("a claim beyond the limit")
	}
	if s := r.Snapshot()[0]; s.InFlight != 1 {
		t.Errorf("got %+v, want one in flight", s)
	}
	first.Done()
	pools.publish()
	r.Load()
	if b := r.ClaimAddress("db", a); b != nil || !first.Retired() {
		t.Error("a claim of one that has left the plan")
	}
}
