package zone

import (
	"encoding/binary"

	"github.com/pharos-lb/pharos/dnslb/wire"
)

// A Set is every zone that a server answers for, compiled. It is immutable and
// safe for any number of goroutines; a reload compiles a new one.
type Set struct {
	index   index
	zones   []*Zone
	steered []*Steered // by Index
	// deepest bounds the labels of any name in the index, so that a query name of
	// 127 labels costs no more look-ups than the zones are deep.
	deepest  int
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
	// Signatures are SignatureCount RRSIG records of the set, none if that is 0.
	Signatures     []byte
	SignatureCount int
}

// A Node is a name of a zone: one that owns records or is steered, an empty
// non-terminal, or the cut above a delegated zone. The zero Node is none. It is a
// view: a Set holds none, so that the garbage collector has a million names less to look at.
type Node struct {
	Zone *Zone
	// Labels is the number of labels of the name.
	Labels int
	// Steered is set where a service decides A and AAAA.
	Steered *Steered

	entry []byte // in the index, and all that follows it
}

// There reports whether n is a Node at all.
func (n *Node) There() bool { return n.entry != nil }

// Same reports whether two Nodes are one.
func (n *Node) Same(other *Node) bool {
	return n.entry != nil && other.entry != nil && &n.entry[0] == &other.entry[0]
}

// RRset returns the records of a type; Count is 0 if there are none.
func (n *Node) RRset(rtype uint16) RRset {
	at, sets := n.sets()
	for range sets {
		var set RRset
		if set, at = n.set(at); set.Type == rtype {
			return set
		}
	}
	return RRset{}
}

// Empty reports whether the name owns nothing: an empty non-terminal.
func (n *Node) Empty() bool {
	_, sets := n.sets()
	return sets == 0 && n.Steered == nil
}

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
	Node Node // none for NotOurs
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
		switch node := s.node(entry); {
		case i > 0:
			return s.below(node)
		case rtype == wire.TypeDS:
			if above := node.above(); above != 0 {
				node = s.node(s.index.entry(above))
			}
			return Match{Exact, node}
		case node.cut():
			return Match{Delegated, node}
		default:
			return Match{Exact, node}
		}
	}
	return Match{}
}

// below matches a name that does not exist, given its closest encloser.
func (s *Set) below(encloser Node) Match {
	wild := binary.LittleEndian.Uint32(encloser.entry[12:])
	switch {
	case encloser.cut():
		return Match{Delegated, encloser}
	case encloser.entry[0]&general != 0 && encloser.RRset(wire.TypeDNAME).Count > 0:
		return Match{Renamed, encloser}
	case wild != 0:
		return Match{Wildcard, s.node(s.index.entry(wild))}
	}
	return Match{Missing, encloser}
}

// Zones returns the zones, sorted by name. The slice is a copy.
func (s *Set) Zones() []*Zone { return append([]*Zone(nil), s.zones...) }

// Steered returns the number of steered names: one more than the largest Index.
func (s *Set) Steered() int { return len(s.steered) }

// SteeredName returns the steered name with an Index.
func (s *Set) SteeredName(index int) *Steered { return s.steered[index] }

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
