package forward

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// shares makes n shares of the weights, in turns.
func shares(n int, weights ...uint64) []share {
	all := make([]share, n)
	for i := range all {
		all[i] = share{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80), weights[i%len(weights)]}
	}
	return all
}

func tally(table []uint16, n int) []int {
	counts := make([]int, n)
	for _, i := range table {
		counts[i]++
	}
	return counts
}

func TestMaglevIsBalanced(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 100, 500, 1000} {
		// Whole slots: with 1,000 backends one of 65 is 1.5 %.
		for i, got := range tally(maglev(shares(n, 1)), n) {
			want := float64(maglevSlots) / float64(n)
			if math.Abs(float64(got)-want) > max(1, want/100) {
				t.Errorf("%d backends: %d has %d slots, want %.0f within 1 %%", n, i, got, want)
			}
		}
	}
}

func TestMaglevHeedsWeights(t *testing.T) {
	all := shares(30, 1, 2, 7)
	for i, got := range tally(maglev(all), len(all)) {
		want := float64(maglevSlots) * float64(all[i].weight) / 100
		if math.Abs(float64(got)-want) > max(2, want/100) {
			t.Errorf("backend %d of weight %d has %d slots, want %.0f within 1 %%", i, all[i].weight, got, want)
		}
	}
}

// TestTablesDependOnTheSetAlone: nodes list backends in any order, and must agree.
func TestTablesDependOnTheSetAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "n")
		all := shares(n, uint64(rapid.IntRange(1, 9).Draw(t, "a")), uint64(rapid.IntRange(1, 9).Draw(t, "b")))
		mixed := rapid.Permutation(all).Draw(t, "order")
		for _, asRing := range []bool{false, true} {
			a, b := tables{ring: asRing}, tables{ring: asRing}
			if asRing {
				a.points, b.points = ring(all), ring(mixed)
			} else {
				a.slots, b.slots = maglev(all), maglev(mixed)
			}
			for range 200 {
				h := rapid.Uint64().Draw(t, "h")
				if x, y := all[a.find(h, 0)], mixed[b.find(h, 0)]; x != y {
					t.Fatalf("hash %x goes to %s, with another order to %s", h, x.address, y.address)
				}
			}
		}
	})
}

// moved is the share of those keys that do not belong to gone and go elsewhere without it.
func moved(all []share, gone int, asRing bool) float64 {
	less := slices.Delete(slices.Clone(all), gone, gone+1)
	before, after := tables{ring: asRing}, tables{ring: asRing}
	if asRing {
		before.points, after.points = ring(all), ring(less)
	} else {
		before.slots, after.slots = maglev(all), maglev(less)
	}
	others, changed := 0, 0
	r := rand.New(rand.NewPCG(1, 2))
	for range 50_000 {
		h := r.Uint64()
		was := all[before.find(h, 0)]
		if was.address == all[gone].address {
			continue
		}
		others++
		if less[after.find(h, 0)] != was {
			changed++
		}
	}
	return float64(changed) / float64(others)
}

func TestRemovingOneMovesFewOthers(t *testing.T) {
	all := shares(100, 1)
	for _, gone := range []int{0, 37, 99} {
		if m := moved(all, gone, false); m > 0.02 {
			t.Errorf("maglev without backend %d moves %.2f %% of the others' keys, want at most 2 %%", gone, 100*m)
		}
		if m := moved(all, gone, true); m > 0 {
			t.Errorf("the ring without backend %d moves %.2f %% of the others' keys, want none", gone, 100*m)
		}
	}
}

func TestTurnsAreEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint64Range(1, 20), 1, 12).Draw(t, "weights")
		seq := turns(weights)
		sum := uint64(0)
		for _, w := range weights {
			sum += w
		}
		counts := make([]int, len(weights))
		for k, i := range seq {
			counts[i]++
			// Never more than one turn before or behind what is due by now, for each of those who are due.
			due := float64(k+1) * float64(weights[i]) / float64(sum)
			if math.Abs(float64(counts[i])-due) > float64(len(weights)) {
				t.Fatalf("%v: after %d turns %d had %d, due %.1f", weights, k+1, i, counts[i], due)
			}
		}
		for i, n := range counts {
			if uint64(n)*sum != weights[i]*uint64(len(seq)) {
				t.Fatalf("%v: backend %d has %d of %d turns", weights, i, n, len(seq))
			}
		}
	})
}

