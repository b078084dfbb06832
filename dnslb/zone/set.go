package zone

import (
	"encoding/binary"

	"github.com/pharos-lb/pharos/dnslb/wire"
)

// A Set is every zone that a server answers for, compiled. It is immutable and
// safe for any number of goroutines; a reload compiles a new one.
type Set struct {
	index index
	list  []*Node // by number in the index
	zones []*Zone
	nodes map[string]*Node // by lower-case wire name; nil once the Set is compiled
	// deepest bounds the labels of any name in nodes, so that a query name of
	// 127 labels costs no more look-ups than the zones are deep.
	deepest  int
	steered  int
	warnings []string
}

// A Zone is one zone of a Set.
type Zone struct {
	// Name is the apex, lower case, fully qualified.
	Name string
	// Labels is the number of labels of the apex.
	Labels int
	// Serial is the SOA's.
	Serial uint32
	// Records counts what the zone holds, steered names not included.
	Records int
	// Negative is the SOA as negative answers carry it: its TTL is the lesser of
	// the SOA's TTL and its MINIMUM field (RFC 2308 3).
	Negative RRset
}

// An RRset is compiled: each record begins with a compression pointer to the
// question, so that at the query name it is copied as it stands.
type RRset struct {
	Type    uint16
	Count   int
	Records []byte
	// Signed is the set's RRSIG records, nil without any.
	Signed *RRset
}

// A Node is a name of a zone: one that owns records or is steered, an empty
// non-terminal, or the cut above a delegated zone.
type Node struct {
	Zone *Zone
	// Labels is the number of labels of the name.
	Labels int
	// Steered is set where a service decides A and AAAA.
	Steered *Steered
	// Referral is set at a zone cut.
	Referral *Referral

	sets []RRset
	// wild is the child whose label is "*".
	wild *Node
	// above is, at the apex of a zone whose parent is in the Set too, the
	// parent's side of the cut: it answers DS (RFC 4035 3.1.4.1).
	above *Node
}

// RRset returns the records of a type, nil if there are none.
func (n *Node) RRset(rtype uint16) *RRset {
	for i := range n.sets {
		if n.sets[i].Type == rtype {
			return &n.sets[i]
		}
	}
	return nil
}

// Empty reports whether the name owns nothing: an empty non-terminal.
func (n *Node) Empty() bool { return len(n.sets) == 0 && n.Steered == nil }

// A Referral is what a delegation answers.
type Referral struct {
	// NS may be empty where the delegated zone is ours and the parent names no servers.
	NS RRset
	// Required holds the addresses of servers inside the delegated zone: without
	// them it cannot be reached (RFC 9471). Optional holds others that the zone knows.
	// Both carry their owner names in full.
	Required, Optional           []byte
	RequiredCount, OptionalCount int
}

// Kind says how a name matched.
type Kind uint8

// The kinds of match.
const (
	NotOurs   Kind = iota // no zone of the Set holds the name
	Exact                 // the name exists
	Wildcard              // the name matches a wildcard, which is the Node
	Missing               // the name does not exist; Node is its closest encloser
	Delegated             // the name is at or below the cut that is the Node
	Renamed               // the name is below the DNAME that the Node owns
)

// A Match is the result of Find.
type Match struct {
	Kind Kind
	Node *Node // nil for NotOurs
}

// Find looks a name up for a query of type rtype, which matters for DS only.
// It allocates nothing and takes at most one look-up per label of the
// deepest name in the Set.
func (s *Set) Find(n *wire.Name, rtype uint16) Match {
	labels := n.Labels()
	strip := max(0, labels-s.deepest)
	var name wire.Folded
	name.Set(n.From(0), 0) // it is a name
	for i := strip; i <= labels; i++ {
		entry := s.index.find(&name, n.Start(i))
		if entry == nil {
			continue
		}
		node := s.list[binary.LittleEndian.Uint32(entry[8:])]
		if i > 0 {
			return below(node)
		}
		if rtype == wire.TypeDS {
			if node.above != nil {
				node = node.above
			}
			return Match{Exact, node}
		}
		if node.Referral != nil {
			return Match{Delegated, node}
		}
		return Match{Exact, node}
	}
	return Match{}
}

// below matches a name that does not exist, given its closest encloser.
func below(encloser *Node) Match {
	switch {
	case encloser.Referral != nil:
		return Match{Delegated, encloser}
	case encloser.RRset(wire.TypeDNAME) != nil:
		return Match{Renamed, encloser}
	case encloser.wild != nil:
		return Match{Wildcard, encloser.wild}
	}
	return Match{Missing, encloser}
}

// Zones returns the zones, sorted by name. The slice is a copy.
func (s *Set) Zones() []*Zone { return append([]*Zone(nil), s.zones...) }

// Steered returns the number of steered names: one more than the largest Index.
func (s *Set) Steered() int { return s.steered }

// SteeredName returns the steered name with an Index.
func (s *Set) SteeredName(index int) *Steered { return s.list[index].Steered }

// Warnings returns what Compile found odd but bearable, one line each.
func (s *Set) Warnings() []string { return append([]string(nil), s.warnings...) }

// each yields the records one by one, pointer included.
func (s *RRset) each(yield func([]byte) bool) {
	for at := 0; at < len(s.Records); {
		end := at + recordSize(s.Records[at:])
		if !yield(s.Records[at:end]) {
			return
		}
		at = end
	}
}

func (s *RRset) setTTL(ttl uint32) {
	for r := range s.each {
		binary.BigEndian.PutUint32(r[6:], ttl)
	}
}

// Data returns the data of the first record.
func (s *RRset) Data() []byte { return s.Records[12:recordSize(s.Records)] }

// TTL returns the set's TTL in seconds.
func (s *RRset) TTL() uint32 { return binary.BigEndian.Uint32(s.Records[6:]) }
