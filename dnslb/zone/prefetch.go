package zone

import (
	"encoding/binary"

	"github.com/pharos-lb/pharos/dnslb/wire"
)

// Several look-ups that follow one another wait for memory twice each: for the slot,
// then for the entry. Prefetch waits for those of all names together. The
// processor overlaps loads that do not depend on one another, so plain loops do it.

// line is what the processor fetches at once.
const line = 64

// Hash returns what Prefetch takes: the hash of the part of a name that Express looks up first.
func (s *Set) Hash(name *wire.Folded) uint32 {
	at := 0
	for range name.Labels() - s.deepest {
		at = name.Next(at)
	}
	return hash(name, at)
}

// Prefetch has the processor fetch what [Set.Express] will read for names of these
// hashes. It replaces each by what SteeredName takes plus 1 if it is probably
// that of a steered name, else by 0; what it says is a guess, no answer. The result means nothing.
// It allocates nothing.
func (s *Set) Prefetch(hashes []uint32) (read uint32) {
	slots, octets := s.index.slots, s.index.octets
	if len(octets) == 0 {
		clear(hashes)
		return 0
	}
	mask := uint32(len(slots) - 1)
	for i, sum := range hashes { // nothing here waits for what a load brings, so that the next one begins meanwhile
		hashes[i] = slots[sum&mask].ref
	}
	for i, ref := range hashes {
		entry := octets[int(max(ref, 1)-1)*entryUnit:]
		read ^= uint32(entry[min(line-1, len(entry)-1)]) // it may lie across two lines
		steered := 1 + binary.LittleEndian.Uint32(entry[8:])
		hashes[i] = steered & -uint32(entry[0]/isSteered&1)
	}
	return read
}
