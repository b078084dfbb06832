package geo

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"sort"
)

// A key is a position in one address family: an IPv6 address, or an IPv4
// address in the low 32 bits.
type key struct{ hi, lo uint64 }

func (k key) less(o key) bool { return k.hi < o.hi || k.hi == o.hi && k.lo < o.lo }

// next is k+1; it wraps to zero.
func (k key) next() key {
	lo, carry := bits.Add64(k.lo, 1, 0)
	return key{k.hi + carry, lo}
}

// prev is k−1; it wraps to the highest key.
func (k key) prev() key {
	lo, borrow := bits.Sub64(k.lo, 1, 0)
	return key{k.hi - borrow, lo}
}

// sharedBits counts the leading bits that a and b, keys of a family of the
// given width, have in common.
func sharedBits(a, b key, width int) int {
	if hi := a.hi ^ b.hi; hi != 0 {
		return bits.LeadingZeros64(hi) - (128 - width)
	}
	return 64 + bits.LeadingZeros64(a.lo^b.lo) - (128 - width)
}

// A family says which of the two address families a key belongs to.
type family uint8

const (
	v4 family = iota
	v6
)

func (f family) width() int {
	if f == v4 {
		return 32
	}
	return 128
}

// last is the highest key of the family.
func (f family) last() key {
	if f == v4 {
		return key{0, 1<<32 - 1}
	}
	return key{1<<64 - 1, 1<<64 - 1}
}

func (f family) prefix(k key, bits int) netip.Prefix {
	var addr netip.Addr
	if f == v4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(k.lo))
		addr = netip.AddrFrom4(b)
	} else {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:8], k.hi)
		binary.BigEndian.PutUint64(b[8:], k.lo)
		addr = netip.AddrFrom16(b)
	}
	return netip.PrefixFrom(addr, bits).Masked()
}

// keyOf splits an address into family and key; IPv4-mapped IPv6 is IPv4. ok is
// false for the zero Addr.
func keyOf(addr netip.Addr) (f family, k key, ok bool) {
	switch {
	case addr.Is4() || addr.Is4In6():
		b := addr.As4()
		return v4, key{0, uint64(binary.BigEndian.Uint32(b[:]))}, true
	case addr.Is6():
		b := addr.As16()
		return v6, key{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}, true
	}
	return v4, key{}, false
}

// blockAt returns the first and last key of the block of 2^(width−length)
// addresses that holds k.
func blockAt(f family, k key, length int) (first, last key) {
	host := f.width() - length
	var mask key
	switch {
	case host > 64:
		mask = key{1<<(host-64) - 1, 1<<64 - 1}
	default:
		mask = key{0, 1<<host - 1} // 1<<64 is 0, so a host part of 64 bits is all ones
	}
	return key{k.hi &^ mask.hi, k.lo &^ mask.lo}, key{k.hi | mask.hi, k.lo | mask.lo}
}

// rangeOf returns the first and last key of a canonical prefix.
func rangeOf(p netip.Prefix) (f family, first, last key) {
	f, k, _ := keyOf(p.Addr())
	first, last = blockAt(f, k, p.Bits())
	return f, first, last
}

// A spans cuts one address family into ranges that touch and do not overlap,
// each with a number. The first begins at the family's lowest address, each
// ends where the next begins, and neighbours have different numbers. Starts are
// kept in the smallest form that holds them.
type spans struct {
	family family
	short  []uint32 // starts, IPv4
	hi     []uint64 // starts, IPv6: the upper 64 bits
	lo     []uint64 // the lower 64 bits; nil while all are zero
	values column
}

func (s *spans) len() int { return s.values.len() }

// start returns where range i begins.
func (s *spans) start(i int) key {
	switch {
	case s.family == v4:
		return key{0, uint64(s.short[i])}
	case s.lo == nil:
		return key{s.hi[i], 0}
	}
	return key{s.hi[i], s.lo[i]}
}

// end returns the last address of range i.
func (s *spans) end(i int) key {
	if i+1 == s.len() {
		return s.family.last()
	}
	return s.start(i + 1).prev()
}

// find returns the range that holds k.
func (s *spans) find(k key) int {
	return sort.Search(s.len(), func(i int) bool { return k.less(s.start(i)) }) - 1
}