// TestKeysAreWellMixed: neighbours, which real addresses are, spread as random numbers would.
func TestKeysAreWellMixed(t *testing.T) {
	const buckets, each = 64, 1000
	tests := map[string]func(i int) uint64{
		"addresses of a /16": func(i int) uint64 {
			return Key{}.Addr(netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)}))
		},
		"IPv6 /64s": func(i int) uint64 {
			a := netip.MustParseAddr("2001:db8::1").As16()
			a[6], a[7] = byte(i>>8), byte(i)
			return Key{}.Addr(netip.AddrFrom16(a))
		},
		"ports": func(i int) uint64 {
			return Key{}.Flow(netip.AddrPortFrom(netip.MustParseAddr("10.1.2.3"), uint16(i)), netip.MustParseAddrPort("198.51.100.1:53"))
		},
		"texts": func(i int) uint64 { return Key{}.Bytes(fmt.Appendf(nil, "session-%d", i)) },
	}
	for name, hash := range tests {
		counts := make([]float64, buckets)
		for i := range buckets * each {
			counts[hash(i)>>58]++
		}
		chi := 0.0
		for _, c := range counts {
			chi += (c - each) * (c - each) / each
		}
		if chi > 130 { // 63 degrees of freedom: once in 10⁶
			t.Errorf("%s: chi² is %.0f, want about 63", name, chi)
		}
	}
}

func BenchmarkMaglev(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		all := shares(n, 1)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				maglev(all)
			}
		})
	}
}

// TestMaglevIsThePapers compares with section 3.4 of the paper as it is written there.
func TestMaglevIsThePapers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := shares(rapid.IntRange(1, 40).Draw(t, "n"), 1)
		offset, skip, next := make([]int, len(all)), make([]int, len(all)), make([]int, len(all))
		for i, s := range all {
			h := identityHash(s.address)
			offset[i], skip[i] = int((h>>32)%maglevSlots), int(uint32(h))%(maglevSlots-1)+1
		}
		entry := make([]int, maglevSlots)
		for j := range entry {
			entry[j] = -1
		}
		for n := 0; n < maglevSlots; {
			for i := range all {
				c := (offset[i] + next[i]*skip[i]) % maglevSlots
				for entry[c] >= 0 {
					next[i]++
					c = (offset[i] + next[i]*skip[i]) % maglevSlots
				}
				entry[c] = i
				next[i]++
				if n++; n == maglevSlots {
					break
				}
			}
		}
		for slot, got := range maglev(all) {
			if int(got) != entry[slot] {
				t.Fatalf("slot %d of %d backends: got %d, want %d", slot, len(all), got, entry[slot])
			}
		}
	})
}

// TestDrawIsByWeight: within five standard deviations.
func TestDrawIsByWeight(t *testing.T) {
	for _, weights := range [][]uint64{{1, 1}, {1, 2, 7}, {1, 1000}, {3, 3, 3, 1}, slices.Repeat([]uint64{1, 2, 3, 50}, 25)} {
		p := &pool{weights: weights}
		sum := uint64(0)
		for _, w := range weights {
			sum += w
		}
		const draws = 200_000
		counts := make([]int, len(weights))
		for range draws {
			counts[p.draw()]++
		}
		for i, w := range weights {
			share := float64(w) / float64(sum)
			if want := share * draws; math.Abs(float64(counts[i])-want) > 5*math.Sqrt(draws*share*(1-share)) {
				t.Errorf("weights %v: %d was drawn %d times, want about %.0f", weights, i, counts[i], want)
			}
		}
	}
}
