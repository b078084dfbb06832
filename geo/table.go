package geo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
)

// A Table maps every address to a Class. It is immutable; Lookup may be called
// by any number of goroutines.
type Table struct {
	four, six spans
	// index4[b] is the range that holds address b<<16, and index6[b] the one that
	// holds 2000::/4 plus b<<108: nearly all of the IPv6 space in use.
	index4, index6 []uint32
	unknown        Class

	// For Place.
	db         *Database
	networks   []Network
	net4, net6 spans
}

// Compile makes the disjoint table of all addresses: networks over db (nil =
// no database), each distinct place classified, neighbours of one class merged.
// classify is called once with the zero Place, for addresses of which nothing
// is known, and then once per other distinct Place in the order of addresses,
// IPv4 first. It is an error if a network has no name, has an invalid prefix,
// or has a prefix that another has too.
//
// Cost: about 20 ms for the embedded data.
func Compile(db *Database, networks []Network, classify func(Place) Class) (*Table, error) {
	if classify == nil {
		return nil, errors.New("compile geo table: no classify function")
	}
	if db == nil {
		db = &Database{}
	}
	net4, net6, err := layNetworks(networks)
	if err != nil {
		return nil, fmt.Errorf("compile geo table: %w", err)
	}
	t := &Table{
		db: db, networks: slices.Clone(networks), net4: net4, net6: net6,
		four: spans{family: v4}, six: spans{family: v6},
	}
	c := newClassifier(t, classify)
	t.unknown = c.class(0, 0)
	for _, part := range []struct {
		data, networks, to *spans
	}{{&db.v4, &t.net4, &t.four}, {&db.v6, &t.net6, &t.six}} {
		data := covering(part.data, part.to.family)
		// Counting first costs a few milliseconds and saves the garbage of growing
		// lists, several times the size of the table.
		ranges, last := 0, Class(0)
		zip(data, part.networks, func(_ key, record, network uint32) {
			if class := c.class(record, network); ranges == 0 || class != last {
				ranges, last = ranges+1, class
			}
		})
		part.to.reserve(ranges)
		zip(data, part.networks, func(start key, record, network uint32) {
			part.to.add(start, uint32(c.class(record, network)))
		})
		part.to.clip()
	}
	t.buildIndex()
	return t, nil
}

// A classifier remembers the class of each (record, network).
type classifier struct {
	table    *Table
	classify func(Place) Class
	// plain is by record, for addresses of no network; classes are stored plus 1.
	plain  []uint64
	netted map[[2]uint32]Class
	places map[Place]Class
}

func newClassifier(t *Table, classify func(Place) Class) *classifier {
	return &classifier{
		table:    t,
		classify: classify,
		plain:    make([]uint64, max(1, len(t.db.records))),
		netted:   map[[2]uint32]Class{},
		places:   map[Place]Class{},
	}
}

func (c *classifier) class(record, network uint32) Class {
	if network == 0 {
		if c.plain[record] == 0 {
			c.plain[record] = uint64(c.ofPlace(c.table.merged(record, 0))) + 1
		}
		return Class(c.plain[record] - 1)
	}
	pair := [2]uint32{record, network}
	class, ok := c.netted[pair]
	if !ok {
		class = c.ofPlace(c.table.merged(record, network))
		c.netted[pair] = class
	}
	return class
}

func (c *classifier) ofPlace(p Place) Class {
	class, ok := c.places[p]
	if !ok {
		class = c.classify(p)
		c.places[p] = class
	}
	return class
}

// merged is the place of a database record within an operator's network.
func (t *Table) merged(record, network uint32) Place {
	var p Place
	if record != 0 {
		p = t.db.records[record].place()
	}
	if network != 0 {
		p = overlay(t.networks[network-1], p)
	}
	return p
}

const (
	indexBits   = 16
	indexLength = 1<<indexBits + 1
	// The IPv6 index covers the upper halves window6 … window6+1<<60−1, which is
	// 2000::/4.
	window6 = 0x2 << 60
	shift6  = 60 - indexBits
)

