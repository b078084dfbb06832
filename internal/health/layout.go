package health

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strconv"
)

// A Layout fixes which target each pair of bits in a report speaks of, and which
// sites observe it. All nodes with the same targets and vantages have the same
// layout and the same Hash. Immutable.
type Layout struct {
	// Targets is sorted by Target.Compare and free of duplicates.
	Targets []Target
	// Hash identifies Targets and vantages (64-bit FNV-1a over their identities).
	Hash uint64

	index    map[Target]int
	vantages []Vantage // nil: all default
}

// NewLayout sorts and deduplicates targets; it does not keep the slice. Every
// vantage is the default.
func NewLayout(targets []Target) *Layout { return NewLayoutOf(targets, nil) }

// NewLayoutOf is NewLayout with the vantage of each target; a nil function says
// VantageDefault of all. For a VIP VantageAll is the default.
func NewLayoutOf(targets []Target, vantage func(Target) Vantage) *Layout {
	sorted := slices.Clone(targets)
	slices.SortFunc(sorted, Target.Compare)
	sorted = slices.Compact(sorted)
	l := &Layout{Targets: sorted, index: make(map[Target]int, len(sorted))}
	h := fnv.New64a()
	var size [4]byte
	for i, t := range sorted {
		l.index[t] = i
		id := t.String()
		if v := vantageOf(t, vantage); v != VantageDefault {
			if l.vantages == nil {
				l.vantages = make([]Vantage, len(sorted))
			}
			l.vantages[i] = v
			id += "@" + strconv.Itoa(int(v))
		}
		binary.BigEndian.PutUint32(size[:], uint32(len(id)))
		h.Write(size[:])
		h.Write([]byte(id))
	}
	l.Hash = h.Sum64()
	return l
}

func vantageOf(t Target, vantage func(Target) Vantage) Vantage {
	if vantage == nil {
		return VantageDefault
	}
	return vantage(t).of(t.Kind)
}

// Index returns the position of t.
func (l *Layout) Index(t Target) (int, bool) {
	i, ok := l.index[t]
	return i, ok
}

// Vantage returns the vantage of target i, VantageDefault beyond the last.
func (l *Layout) Vantage(i int) Vantage {
	if uint(i) >= uint(len(l.vantages)) {
		return VantageDefault
	}
	return l.vantages[i]
}
