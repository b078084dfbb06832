package zone

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/pharos-lb/pharos/dnslb/wire"
)

// A builder makes a Set.
type builder struct {
	set   *Set
	nodes map[string]*node // by lower-case wire name
}

// A node is a name in the making. What it becomes is a [Node].
type node struct {
	zone     *Zone
	labels   int
	steered  *Steered
	referral *Referral // at a zone cut
	sets     []RRset
	// wild is the child whose label is "*".
	wild *node
	// above is, at the apex of a zone whose parent is in the Set too, the
	// parent's side of the cut: it answers DS (RFC 4035 3.1.4.1).
	above *node
	ref   uint32 // of its entry
}

func (n *node) has(rtype uint16) bool {
	return slices.ContainsFunc(n.sets, func(s RRset) bool { return s.Type == rtype })
}

func (n *node) general() bool {
	return n.referral != nil || n.above != nil || len(n.sets) > 255 || n.has(wire.TypeDNAME)
}

// signed reports whether some record set has signatures.
func (n *node) signed() bool {
	return slices.ContainsFunc(n.sets, func(s RRset) bool { return s.SignatureCount > 0 })
}

// seal makes the index of the nodes.
func (b *builder) seal() error {
	type named struct {
		key string
		n   *node
	}
	names := make([]named, 0, len(b.nodes))
	for key, n := range b.nodes {
		names = append(names, named{key, n})
	}
	slices.SortFunc(names, func(a, b named) int { return strings.Compare(a.key, b.key) }) // the same on every node
	found := len(names)
	for _, at := range names {
		if at.n.above != nil {
			names = append(names, named{at.key, at.n.above}) // found by a reference only
		}
	}
	zones := make(map[*Zone]uint32, len(b.set.zones))
	for i, z := range b.set.zones {
		zones[z] = uint32(i)
	}
	size := 0
	for i := range names {
		size += entrySize(names[i].key, names[i].n)
	}
	if size > maxOctets {
		return fmt.Errorf("zones: %d octets of records in all, over the limit of %d", size, maxOctets)
	}
	x := &b.set.index
	x.octets = make([]byte, 0, size)
	x.slots = make([]slot, 1<<bits.Len(uint(2*found)))
	var name wire.Folded
	for i := range names {
		key, n := names[i].key, names[i].n
		n.ref = uint32(len(x.octets)/entryUnit) + 1
		x.append(key, n, zones[n.zone])
		if i >= found {
			continue
		}
		if _, ok := name.Set([]byte(key), 0); !ok {
			return fmt.Errorf("zones: %q is not a name", key)
		}
		x.put(slot{hash(&name, 0), n.ref})
	}
	for _, at := range names {
		entry := x.entry(at.n.ref)
		if at.n.wild != nil {
			binary.LittleEndian.PutUint32(entry[12:], at.n.wild.ref)
		}
		if at.n.above != nil {
			binary.LittleEndian.PutUint32(entry[entryHeader+len(at.key)+2:], at.n.above.ref)
		}
	}
	return nil
}

func entrySize(key string, n *node) int {
	size := entryHeader + len(key)
	signed := n.signed()
	for i := range n.sets {
		size += setHeader + len(n.sets[i].Records)
		if signed {
			size += runHeader + len(n.sets[i].Signatures)
		}
	}
	if n.general() {
		size += extraHeader
	}
	if r := n.referral; r != nil {
		size += 4*runHeader + len(r.NS.Records) + len(r.NS.Signatures) + len(r.Required) + len(r.Optional)
	}
	return (size + entryUnit - 1) &^ (entryUnit - 1)
}

