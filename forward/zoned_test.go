package forward

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/steer"
)

// zonedPool is four members, of which the first two are near; far and active say so of each.
func zonedPool(policy Policy, stays float64, far [4]float64, active [4]bool) ServicePool {
	sp := ServicePool{Service: "web", Policy: policy, Zoned: true, Stays: stays, SlowStart: time.Hour}
	for i := range far {
		sp.Members = append(sp.Members, Member{
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80),
			Weight:  steer.FullWeight, Base: 1, Active: active[i], Near: i < 2, Far: far[i],
		})
	}
	return sp
}

// TestZonesSplitWork: with every algorithm that does not hash, and not with those that do, whose tables are the same in all zones.
func TestZonesSplitWork(t *testing.T) {
	all := [4]bool{true, true, true, true}
	for _, algorithm := range allAlgorithms {
		for _, c := range []struct {
			stays float64
			far   [4]float64
			want  [4]float64
		}{
			{1, [4]float64{}, [4]float64{.5, .5, 0, 0}},
			{.5, [4]float64{0, 0, 3, 1}, [4]float64{.25, .25, .375, .125}},
			{0, [4]float64{0, 0, 1, 1}, [4]float64{0, 0, .5, .5}},
		} {
			t.Run(fmt.Sprint(algorithm, c.stays), func(t *testing.T) {
				const tries = 40_000
				pools := &fakePools{}
				pools.publish(zonedPool(Policy{Algorithm: algorithm, Load: 10}, c.stays, c.far, all))
				r, err := New(Options{Pools: pools})
				if err != nil {
					t.Fatal(err)
				}
				e := r.Load()
				var got [4]float64
				for i := range tries {
					b, err := e.Pick("web", Terms{Key: key(e, i)}, nil)
					if err != nil {
						t.Fatal(err)
					}
					got[b.Address().Addr().As4()[3]] += 1.0 / tries
					if algorithm != Latency {
						b.Done()
					}
				}
				want := c.want
				if algorithm.hashes() {
					want = [4]float64{.25, .25, .25, .25}
				}
				for i := range got {
					within := .02
					switch {
					case algorithm == Ring:
						within = .15
					case algorithm == LeastLoad && want[i] > 0: // all idle are equal, whatever their weight
						continue
					case want[i] == 0:
						within = 0
					}
					if math.Abs(got[i]-want[i]) > within {
						t.Errorf("got %.3f, want %.3f", got, want)
						break
					}
				}
				q := r.Queues()[0]
				if near := got[0] + got[1]; !q.Zoned || math.Abs(float64(q.Stayed)/tries-near) > 1e-6 || q.Stayed+q.Crossed != tries {
					t.Errorf("%+v, want %.3f stayed", q, near)
				}
			})
		}
	}
}

// TestZonesMoveNoKeys: nodes of different zones have the same tables, also while backends are down, so that a flow which a
// router moves from one to the other keeps its backend.
func TestZonesMoveNoKeys(t *testing.T) {
	for _, active := range [][4]bool{{true, true, true, true}, {false, true, true, true}, {false, false, true, true}} {
		for _, policy := range []Policy{{Auto: true}, {Algorithm: Maglev}, {Algorithm: Bounded, Load: 10}, {Algorithm: Ring}, {Algorithm: Source}} {
			var nodes [2]*Edition
			for i := range nodes {
				sp := zonedPool(policy, float64(i)/2, [4]float64{0, 0, 1, 1}, active)
				for k := range sp.Members {
					if i == 1 { // the other zone's node
						sp.Members[k].Near, sp.Members[k].Far = !sp.Members[k].Near, 1-sp.Members[k].Far
					}
				}
				pools := &fakePools{}
				pools.publish(sp)
				r, err := New(Options{Pools: pools})
				if err != nil {
					t.Fatal(err)
				}
				nodes[i] = r.Load()
			}
			for i := range 2000 {
				var got [2]netip.AddrPort
				for n, e := range nodes {
					b, err := e.Pick("web", Terms{Key: e.Key("web", true).Addr(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})), Datagram: true}, nil)
					if err != nil {
						t.Fatal(err)
					}
					b.Done()
					got[n] = b.Address()
				}
				if got[0] != got[1] {
					t.Fatalf("%s, auto %v, active %v: key %d is at %s and at %s", policy.Algorithm, policy.Auto, active, i, got[0], got[1])
				}
			}
		}
	}
}

// TestZoneSpills: who finds nobody fit in the zone has the rest of the site: all full, just failed, tried, or gone.
func TestZoneSpills(t *testing.T) {
	pools := &fakePools{}
	all := [4]bool{true, true, true, true}
	pools.publish(zonedPool(Policy{Limit: Limit{PerBackend: 2}}, 1, [4]float64{}, all))
	r, err := New(Options{Pools: pools})
	if err != nil {
		t.Fatal(err)
	}
	place := func(tried ...*Backend) (int, *Backend) {
		t.Helper()
		b, err := r.Load().Pick("web", Terms{}, tried)
		if err != nil {
			t.Fatal(err)
		}
		return int(b.Address().Addr().As4()[3]), b
	}
	var held []*Backend
	for n := range 8 {
		at, b := place()
		if near := at < 2; near != (n < 4) {
			t.Errorf("lease %d is at %d", n, at)
		}
		held = append(held, b)
	}
	if _, err := r.Load().Pick("web", Terms{}, nil); !Limited(err) {
		t.Errorf("got %v, want full", err)
	}
	for _, b := range held {
		b.Done()
	}
	near := slices.DeleteFunc(slices.Compact(slices.SortedFunc(slices.Values(held), func(a, b *Backend) int { return a.Address().Compare(b.Address()) })),
		func(b *Backend) bool { return b.Address().Addr().As4()[3] > 1 })
	if at, b := place(near...); at < 2 {
		t.Errorf("both of the zone were tried, got %d", at)
	} else {
		b.Done()
	}
	for _, b := range near {
		b.Failed(fmt.Errorf("refused"))
	}
	if at, b := place(); at < 2 {
		t.Errorf("both of the zone have just failed, got %d", at)
	} else {
		b.Done()
	}
	pools.publish(zonedPool(Policy{}, 1, [4]float64{}, [4]bool{false, false, true, true}))
	if at, b := place(); at < 2 {
		t.Errorf("both of the zone are out, got %d", at)
	} else {
		b.Done()
	}
	// Both are back, in a slow start of an hour: no more than a little of the work is theirs.
	pools.publish(zonedPool(Policy{}, 1, [4]float64{}, all))
	for _, b := range near {
		b.Opened()
	}
	stayed := 0
	for range 10_000 {
		at, b := place()
		if at < 2 {
			stayed++
		}
		b.Done()
	}
	if stayed < 300 || stayed > 2000 {
		t.Errorf("%d of 10,000 stayed in a zone that is just back", stayed)
	}
}