// block returns the length of the longest prefix around k that lies within
// range i. A prefix that also held the neighbour before or after the range
// would be at most as long as what k shares with that neighbour.
func (s *spans) block(i int, k key) int {
	width, length := s.family.width(), 0
	if i > 0 {
		length = sharedBits(k, s.start(i).prev(), width) + 1
	}
	if i+1 < s.len() {
		length = max(length, sharedBits(k, s.start(i+1), width)+1)
	}
	return length
}

// add begins a range at start, which must not be below the last one.
func (s *spans) add(start key, value uint32) {
	n := s.len()
	if n > 0 && s.values.at(n-1) == value {
		return
	}
	if s.family == v4 {
		s.short = append(s.short, uint32(start.lo))
	} else {
		if start.lo != 0 && s.lo == nil {
			s.lo = make([]uint64, n, max(n+1, cap(s.hi)))
		}
		s.hi = append(s.hi, start.hi)
		if s.lo != nil {
			s.lo = append(s.lo, start.lo)
		}
	}
	s.values.add(value)
}

// reserve makes room for n ranges in all.
func (s *spans) reserve(n int) {
	if s.family == v4 {
		s.short = make([]uint32, 0, n)
	} else {
		s.hi = make([]uint64, 0, n)
	}
	s.values.narrow = make([]uint16, 0, n)
}

// clip gives back what appending reserved in advance.
func (s *spans) clip() {
	s.short = clip(s.short)
	s.hi = clip(s.hi)
	s.lo = clip(s.lo)
	s.values.narrow = clip(s.values.narrow)
	s.values.wide = clip(s.values.wide)
}

// clip copies list only if that saves memory.
func clip[T any](list []T) []T {
	if len(list) == cap(list) {
		return list
	}
	return slices.Clip(slices.Clone(list))
}

func (s *spans) bytes() int {
	return 4*cap(s.short) + 8*cap(s.hi) + 8*cap(s.lo) + 2*cap(s.values.narrow) + 4*cap(s.values.wide)
}

// zip walks two cuts of one family together and calls emit for each range of
// their common refinement, in ascending order.
func zip(a, b *spans, emit func(start key, va, vb uint32)) {
	i, j := 0, 0
	start := key{}
	for {
		emit(start, a.values.at(i), b.values.at(j))
		moreA, moreB := i+1 < a.len(), j+1 < b.len()
		switch {
		case !moreA && !moreB:
			return
		case !moreB || moreA && a.start(i+1).less(b.start(j+1)):
			i++
			start = a.start(i)
		case !moreA || b.start(j+1).less(a.start(i+1)):
			j++
			start = b.start(j)
		default:
			i++
			j++
			start = a.start(i)
		}
	}
}

// A column is a list of numbers, two bytes each while they fit.
type column struct {
	narrow []uint16
	wide   []uint32 // not nil: all numbers are here
}

func (c *column) len() int {
	if c.wide != nil {
		return len(c.wide)
	}
	return len(c.narrow)
}

func (c *column) at(i int) uint32 {
	if c.wide != nil {
		return c.wide[i]
	}
	return uint32(c.narrow[i])
}

func (c *column) add(v uint32) {
	if c.wide == nil && v > 1<<16-1 {
		c.wide = make([]uint32, len(c.narrow), max(len(c.narrow)+1, cap(c.narrow)))
		for i, n := range c.narrow {
			c.wide[i] = uint32(n)
		}
		c.narrow = nil
	}
	if c.wide != nil {
		c.wide = append(c.wide, v)
		return
	}
	c.narrow = append(c.narrow, uint16(v))
}

// A filler builds spans from prefixes in ascending order; what lies between
// them gets number 0.
type filler struct {
	spans
	next key  // the first address not yet covered
	full bool // the family is covered to its end
}

// put adds one range. It reports whether the range was in order.
func (f *filler) put(first, last key, value uint32) bool {
	if f.full || first.less(f.next) || last.less(first) {
		return false
	}
	if f.next.less(first) {
		f.add(f.next, 0)
	}
	f.add(first, value)
	f.next = last.next()
	f.full = last == f.family.last()
	return true
}

// finish covers the rest with 0 and returns the result.
func (f *filler) finish() spans {
	if !f.full {
		f.add(f.next, 0)
	}
	f.clip()
	return f.spans
}
