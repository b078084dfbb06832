package zone

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/pharos-lb/pharos/dnslb/wire"
)

// An index finds names. It is one table of hashes, at most half full, and one
// run of octets that holds, for each name, what an answer is made of; neither has a
// pointer, so that a million names cost the garbage collector nothing, and a
// look-up touches one line of each. It is immutable.
type index struct {
	slots []slot
	// octets holds an entry per name, each at a multiple of entryUnit:
	//
	//	 0  flags    1
	//	 1  length of the name in octets 1
	//	 2  where the zone's apex begins in the name 1
	//	 3  number of record sets 1
	//	 4  zone     4, in Set.zones
	//	 8  node     4, in Set.list
	//	12  wildcard 4, the entry of the child "*" as a reference; 0 = none
	//	16  the name, then the record sets: type 2, count 2, size 4, records; in an
	//	    entry with signatures each followed by count 2, size 4, RRSIG records
	octets []byte
}

// A slot is a hash and a reference to an entry; reference 0 is an empty slot.
type slot struct{ hash, ref uint32 }

const (
	entryUnit   = 8
	entryHeader = 16
	setHeader   = 8
	signHeader  = 6
	maxOctets   = (1<<32 - 1) * entryUnit
)

// Flags of an entry.
const (
	// general: the name, and what is below it and does not exist, is not a matter for
	// the fast lane.
	general = 1 << iota
	// hasCNAME: an alias for all other types.
	hasCNAME
	// isSteered: a service decides A and AAAA.
	isSteered
	// isSigned: some record set has signatures.
	isSigned
)

// seal makes the index of the set's nodes. Records of the nodes then lie in it.
func (s *Set) seal() error {
	type named struct {
		key string
		n   *Node
	}
	names := make([]named, 0, len(s.nodes))
	for key, n := range s.nodes {
		names = append(names, named{key, n})
	}
	slices.SortFunc(names, func(a, b named) int { return strings.Compare(a.key, b.key) }) // the same on every node
	zones := make(map[*Zone]uint32, len(s.zones))
	for i, z := range s.zones {
		zones[z] = uint32(i)
	}
	size := 0
	for i := range names {
		size += entrySize(names[i].key, names[i].n)
	}
	if size > maxOctets {
		return fmt.Errorf("zones: %d octets of records in all, over the limit of %d", size, maxOctets)
	}
	x := &s.index
	x.octets = make([]byte, 0, size)
	x.slots = make([]slot, 1<<bits.Len(uint(2*len(names))))
	s.list = make([]*Node, s.steered, len(names)+s.steered)
	refs := make(map[*Node]uint32)
	var name wire.Folded
	for i := range names {
		key, n := names[i].key, names[i].n
		ref := uint32(len(x.octets)/entryUnit) + 1
		if strings.HasPrefix(key, "\x01*") {
			refs[n] = ref
		}
		x.append(key, n, zones[n.Zone], s.number(n))
		if _, ok := name.Set([]byte(key), 0); !ok {
			return fmt.Errorf("zones: %q is not a name", key)
		}
		x.put(slot{hash(&name, 0), ref})
	}
	at := 0
	for i := range names {
		key, n := names[i].key, names[i].n
		if n.wild != nil {
			binary.LittleEndian.PutUint32(x.octets[at+12:], refs[n.wild])
		}
		at += entrySize(key, n)
	}
	return nil
}

// number enters a node in the list. Steered ones come first, each at its Index: the
// fast lane needs to know no more of them.
func (s *Set) number(n *Node) uint32 {
	if n.Steered != nil {
		s.list[n.Steered.Index] = n
		return uint32(n.Steered.Index)
	}
	s.list = append(s.list, n)
	return uint32(len(s.list) - 1)
}

func entrySize(key string, n *Node) int {
	size := entryHeader + len(key)
	signed := n.signed()
	for i := range n.sets {
		size += setHeader + len(n.sets[i].Records)
		if signed {
			size += signHeader
		}
		if s := n.sets[i].Signed; s != nil {
			size += len(s.Records)
		}
	}
	return (size + entryUnit - 1) &^ (entryUnit - 1)
}

// append adds an entry and makes the node's records lie in it.
func (x *index) append(key string, n *Node, zone, node uint32) {
	flags := byte(0)
	if n.Referral != nil || n.above != nil || len(n.sets) > 255 || n.RRset(wire.TypeDNAME) != nil {
		flags |= general
	}
	if n.RRset(wire.TypeCNAME) != nil {
		flags |= hasCNAME
	}
	if n.Steered != nil {
		flags |= isSteered
	}
	signed := n.signed()
	if signed {
		flags |= isSigned
	}
	apex := key
	for range n.Labels - n.Zone.Labels {
		apex = parent(apex)
	}
	end := len(x.octets) + entrySize(key, n)
	x.octets = append(x.octets, flags, byte(len(key)), byte(len(key)-len(apex)), byte(len(n.sets)))
	x.octets = binary.LittleEndian.AppendUint32(x.octets, zone)
	x.octets = binary.LittleEndian.AppendUint32(x.octets, node)
	x.octets = binary.LittleEndian.AppendUint32(x.octets, 0)
	x.octets = append(x.octets, key...)
	for i := range n.sets {
		set := &n.sets[i]
		x.octets = binary.LittleEndian.AppendUint16(x.octets, set.Type)
		x.octets = binary.LittleEndian.AppendUint16(x.octets, uint16(set.Count))
		x.octets = binary.LittleEndian.AppendUint32(x.octets, uint32(len(set.Records)))
		x.take(set)
		switch {
		case set.Signed != nil:
			x.octets = binary.LittleEndian.AppendUint16(x.octets, uint16(set.Signed.Count))
			x.octets = binary.LittleEndian.AppendUint32(x.octets, uint32(len(set.Signed.Records)))
			x.take(set.Signed)
		case signed:
			x.octets = append(x.octets, make([]byte, signHeader)...)
		}
	}
	for len(x.octets) < end {
		x.octets = append(x.octets, 0)
	}
}

