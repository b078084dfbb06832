package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sort"

	"github.com/oschwald/maxminddb-golang/v2"
	"github.com/pharos-lb/pharos/geo/internal/ranges"
)

// rangeTable flattens the country database. An IPv6 /64 that the source divides
// gets the country of its first address: no resolver sends longer prefixes, and
// half the memory is saved.
func rangeTable(mmdb []byte, countries map[string]string) ([]byte, error) {
	db, err := maxminddb.OpenBytes(mmdb)
	if err != nil {
		return nil, err
	}
	table := &ranges.Table{Built: db.Metadata.BuildTime().Unix()}
	for code := range countries {
		table.Codes = append(table.Codes, code)
	}
	sort.Strings(table.Codes)
	numbers := map[string]uint16{}
	for i, code := range table.Codes {
		numbers[code] = uint16(i + 1)
	}
	four, six := &list{}, &list{}
	for result := range db.Networks() {
		var record struct {
			Country string `maxminddb:"country_code"`
		}
		if err := result.Decode(&record); err != nil {
			return nil, err
		}
		number, ok := numbers[record.Country]
		if record.Country == "AN" { // the Netherlands Antilles, dissolved in 2010: unknown is truer
			continue
		}
		if reserved(result.Prefix()) {
			continue
		}
		if !ok {
			return nil, fmt.Errorf("%s: country %q is not in countries-list", result.Prefix(), record.Country)
		}
		if result.Prefix().Addr().Is4() {
			first := binary.BigEndian.Uint32(result.Prefix().Addr().AsSlice())
			four.put(uint64(first), uint64(first)+1<<(32-result.Prefix().Bits()), number)
			continue
		}
		first, past := halves(result.Prefix())
		six.put(first, past, number)
	}
	four.close(1 << 32)
	six.close(0)
	for i, start := range four.starts {
		table.V4 = append(table.V4, uint32(start))
		table.V4Values = append(table.V4Values, four.values[i])
	}
	table.V6, table.V6Values = six.starts, six.values
	return ranges.Encode(table)
}

// reserved reports whether p is set aside by IANA (RFC 6890): nobody is there,
// though some registry's documents name a country for it.
func reserved(p netip.Prefix) bool {
	for _, special := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "224.0.0.0/3", "::/16", "100::/64", "2001:2::/48", "2001:10::/27",
		"2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "ff00::/8",
	} {
		s := netip.MustParsePrefix(special)
		if s.Bits() <= p.Bits() && s.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// halves returns the first /64 whose first address is in the prefix and the one
// past the last; both are equal if the prefix holds no such address, and past
// is 0 at the end of the address space.
func halves(p netip.Prefix) (first, past uint64) {
	b := p.Addr().As16()
	first = binary.BigEndian.Uint64(b[:8])
	if p.Bits() <= 64 {
		return first, first + 1<<(64-p.Bits())
	}
	if binary.BigEndian.Uint64(b[8:]) == 0 {
		return first, first + 1
	}
	return first, first
}

// A list collects ranges in ascending order; gaps get value 0, neighbours of
// one value merge.
type list struct {
	starts []uint64
	values []uint16
	next   uint64
}

func (l *list) put(first, past uint64, value uint16) {
	if first == past && past != 0 {
		return
	}
	if first != l.next {
		l.add(l.next, 0)
	}
	l.add(first, value)
	l.next = past
}

func (l *list) close(end uint64) {
	if l.next != end {
		l.add(l.next, 0)
	}
}

func (l *list) add(start uint64, value uint16) {
	if n := len(l.values); n > 0 && l.values[n-1] == value {
		return
	}
	l.starts = append(l.starts, start)
	l.values = append(l.values, value)
}
