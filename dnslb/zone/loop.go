package zone

import (
	"slices"
	"strings"

	"github.com/pharos-lb/pharos/dnslb/wire"
)

// An alias is a name that owns a CNAME record, in the search for loops.
type alias struct {
	draft       *draft
	key, target string
	line        int
	next        *alias // what answers at target, if that is an alias too
	round       int    // in which search it was seen, 0 = not yet
}

// checkLoops warns of CNAME records that lead back to themselves within the Set:
// no question for them ever gets to data. The Set has been linked.
func (b *builder) checkLoops(drafts []*draft) {
	var aliases []*alias
	at := make(map[uint32]*alias) // by the entry
	for _, d := range drafts {
		for _, named := range d.order {
			key, cname := named.key, named.set(wire.TypeCNAME)
			if cname == nil {
				continue
			}
			n := b.nodes[key]
			if n == nil || n.zone.Name != d.spec.Name || !n.has(wire.TypeCNAME) {
				continue
			}
			a := &alias{draft: d, key: key, line: cname.line}
			a.target, _ = target(cname.Records, 0)
			aliases = append(aliases, a)
			at[n.ref] = a
		}
	}
	var name wire.Name
	for _, a := range aliases {
		if _, ok := name.Set([]byte(a.target)); !ok {
			continue
		}
		if m := b.set.Find(&name, wire.TypeCNAME); m.Kind == Exact || m.Kind == Wildcard {
			a.next = at[b.set.index.ref(m.Node.entry)]
		}
	}
	for i, start := range aliases {
		a := start
		for a != nil && a.round == 0 {
			a.round = i + 1
			a = a.next
		}
		if a != nil && a.round == i+1 {
			a.warn()
		}
	}
}

// warn reports the loop that begins and ends at a.
func (a *alias) warn() {
	const shown = 4 // names; a loop may have any number
	path := []string{text(a.key)}
	for b := a; ; b = b.next {
		if len(path) > shown {
			path = append(path, "…")
			break
		}
		path = append(path, text(b.target))
		if b.next == a {
			break
		}
	}
	a.draft.rep.warnf(a.line, "CNAME loop, which never gets to an address: %s", strings.Join(slices.Clip(path), " → "))
}
