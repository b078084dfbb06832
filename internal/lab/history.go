package lab

import (
	"fmt"
	"maps"
	"slices"
)

// A history is what one operator ordered, one order after the other, and
// checks that no acknowledged order was lost and no cleared one came back. It
// knows one kind of order, a drain, per scope. Pure; not safe for concurrent use.
type history struct {
	scopes map[string]*register
	// Acked and Unknown count the orders.
	Acked, Unknown int
}

// A register is what may stand for one scope.
type register struct {
	// drained is what the newest acknowledged order, or the last check, says.
	drained bool
	// unknown are the orders whose fate was not learned. Each may have taken
	// effect, or may still: it is on one node's disk and wins when it gets out.
	unknown []bool
}

func newHistory() *history { return &history{scopes: map[string]*register{}} }

func (h *history) register(scope string) *register {
	r := h.scopes[scope]
	if r == nil {
		r = &register{}
		h.scopes[scope] = r
	}
	return r
}

// ordered takes the end of one order.
func (h *history) ordered(scope string, drain, acknowledged bool) {
	r := h.register(scope)
	if acknowledged {
		h.Acked++
		r.drained = drain
		return
	}
	h.Unknown++
	r.unknown = append(r.unknown, drain)
}

// drained reports whether a scope is drained as far as is known.
func (h *history) drained(scope string) bool {
	r := h.scopes[scope]
	return r != nil && r.drained
}

// check holds what every node says stands against the history, once all links
// are healed and all nodes say the same. It returns what is wrong. What stands
// then is what the future is held against: what had not got out by now never may.
func (h *history) check(standing map[string]bool) (wrong []string) {
	for scope := range standing {
		h.register(scope)
	}
	for _, scope := range slices.Sorted(maps.Keys(h.scopes)) {
		r := h.scopes[scope]
		stands := standing[scope]
		if stands != r.drained && !slices.Contains(r.unknown, stands) {
			if stands {
				wrong = append(wrong, fmt.Sprintf("the order on %s was cleared, acknowledged, and stands again", scope))
			} else {
				wrong = append(wrong, fmt.Sprintf("the order on %s was acknowledged and is lost", scope))
			}
		}
		r.drained, r.unknown = stands, nil
	}
	return wrong
}
