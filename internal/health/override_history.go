package health

import (
	"cmp"
	"fmt"
	"slices"
)

// A History is a record of orders for checking, after the faults have ended and
// the nodes have talked, that acknowledged ones lasted. It is for simulations and
// fault tests; no node keeps one. The zero History is empty and useful. Not safe
// for concurrent use.
type History struct {
	wrote map[Override]bool  // every register that ever was
	best  map[Scope]Override // the acknowledged one that no other may come before
}

// Wrote records a register that a node's Write returned.
func (h *History) Wrote(v Override) {
	if h.wrote == nil {
		h.wrote, h.best = make(map[Override]bool), make(map[Scope]Override)
	}
	h.wrote[v] = true
}

// Acknowledged records that a register was reported to the operator as held.
func (h *History) Acknowledged(v Override) {
	h.Wrote(v)
	if best, ok := h.best[v.Scope]; !ok || after(v, best) {
		h.best[v.Scope] = v
	}
}

// after reports whether a replaces b: the rule of Override.Compare written out a
// second time, so that a mistake there is not believed here.
func after(a, b Override) bool {
	return cmp.Or(cmp.Compare(a.Counter, b.Counter), cmp.Compare(a.Order, b.Order), cmp.Compare(a.Writer, b.Writer)) > 0
}

// Check returns what is wrong with the set that node ended up with, one sentence
// each, sorted: an acknowledged order that was lost (nothing at or above it is
// held), a cleared one that came back, and a register that nobody wrote.
func (h *History) Check(node string, set []Override) []string {
	var wrong []string
	held := make(map[Scope]Override, len(set))
	for _, v := range set {
		held[v.Scope] = v
		if _, ok := h.wrote[v]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s holds %s %s (counter %d of %s), which nobody wrote", node, v.Scope, v.Order, v.Counter, v.Writer))
		}
	}
	for scope, best := range h.best {
		got, ok := held[scope]
		switch {
		case ok && !after(best, got):
		case !ok && best.Order == OrderNone:
			wrong = append(wrong, fmt.Sprintf("%s lost the clearing of %s (counter %d of %s): what it cleared can come back", node, scope, best.Counter, best.Writer))
		case best.Order == OrderNone && got.Order != OrderNone:
			wrong = append(wrong, fmt.Sprintf("%s: %s %s (counter %d) came back although counter %d of %s cleared it", node, scope, got.Order, got.Counter, best.Counter, best.Writer))
		default:
			wrong = append(wrong, fmt.Sprintf("%s lost %s %s (counter %d of %s), which was acknowledged", node, scope, best.Order, best.Counter, best.Writer))
		}
	}
	slices.Sort(wrong)
	return wrong
}
