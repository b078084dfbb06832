package health

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// MaxOverrides is how many registers a set holds, those that were cleared too:
// they stay, or what they cleared would come back from whoever missed it.
const MaxOverrides = 4096

// KeeperGrace is how long after an override's end every site ends it, in case
// the one that should is gone.
const KeeperGrace = 10 * time.Minute

// ErrOverridesFull is wrapped by the error for a new scope in a full set.
var ErrOverridesFull = errors.New("too many overrides")

// Overrides is the set of all registers, one per scope. Merging is associative,
// commutative and idempotent as long as all sets together know no more than
// MaxOverrides scopes. Not safe for concurrent use.
type Overrides struct {
	registers map[Scope]Override
	highest   uint64 // the largest counter seen in any register, replaced ones too
	digest    uint64 // 0 = not known
}

// NewOverrides returns the empty set.
func NewOverrides() *Overrides { return &Overrides{registers: make(map[Scope]Override)} }

// Merge takes a register from elsewhere and reports whether it replaced ours.
// A register that is not valid is an error that wraps ErrOverride, one of a
// new scope in a full set one that wraps ErrOverridesFull; the set is then as
// it was.
func (o *Overrides) Merge(v Override) (changed bool, err error) {
	if err := v.check(); err != nil {
		return false, fmt.Errorf("merge override: %w", err)
	}
	held, ok := o.registers[v.Scope]
	if !ok && len(o.registers) >= MaxOverrides {
		return false, fmt.Errorf("merge override of %s: %w: %d scopes are held, cleared ones too, and that is the limit", v.Scope, ErrOverridesFull, MaxOverrides)
	}
	o.highest = max(o.highest, v.Counter)
	v.At, v.Until = fromNanos(nanos(v.At)), fromNanos(nanos(v.Until))
	if ok && v.Compare(held) <= 0 {
		return false, nil
	}
	o.registers[v.Scope], o.digest = v, 0
	return true, nil
}

// Write makes a new register above everything seen in the whole set, merges it
// and returns it. Counter is filled in, and Keeper if the scope has a site. The
// errors are those of Merge.
//
// A forged register at the limit of the counter takes the room above itself: its
// scope alone can then not be written any more, every other one can.
func (o *Overrides) Write(v Override) (Override, error) {
	v.Counter = o.highest + 1
	if v.Counter > MaxOverrideCounter {
		v.Counter = o.registers[v.Scope].Counter + 1
	}
	if v.Scope.Site != "" {
		v.Keeper = v.Scope.Site
	}
	if _, err := o.Merge(v); err != nil {
		return Override{}, fmt.Errorf("write override: %w", err)
	}
	return o.registers[v.Scope], nil
}

// Get returns the register of a scope, cleared or not.
func (o *Overrides) Get(s Scope) (Override, bool) {
	v, ok := o.registers[s]
	return v, ok
}

// Len returns how many registers are held, cleared ones too.
func (o *Overrides) Len() int { return len(o.registers) }

// Standing returns the orders in force (not NONE), sorted by scope. Until is not
// looked at: an order stands until somebody clears it.
func (o *Overrides) Standing() []Override {
	return o.selected(func(v Override) bool { return v.Order != OrderNone })
}

// All returns every register, cleared ones too, sorted by scope.
func (o *Overrides) All() []Override {
	return o.selected(func(Override) bool { return true })
}

// Due returns the registers which nodes of site have to end at now, by writing
// NONE: the ended ones that the site keeps, and those that another site should
// have ended KeeperGrace ago. Sorted by scope.
func (o *Overrides) Due(site string, now time.Time) []Override {
	return o.selected(func(v Override) bool {
		return v.Ends(now) && (v.Keeper == site || v.Ends(now.Add(-KeeperGrace)))
	})
}

func (o *Overrides) selected(want func(Override) bool) []Override {
	var list []Override
	for _, v := range o.registers {
		if want(v) {
			list = append(list, v)
		}
	}
	slices.SortFunc(list, func(a, b Override) int { return a.Scope.Compare(b.Scope) })
	return list
}

// Digest identifies the whole set, cleared registers included: 64 bits of the
// SHA-256 of all encodings in the order of their scopes; 0 for the empty one. The
// way by which the set came to be makes no difference. It is kept until the set
// changes.
func (o *Overrides) Digest() uint64 {
	if o.digest != 0 || len(o.registers) == 0 {
		return o.digest
	}
	h := sha256.New()
	var b []byte
	for _, v := range o.All() {
		b = v.encode(append(b[:0], 0, 0))
		binary.BigEndian.PutUint16(b, uint16(len(b)-2))
		h.Write(b)
	}
	o.digest = max(binary.BigEndian.Uint64(h.Sum(nil)), 1)
	return o.digest
}