func (t *Table) buildIndex() {
	t.index4 = make([]uint32, indexLength)
	for b, i := 0, 0; b < indexLength; b++ {
		for i+1 < len(t.four.short) && uint64(t.four.short[i+1]) <= uint64(b)<<16 {
			i++
		}
		t.index4[b] = uint32(i)
	}
	t.index6 = make([]uint32, indexLength)
	for b, i := 0, 0; b < indexLength; b++ {
		at := key{window6 + uint64(b)<<shift6, 0}
		for i+1 < t.six.len() && !at.less(t.six.start(i+1)) {
			i++
		}
		t.index6[b] = uint32(i)
	}
}

// Lookup returns the class of addr and the length of the longest prefix around
// it in which every address has that class, which is the ECS scope of an answer
// that depends on nothing but the class (RFC 7871). IPv4-mapped IPv6 addresses
// count as IPv4; the invalid zero Addr has the class of unknown places and
// scope 0. It allocates nothing.
func (t *Table) Lookup(addr netip.Addr) (Class, int) {
	switch {
	case addr.Is4() || addr.Is4In6():
		b := addr.As4()
		return t.lookup4(binary.BigEndian.Uint32(b[:]))
	case addr.Is6():
		b := addr.As16()
		return t.lookup6(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]))
	}
	return t.unknown, 0
}

func (t *Table) lookup4(a uint32) (Class, int) {
	starts := t.four.short
	low, high := t.index4[a>>16], t.index4[a>>16+1]
	for low < high { // the range is low … high
		middle := (low + high + 1) / 2
		if starts[middle] <= a {
			low = middle
		} else {
			high = middle - 1
		}
	}
	i, scope := int(low), 0
	if i > 0 {
		scope = bits.LeadingZeros32(a^(starts[i]-1)) + 1
	}
	if i+1 < len(starts) {
		scope = max(scope, bits.LeadingZeros32(a^starts[i+1])+1)
	}
	return Class(t.four.values.at(i)), scope
}

func (t *Table) lookup6(hi, lo uint64) (Class, int) {
	starts := t.six.hi
	low, high := uint32(0), uint32(len(starts)-1)
	switch bucket := (hi - window6) >> shift6; {
	case bucket < 1<<indexBits: // hi below the window wraps to a large bucket
		low, high = t.index6[bucket], t.index6[bucket+1]
	case hi < window6:
		high = t.index6[0]
	default:
		low = t.index6[1<<indexBits]
	}
	if t.six.lo != nil {
		return t.lookup128(key{hi, lo}, int(low), int(high))
	}
	for low < high {
		middle := (low + high + 1) / 2
		if starts[middle] <= hi {
			low = middle
		} else {
			high = middle - 1
		}
	}
	i, scope := int(low), 0
	if i > 0 {
		scope = bits.LeadingZeros64(hi^(starts[i]-1)) + 1
	}
	if i+1 < len(starts) {
		scope = max(scope, bits.LeadingZeros64(hi^starts[i+1])+1)
	}
	return Class(t.six.values.at(i)), scope
}

// lookup128 is lookup6 where some range begins within a /64.
func (t *Table) lookup128(k key, low, high int) (Class, int) {
	for low < high {
		middle := (low + high + 1) / 2
		if k.less(t.six.start(middle)) {
			high = middle - 1
		} else {
			low = middle
		}
	}
	return Class(t.six.values.at(low)), t.six.block(low, k)
}

// Place returns what the networks and the database say of addr together, as
// Compile classified it, and the longest prefix around addr of which they say
// the same. It is for explain: it allocates.
func (t *Table) Place(addr netip.Addr) (Place, netip.Prefix) {
	f, k, ok := keyOf(addr)
	if !ok {
		return Place{}, netip.Prefix{}
	}
	data, networks := covering(t.db.family(f), f), &t.net4
	if f == v6 {
		networks = &t.net6
	}
	i, j := data.find(k), networks.find(k)
	length := max(data.block(i, k), networks.block(j, k))
	return t.merged(data.values.at(i), networks.values.at(j)), f.prefix(k, length)
}

// Size returns the number of ranges and the bytes of memory that the table
// holds beside its database.
func (t *Table) Size() (ranges, bytes int) {
	ranges = t.four.len() + t.six.len()
	bytes = t.four.bytes() + t.six.bytes() + t.net4.bytes() + t.net6.bytes() + 4*cap(t.index4) + 4*cap(t.index6)
	return ranges, bytes
}