// append adds an entry.
func (x *index) append(key string, n *node, zone uint32) {
	flags, sets, steered, signed := byte(0), byte(len(n.sets)), uint32(0), n.signed()
	if n.general() {
		flags |= general
		sets = 0
	}
	if n.referral != nil {
		flags |= isCut
	}
	if n.has(wire.TypeCNAME) {
		flags |= hasCNAME
	}
	if n.steered != nil {
		flags |= isSteered
		steered = uint32(n.steered.Index)
	}
	if signed {
		flags |= isSigned
	}
	apex := key
	for range n.labels - n.zone.Labels {
		apex = parent(apex)
	}
	end := len(x.octets) + entrySize(key, n)
	out := append(x.octets, flags, byte(len(key)), byte(len(key)-len(apex)), sets)
	out = binary.LittleEndian.AppendUint32(out, zone)
	out = binary.LittleEndian.AppendUint32(out, steered)
	out = binary.LittleEndian.AppendUint32(out, 0) // the wildcard's
	out = append(out, key...)
	if flags&general != 0 {
		out = binary.LittleEndian.AppendUint16(out, uint16(len(n.sets)))
		out = binary.LittleEndian.AppendUint32(out, 0) // the parent's side
	}
	for i := range n.sets {
		set := &n.sets[i]
		out = binary.LittleEndian.AppendUint16(out, set.Type)
		out = appendRun(out, set.Count, set.Records)
		if signed {
			out = appendRun(out, set.SignatureCount, set.Signatures)
		}
	}
	if r := n.referral; r != nil {
		out = appendRun(out, r.NS.Count, r.NS.Records)
		out = appendRun(out, r.NS.SignatureCount, r.NS.Signatures)
		out = appendRun(out, r.RequiredCount, r.Required)
		out = appendRun(out, r.OptionalCount, r.Optional)
	}
	for len(out) < end {
		out = append(out, 0)
	}
	x.octets = out
}

func appendRun(out []byte, count int, records []byte) []byte {
	out = binary.LittleEndian.AppendUint16(out, uint16(min(count, 1<<16-1)))
	out = binary.LittleEndian.AppendUint32(out, uint32(len(records)))
	return append(out, records...)
}

// node makes the view of an entry.
func (s *Set) node(entry []byte) Node {
	n := Node{Zone: s.zones[binary.LittleEndian.Uint32(entry[4:])], entry: entry}
	for at := entryHeader; entry[at] != 0; at += 1 + int(entry[at]) {
		n.Labels++
	}
	if entry[0]&isSteered != 0 {
		n.Steered = s.steered[binary.LittleEndian.Uint32(entry[8:])]
	}
	return n
}

// cut reports whether the zone ends at n.
func (n *Node) cut() bool { return n.entry[0]&isCut != 0 }

// above returns the reference of the parent's side of the cut, 0 if there is none.
func (n *Node) above() uint32 {
	if n.entry[0]&general == 0 {
		return 0
	}
	return binary.LittleEndian.Uint32(n.entry[entryHeader+int(n.entry[1])+2:])
}

// sets returns where the record sets begin and how many there are.
func (n *Node) sets() (at, sets int) {
	at = entryHeader + int(n.entry[1])
	if n.entry[0]&general == 0 {
		return at, int(n.entry[3])
	}
	return at + extraHeader, int(binary.LittleEndian.Uint16(n.entry[at:]))
}

// set returns the record set at an offset, and where the next begins.
func (n *Node) set(at int) (set RRset, next int) {
	set.Type = binary.LittleEndian.Uint16(n.entry[at:])
	set.Count, set.Records, next = run(n.entry, at+2)
	if n.entry[0]&isSigned != 0 {
		set.SignatureCount, set.Signatures, next = run(n.entry, next)
	}
	return set, next
}

// run is what appendRun wrote, and where that ends.
func run(entry []byte, at int) (count int, records []byte, next int) {
	next = at + runHeader + int(binary.LittleEndian.Uint32(entry[at+2:]))
	return int(binary.LittleEndian.Uint16(entry[at:])), entry[at+runHeader : next : next], next
}

// Referral returns what a cut refers to.
func (n *Node) Referral() Referral {
	var r Referral
	if !n.cut() {
		return r
	}
	at, sets := n.sets()
	for range sets {
		_, at = n.set(at)
	}
	r.NS.Type = wire.TypeNS
	r.NS.Count, r.NS.Records, at = run(n.entry, at)
	r.NS.SignatureCount, r.NS.Signatures, at = run(n.entry, at)
	r.RequiredCount, r.Required, at = run(n.entry, at)
	r.OptionalCount, r.Optional, _ = run(n.entry, at)
	return r
}
