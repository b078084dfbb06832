package forward

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// BenchmarkPick measures the choice of a backend by many goroutines at once.
func BenchmarkPick(b *testing.B) {
	for _, n := range []int{2, 8, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			pools := &fakePools{}
			pools.publish(ServicePool{Service: "web", Members: many(n)})
			r, err := New(Options{Pools: pools})
			if err != nil {
				b.Fatal(err)
			}
			benchPick(b, r)
		})
	}
	b.Run("8 of which 4 ramp", func(b *testing.B) {
		pools := &fakePools{}
		members := many(8)
		r, err := New(Options{Pools: pools})
		if err != nil {
			b.Fatal(err)
		}
		for _, active := range []bool{false, true} {
			for i := range 4 {
				members[i].Active = active
			}
			pools.publish(ServicePool{Service: "web", SlowStart: time.Hour, Members: members})
			r.Load()
		}
		benchPick(b, r)
	})
}

func benchPick(b *testing.B, r *Registry) {
	p := r.Load().pools["web"]
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p.pick(0, false, nil)
		}
	})
}

// many returns n active members of different weights.
func many(n int) []Member {
	all := make([]Member, n)
	for i := range all {
		all[i] = Member{
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, byte(i >> 8), byte(i + 1)}), 80),
			Weight:  1 + i%3, Active: true,
		}
	}
	return all
}
