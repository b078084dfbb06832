package zone

import (
	"encoding/binary"
	"math/bits"

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
	//	 3  number of record sets 1, unless it is general
	//	 4  zone     4, in Set.zones
	//	 8  steered  4, the name's Index if it is steered
	//	12  wildcard 4, the entry of the child "*" as a reference; 0 = none
	//	16  the name, then the record sets: type 2, count 2, size 4, records; in an
	//	    entry with signatures each followed by count 2, size 4, RRSIG records
	//
	// A general one has in front of its sets their number 2 and, where the name is the apex of
	// one zone and a cut of another, a reference to the entry of that 4; 0 = none. Behind
	// them, if it is a cut, what it refers to: count 2, size 4 and records of each of
	// the NS records, their signatures, and the addresses that are required and optional.
	octets []byte
}

// A slot is a hash and a reference to an entry; reference 0 is an empty slot.
type slot struct{ hash, ref uint32 }

const (
	entryUnit   = 8
	entryHeader = 16
	setHeader   = 8
	runHeader   = 6 // of records without their type: signatures, what a cut refers to
	extraHeader = 6 // of a general entry
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
	// isCut: the zone ends here.
	isCut
)

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

// ref is the reverse of entry.
func (x *index) ref(entry []byte) uint32 {
	return uint32((len(x.octets)-len(entry))/entryUnit) + 1
}

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
				h.Signatures, h.SignatureCount = signatures[runHeader:runHeader+size], int(binary.LittleEndian.Uint16(signatures))
			}
			at += runHeader + size
		}
		if found {
			return
		}
	}
}
