package health

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
)

// A Layout fixes which target each pair of bits in a report speaks of. All
// nodes with the same targets have the same layout and the same Hash. Immutable.
type Layout struct {
	// Targets is sorted by Target.Compare and free of duplicates.
	Targets []Target
	// Hash identifies Targets (64-bit FNV-1a over their identities).
	Hash uint64

	index map[Target]int
}

// NewLayout sorts and deduplicates targets; it does not keep the slice.
func NewLayout(targets []Target) *Layout {
	sorted := slices.Clone(targets)
	slices.SortFunc(sorted, Target.Compare)
	sorted = slices.Compact(sorted)
	l := &Layout{Targets: sorted, index: make(map[Target]int, len(sorted))}
	h := fnv.New64a()
	var size [4]byte
	for i, t := range sorted {
		l.index[t] = i
		id := t.String()
		binary.BigEndian.PutUint32(size[:], uint32(len(id)))
		h.Write(size[:])
		h.Write([]byte(id))
	}
	l.Hash = h.Sum64()
	return l
}

// Index returns the position of t.
func (l *Layout) Index(t Target) (int, bool) {
	i, ok := l.index[t]
	return i, ok
}
