package forward

import (
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"slices"
	"strconv"
)

// maglevSlots is the size of a Maglev table: prime, and more than a hundred times
// the backends of most pools, which keeps the skew below 1 %.
const maglevSlots = 65537

// A share is one backend in the making of a table.
type share struct {
	address netip.AddrPort
	weight  uint64 // above 0
}

// A row is one backend in the making of a Maglev table: where in its permutation it is,
// the turns it is due a round, and those it had.
type row struct {
	next, skip uint32
	index      uint16
	due, had   uint64
}

// maglev makes the table of Eisenbud et al., "Maglev: A Fast and Reliable Software
// Network Load Balancer" (NSDI 2016), section 3.4: each backend has a
// permutation of the slots and takes its next free one whenever it is its turn.
// The table depends on the shares alone, whatever their order, and holds indices into them. It has
// weights: in each round a backend has as many turns as it is due. nil if there are none.
func maglev(shares []share) []uint16 {
	n := len(shares)
	if n == 0 {
		return nil
	}
	const unit = 1 << 16 // turns are counted in unit-ths
	sum := uint64(0)
	for _, s := range shares {
		sum += s.weight
	}
	rows := make([]row, n)
	for i, s := range shares {
		h := identityHash(s.address)
		rows[i] = row{
			next:  uint32((h >> 32) % maglevSlots),
			skip:  uint32(h&0xffffffff)%(maglevSlots-1) + 1,
			index: uint16(i),
			due:   max(s.weight*unit*uint64(n)/sum, 1),
		}
	}
	if byAddress := func(a, b row) int {
		return shares[a.index].address.Compare(shares[b.index].address)
	}; !slices.IsSortedFunc(rows, byAddress) {
		slices.SortFunc(rows, byAddress)
	}
	table := make([]uint16, maglevSlots)
	var full [maglevSlots/64 + 1]uint64 // which slots are taken: looked at ten times as often as the table, and small enough for the nearest cache
	for taken, round := 0, uint64(1); ; round++ {
		for i := range rows {
			r := &rows[i]
			for turns := r.due * round / unit; r.had < turns; r.had++ {
				next, skip := r.next, r.skip
				for full[next/64]&(1<<(next%64)) != 0 {
					if next += skip; next >= maglevSlots {
						next -= maglevSlots
					}
				}
				full[next/64] |= 1 << (next % 64)
				table[next] = r.index
				if next += skip; next >= maglevSlots {
					next -= maglevSlots
				}
				r.next = next
				if taken++; taken == maglevSlots {
					return table
				}
			}
		}
	}
}

// identityHash is the number that a backend's permutation comes from.
func identityHash(a netip.AddrPort) uint64 {
	return mix(Key{}.Addr(a.Addr()), uint64(a.Port())^mixB)
}

// slot is where a hash falls in a Maglev table.
func slot(h uint64) uint32 { return uint32((h >> 32) * maglevSlots >> 32) }

// A point is one place of a backend on a ring.
type point struct {
	hash  uint32
	index uint16
}

const (
	pointsPerWeight = 160     // what nginx has for a weight of 1
	maxPoints       = 1 << 20 // of a ring; with more, weights count for less
)

// ring makes the points that nginx's `hash KEY consistent` makes of servers that are
// written as address:port. Their order does not matter.
func ring(shares []share) []point {
	total := uint64(0)
	for _, s := range shares {
		total += s.weight * pointsPerWeight
	}
	var points []point
	for i, s := range shares {
		n := s.weight * pointsPerWeight
		if total > maxPoints {
			n = max(n*maxPoints/total, 1)
		}
		points = appendPoints(points, s.address, uint16(i), n)
	}
	slices.SortFunc(points, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), shares[a.index].address.Compare(shares[b.index].address))
	})
	return slices.CompactFunc(points, func(a, b point) bool { return a.hash == b.hash })
}

// appendPoints appends the chain of n points of one backend: each is the CRC-32 of
// the host, a zero byte, the port and the point before.
func appendPoints(points []point, address netip.AddrPort, index uint16, n uint64) []point {
	host := address.Addr().String()
	if address.Addr().Is6() {
		host = "[" + host + "]"
	}
	base := crc32.ChecksumIEEE([]byte(host + "\x00" + strconv.Itoa(int(address.Port()))))
	var before [4]byte
	for range n {
		hash := crc32.Update(base, crc32.IEEETable, before[:])
		points = append(points, point{hash, index})
		binary.LittleEndian.PutUint32(before[:], hash)
	}
	return points
}

// turns makes a sequence in which each index occurs as often as its weight is due,
// spread evenly: the k-th turn of a backend is at (k + ½) / weight.
func turns(weights []uint64) []uint16 {
	const most = 1 << 15 // turns; with more, weights are rounded
	divisor, sum := uint64(0), uint64(0)
	for _, w := range weights {
		divisor = gcd(w, divisor)
	}
	for _, w := range weights {
		sum += w / divisor
	}
	type turn struct {
		at    float64
		index uint16
	}
	var all []turn
	for i, w := range weights {
		n := w / divisor
		if sum > most {
			n = max(n*most/sum, 1)
		}
		for k := range n {
			all = append(all, turn{(float64(k) + 0.5) / float64(n), uint16(i)})
		}
	}
	slices.SortFunc(all, func(a, b turn) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.index, b.index)) })
	out := make([]uint16, len(all))
	for i, t := range all {
		out[i] = t.index
	}
	return out
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
