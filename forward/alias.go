package forward

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
)

// An alias draws indices by weight, each at the same cost however many there are: the
// method of Walker (1977) with the tables of Vose (1991). It is made when the first is drawn.
type alias struct {
	once sync.Once
	// Immutable after once.
	even  bool     // all weights are the same, nothing to look up
	keep  []uint32 // out of 2³², how often a column is kept when it is drawn
	other []uint16 // who is taken when it is not
}

// draw returns an index at random, by weight.
func (p *pool) draw() int {
	a := &p.alias
	a.once.Do(func() { a.build(p.weights) })
	if a.even {
		return rand.IntN(len(p.weights))
	}
	x := rand.Uint64()
	i := x & math.MaxUint32 * uint64(len(a.keep)) >> 32
	if uint32(x>>32) < a.keep[i] {
		return int(i)
	}
	return int(a.other[i])
}

// build makes the tables: every column is filled to the average by its owner and one other.
func (a *alias) build(weights []uint64) {
	if a.even = slices.Max(weights) == slices.Min(weights); a.even {
		return
	}
	n := len(weights)
	a.keep, a.other = make([]uint32, n), make([]uint16, n)
	sum := 0.0
	for _, w := range weights {
		sum += float64(w)
	}
	left := make([]float64, n) // in averages
	var small, large []int
	for i, w := range weights {
		left[i] = float64(w) * float64(n) / sum
		if left[i] < 1 {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		a.keep[s], a.other[s] = uint32(left[s]*(1<<32)), uint16(l)
		left[l] -= 1 - left[s]
		if left[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	for _, i := range append(small, large...) { // what is left is full but for rounding
		a.keep[i], a.other[i] = math.MaxUint32, uint16(i)
	}
}