// take appends the records of a set and makes them lie there.
func (x *index) take(set *RRset) {
	at := len(x.octets)
	x.octets = append(x.octets, set.Records...)
	set.Records = x.octets[at:len(x.octets):len(x.octets)]
}

// signed reports whether some record set has signatures.
func (n *Node) signed() bool {
	return slices.ContainsFunc(n.sets, func(s RRset) bool { return s.Signed != nil })
}

// put takes the next free slot. There is always one.
func (x *index) put(s slot) {
	mask := uint32(len(x.slots) - 1)
	i := s.hash & mask
	for x.slots[i].ref != 0 {
		i = (i + 1) & mask
	}
	x.slots[i] = s
}

// find returns the entry of the name that remains after at octets, nil if there
// is none.
func (x *index) find(name *wire.Folded, at int) []byte {
	if len(x.slots) == 0 {
		return nil
	}
	sum, key := hash(name, at), name.From(at)
	mask := uint32(len(x.slots) - 1)
	for i := sum & mask; x.slots[i&mask].ref != 0; i = (i + 1) & mask {
		if x.slots[i].hash != sum {
			continue
		}
		entry := x.entry(x.slots[i].ref)
		if int(entry[1]) == len(key) && string(entry[entryHeader:entryHeader+len(key)]) == string(key) {
			return entry
		}
	}
	return nil
}

// entry returns the entry of a reference, and all that follows it.
func (x *index) entry(ref uint32) []byte { return x.octets[int(ref-1)*entryUnit:] }

// hash is over the words of a name in lower case. It need not withstand an
// attacker, who chooses what is asked but not what is in the table.
func hash(name *wire.Folded, at int) uint32 {
	const k = 0x9e3779b97f4a7c15
	sum := uint64(name.Len()-at) * k
	for ; at < name.Len(); at += 8 {
		high, low := bits.Mul64(sum^name.Word(at), k)
		sum = high ^ low
	}
	return uint32(sum ^ sum>>32)
}

// A Hit is what the fast lane answers a question with.
type Hit struct {
	// Found is false where the fast lane has no answer; then nothing else is set.
	Found bool
	// Rcode is NoError or NXDomain.
	Rcode wire.Rcode
	// Steered is the number of a steered name, where a service decides; then there are
	// no records. −1 for none.
	Steered int
	// Records are Count records for the answer section, as [RRset] has them. Without
	// any, the SOA record of Zone is for the authority section, its owner being the
	// name in the question from Apex on.
	Records []byte
	Count   int
	Zone    *Zone
	Apex    int
	// Signatures are SignatureCount RRSIG records of the answer; none if it is zero.
	Signatures     []byte
	SignatureCount int
}

// Express looks up what [Set.Find] and the record sets of its Node say of a
// question, where that is records of one set, a steered name, no such type or
// no such name. Of referrals, aliases, renamed names, names that are not ours and
// DS it finds nothing. It allocates nothing.
func (s *Set) Express(name *wire.Folded, rtype uint16, hit *Hit) {
	hit.Found = false
	at := 0
	for range name.Labels() - s.deepest {
		at = name.Next(at)
	}
	exact := at == 0
	entry := s.index.find(name, at)
	for entry == nil {
		if at == name.Len()-1 {
			return // not ours
		}
		at = name.Next(at)
		exact = false
		entry = s.index.find(name, at)
	}
	if entry[0]&general != 0 {
		return
	}
	hit.Rcode, hit.Steered, hit.Records, hit.Count, hit.SignatureCount = wire.NoError, -1, nil, 0, 0
	hit.Zone = s.zones[binary.LittleEndian.Uint32(entry[4:])]
	hit.Apex = at + int(entry[2])
	if !exact {
		wild := binary.LittleEndian.Uint32(entry[12:])
		if wild == 0 {
			hit.Found, hit.Rcode = true, wire.NXDomain
			return
		}
		if entry = s.index.entry(wild); entry[0]&general != 0 {
			return
		}
	}
	switch flags := entry[0]; {
	case flags&isSteered != 0 && (rtype == wire.TypeA || rtype == wire.TypeAAAA):
		hit.Steered = int(binary.LittleEndian.Uint32(entry[8:]))
	case flags&hasCNAME != 0:
		return
	default:
		hit.records(entry, rtype)
	}
	hit.Found = true
}

// records finds the records of a type in an entry.
func (h *Hit) records(entry []byte, rtype uint16) {
	at, signed := entryHeader+int(entry[1]), entry[0]&isSigned != 0
	for range entry[3] {
		set := entry[at:]
		size := int(binary.LittleEndian.Uint32(set[4:]))
		found := binary.LittleEndian.Uint16(set) == rtype
		if found {
			h.Records, h.Count = set[setHeader:setHeader+size], int(binary.LittleEndian.Uint16(set[2:]))
		}
		at += setHeader + size
		if signed {
			signatures := entry[at:]
			size = int(binary.LittleEndian.Uint32(signatures[2:]))
			if found {
				h.Signatures, h.SignatureCount = signatures[signHeader:signHeader+size], int(binary.LittleEndian.Uint16(signatures))
			}
			at += signHeader + size
		}
		if found {
			return
		}
	}
}
