package geo

import (
	"errors"
	"iter"
	"net/netip"
	"time"
)

// A Database says where addresses are: the embedded country table, the content
// of mmdb files, or several of them joined. It is immutable and may be used by
// any number of goroutines. The zero Database knows nothing.
type Database struct {
	info Info
	// v4 and v6 number records; an empty spans is "all unknown".
	v4, v6 spans
	// records[0] is "unknown".
	records []record
}

// Info describes the data, for status and explain.
type Info struct {
	// Name is "embedded country data" or the files' names, joined by " + ".
	Name string
	// Type is the data's own name for its kind (Metadata.DatabaseType), joined
	// by " + ".
	Type string
	// Built is when the data was made: the oldest, where there are several. Its
	// distance from now is the age that operators care about.
	Built time.Time
	// Ranges counts the address ranges, IPv4 and IPv6, and Bytes the memory that
	// the database holds.
	Ranges, Bytes int
	// Has is what the data can tell; see Warnings.
	Has Knowledge
}

// Info describes the database.
func (db *Database) Info() Info {
	info := db.info
	info.Ranges = db.v4.len() + db.v6.len()
	info.Bytes = db.v4.bytes() + db.v6.bytes() + recordBytes*cap(db.records)
	return info
}

// Lookup returns the place of one address and the longest prefix around it of
// which the database says the same. IPv4-mapped IPv6 addresses count as IPv4.
// An address that the database does not know has the zero Place; an invalid
// one also has the zero Prefix. O(log n).
func (db *Database) Lookup(addr netip.Addr) (Place, netip.Prefix) {
	f, k, ok := keyOf(addr)
	if !ok {
		return Place{}, netip.Prefix{}
	}
	s := db.family(f)
	if s.len() == 0 {
		return Place{}, f.prefix(k, 0)
	}
	i := s.find(k)
	return db.records[s.values.at(i)].place(), f.prefix(k, s.block(i, k))
}

// All yields every prefix that the database knows with its place, IPv4 before
// IPv6, ascending, without overlaps. Neighbours may have the same place where
// the range is not one prefix.
func (db *Database) All() iter.Seq2[netip.Prefix, Place] {
	return func(yield func(netip.Prefix, Place) bool) {
		for _, s := range []*spans{&db.v4, &db.v6} {
			for i := range s.len() {
				value := s.values.at(i)
				if value == 0 {
					continue
				}
				place := db.records[value].place()
				for prefix := range prefixes(s.family, s.start(i), s.end(i)) {
					if !yield(prefix, place) {
						return
					}
				}
			}
		}
	}
}

// prefixes splits a range into the fewest prefixes.
func prefixes(f family, first, last key) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for {
			length, end := f.width(), first
			for length > 0 {
				from, to := blockAt(f, first, length-1)
				if from != first || last.less(to) {
					break
				}
				length, end = length-1, to
			}
			if !yield(f.prefix(first, length)) || end == last {
				return
			}
			first = end.next()
		}
	}
}

func (db *Database) family(f family) *spans {
	if f == v4 {
		return &db.v4
	}
	return &db.v6
}

// Join combines databases: later ones fill what earlier ones leave unknown (a
// City and an ASN file, for example). Where two disagree about the country,
// the earlier one is believed and only the ASN is taken from the later one.
func Join(databases ...*Database) (*Database, error) {
	if len(databases) == 0 {
		return nil, errors.New("join databases: none given")
	}
	joined := databases[0]
	for _, next := range databases[1:] {
		joined = join(joined, next)
	}
	return joined, nil
}

func join(a, b *Database) *Database {
	out := &Database{
		info: Info{
			Name:  joinNames(a.info.Name, b.info.Name),
			Type:  joinNames(a.info.Type, b.info.Type),
			Built: a.info.Built,
		},
		records: []record{{}},
	}
	if b.info.Built.Before(a.info.Built) {
		out.info.Built = b.info.Built
	}
	numbers := map[record]uint32{{}: 0}
	for _, f := range []family{v4, v6} {
		from, other, to := covering(a.family(f), f), covering(b.family(f), f), out.family(f)
		to.family = f
		zip(from, other, func(start key, va, vb uint32) {
			var merged record
			if va != 0 {
				merged = a.records[va]
			}
			if vb != 0 {
				merged.fill(b.records[vb])
			}
			to.add(start, number(numbers, &out.records, merged))
		})
		to.clip()
	}
	out.info.Has = knowledgeOf(out.records)
	return out
}

// covering returns s, or all-unknown spans for an empty one.
func covering(s *spans, f family) *spans {
	if s.len() > 0 {
		return s
	}
	s = &spans{family: f}
	s.add(key{}, 0)
	return s
}

// number returns the index of r in records, where it is appended when new.
func number(numbers map[record]uint32, records *[]record, r record) uint32 {
	n, ok := numbers[r]
	if !ok {
		n = uint32(len(*records))
		numbers[r] = n
		*records = append(*records, r)
	}
	return n
}

// joint stands between the names of joined databases.
const joint = " + "

func joinNames(a, b string) string {
	if a == "" || a == b {
		return b
	}
	return a + joint + b
}
