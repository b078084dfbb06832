package cluster

import (
	"bytes"
	"cmp"
	"slices"
	"sync"

	"github.com/pharos-lb/pharos/internal/health"
)

// maxSeals bounds the signatures kept of registers that are with the decider.
const maxSeals = 2 * health.MaxOverrides

// register is one override register as it is held and sent.
type register struct {
	override health.Override
	record   record // never changed; replaced when a signature is found
}

// registers are the override registers that the node published last: all that
// it holds durably or is about to. Whether one replaces another is not decided
// here.
type registers struct {
	mu sync.Mutex // guards the rest
	// published says that there was a first set.
	published bool
	digest    uint64
	byScope   map[health.Scope]register
	// seals are the signatures of registers that were delivered and may be
	// published, by their encoding.
	seals map[string][]byte
}

func newRegisters() *registers {
	return &registers{byScope: make(map[health.Scope]register), seals: make(map[string][]byte)}
}

// replace makes all the registers held. It returns those that are new or
// changed, and how many could not be encoded. seal returns the signature with
// which a register is sent that came with another one, or none.
func (rs *registers) replace(all []health.Override, digest uint64, seal func(v *health.Override, raw, came []byte) []byte) (changed []register, bad int) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	next := make(map[health.Scope]register, len(all))
	for i := range all {
		v := all[i]
		if old, ok := rs.byScope[v.Scope]; ok && old.override == v {
			next[v.Scope] = old
			continue
		}
		raw, err := v.AppendBinary(nil)
		if err != nil || len(next) >= health.MaxOverrides {
			bad++
			continue
		}
		r := register{override: v, record: record{override: raw, seal: seal(&v, raw, rs.seals[string(raw)])}}
		delete(rs.seals, string(raw))
		next[v.Scope] = r
		changed = append(changed, r)
	}
	rs.byScope, rs.digest, rs.published = next, digest, true
	return changed, bad
}

// supersedes reports whether v could replace what is held.
func (rs *registers) supersedes(v *health.Override) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	old, ok := rs.byScope[v.Scope]
	return !ok || v.Compare(old.override) > 0
}

// holds reports whether exactly rec, which is v, is held, and whether its
// signature is another than the one held.
func (rs *registers) holds(v *health.Override, rec record) (held, otherSeal bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	old, ok := rs.byScope[v.Scope]
	if !ok || !bytes.Equal(old.record.override, rec.override) {
		return false, false
	}
	return true, !bytes.Equal(old.record.seal, rec.seal)
}

// reseal replaces the signature of v, which came as rec and is what is held: it
// was lost in a restart, or its writer has another key now.
func (rs *registers) reseal(v *health.Override, rec record) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if old, ok := rs.byScope[v.Scope]; ok && bytes.Equal(old.record.override, rec.override) {
		old.record.seal = bytes.Clone(rec.seal)
		rs.byScope[v.Scope] = old
	}
}

// remember keeps the signature of a register that is being delivered.
func (rs *registers) remember(rec record) {
	if len(rec.seal) == 0 {
		return
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if len(rs.seals) >= maxSeals {
		clear(rs.seals) // left behind by registers that were not taken over
	}
	rs.seals[string(rec.override)] = bytes.Clone(rec.seal)
}

// delivered returns the signature of a register that is being delivered.
func (rs *registers) delivered(raw []byte) []byte {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.seals[string(raw)]
}

// refresh replaces the signatures of the registers whose writers are concerned.
func (rs *registers) refresh(concerned func(writer string) bool, seal func(v *health.Override, raw, came []byte) []byte) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for scope, r := range rs.byScope {
		if concerned(r.override.Writer) {
			r.record.seal = seal(&r.override, r.record.override, r.record.seal)
			rs.byScope[scope] = r
		}
	}
}

// all returns every record, the latest order first.
func (rs *registers) all() []record {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	all := make([]register, 0, len(rs.byScope))
	for _, r := range rs.byScope {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b register) int { return cmp.Compare(b.override.Counter, a.override.Counter) })
	records := make([]record, 0, len(all))
	for _, r := range all {
		records = append(records, r.record)
	}
	return records
}

// current returns the digest of what is held, and whether anything was ever
// published.
func (rs *registers) current() (digest uint64, published bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.digest, rs.published
}
