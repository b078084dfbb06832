package sim

import (
	"cmp"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

// An order waits for its acknowledgement.
type order struct {
	v     health.Override
	since time.Duration
}

// ackWithin is how long an operator waits.
const ackWithin = 5 * time.Second

// command has an operator order something at this machine.
func (m *machine) command(v health.Override) {
	v.By, v.At = "operator", m.wall()
	v.Keeper = v.Scope.Site
	if v.Keeper == "" {
		v.Keeper = m.core.SelfSite()
	}
	written, err := m.core.WriteAll([]health.Override{v})
	if err != nil {
		m.w.violated(m, "an order was refused: %v", err)
		return
	}
	if written[0].Order != v.Order {
		m.w.violated(m, "invariant 4: %s was ordered %s, %s stands", v.Scope, v.Order, written[0].Order)
	}
	m.w.history.Wrote(written[0])
	m.pending = append(m.pending, order{written[0], m.w.now})
	m.publishOrders()
	m.stepSoon()
}

// effectWithin is how long a drain, or its end, may take to be in effect everywhere in good weather.
const effectWithin = 5 * time.Second

// drill drains a site by an order at any machine and takes it back: each has to be in effect everywhere soon.
func (w *world) drill() {
	m := w.machines[w.random.IntN(len(w.machines))]
	site := w.random.IntN(len(w.fleet.sites))
	v := health.Override{Scope: health.Scope{Kind: health.ScopeSite, Site: w.fleet.sites[site]}, Order: health.OrderDrain}
	w.note("%s: %s %s, a drill", m.name, v.Scope, v.Order)
	m.command(v)
	w.in(effectWithin, func() {
		w.checkDrained(v, true)
		v.Order = health.OrderNone
		m.command(v)
		w.in(effectWithin, func() { w.checkDrained(v, false) })
	})
}

// checkDrained: an order of a moment ago stands everywhere, or no more, and no plan answers with what is drained,
// but for want of anything else.
func (w *world) checkDrained(v health.Override, want bool) {
	for _, m := range w.machines {
		stands := slices.ContainsFunc(m.core.Standing(), func(o health.Override) bool { return o.Scope == v.Scope && o.Order == health.OrderDrain })
		if stands != want {
			w.violated(m, "invariant 8: a drain of %s stands %v, %v after it was ordered so", v.Scope, stands, effectWithin)
			continue
		}
		p := m.core.Plan()
		for i := range p.Services {
			for k := range p.Services[i].Sites {
				s := &p.Services[i].Sites[k]
				if want && p.Topology.SiteName(i, k) == v.Scope.Site && s.Eligible && s.Why != steer.ReasonFailOpen && s.Why != steer.ReasonMinimum {
					w.violated(m, "invariant 8: answers with %s (%s) %v after it was drained", v.Scope, s.Why, effectWithin)
				}
			}
		}
	}
}

// checkKept: within a life no order is lost, and none that was replaced comes back, not even for a moment.
func (m *machine) checkKept(all []health.Override) {
	held := make(map[health.Scope]health.Override, len(all))
	for _, v := range all {
		held[v.Scope] = v
	}
	for scope, was := range m.kept {
		is, ok := held[scope]
		// The rule of Override.Compare written out once more, so that a mistake there is not believed here.
		if !ok || cmp.Or(cmp.Compare(is.Counter, was.Counter), cmp.Compare(is.Order, was.Order), cmp.Compare(is.Writer, was.Writer)) < 0 {
			m.w.violated(m, "invariant 4: %s was %s (counter %d), and is %s (counter %d) again", scope, was.Order, was.Counter, is.Order, is.Counter)
		}
	}
	m.kept = held
}

// publishOrders tells everybody, and the disk.
func (m *machine) publishOrders() {
	all, digest := m.core.Overrides()
	m.checkKept(all)
	m.saveOrders(all, digest)
	for _, other := range m.w.machines {
		if other != m {
			m.w.datagram(m, other, func() { other.hearOrders(all) })
		}
	}
}

// saveOrders makes the orders durable, after a moment, if the disk lets it.
func (m *machine) saveOrders(all []health.Override, digest uint64) {
	life := m.life
	m.w.in(m.w.between(time.Millisecond, 20*time.Millisecond), func() {
		if !m.alive || m.life != life || m.disk.full {
			return
		}
		data, err := health.EncodeOverrides(all)
		if err != nil {
			m.w.violated(m, "the orders cannot be encoded: %v", err)
			return
		}
		m.disk.overrides = data
		if !m.disk.copied {
			m.disk.backup, m.disk.copied = data, true
		}
		m.core.SetDurable(digest)
		m.stepSoon()
	})
}

// hearOrders takes what another machine holds.
func (m *machine) hearOrders(all []health.Override) {
	changed, refused := m.core.MergeOverrides(all)
	if refused > 0 {
		m.w.violated(m, "%d orders of another node were refused", refused)
	}
	if changed {
		m.publishOrders()
		m.stepSoon()
	}
}

// repair gives what is held to those whose reports say that they hold something else.
func (m *machine) repair() {
	all, digest := m.core.Overrides()
	if digest != m.core.Durable() {
		m.saveOrders(all, digest)
	}
	for _, other := range m.w.machines {
		r := m.core.Ledger().Held(other.name)
		if other == m || r == nil || r.Overrides == digest || m.w.now-m.repaired[other.id] < repairEvery {
			continue
		}
		m.repaired[other.id] = m.w.now
		m.w.stream(m, other, func() { other.hearOrders(all) })
	}
}

// checkOrders notes which orders a majority holds by now.
func (m *machine) checkOrders() {
	if len(m.pending) == 0 {
		return
	}
	_, digest := m.core.Overrides()
	have, nodes := m.core.Acknowledged(digest)
	rest := m.pending[:0]
	for _, p := range m.pending {
		switch {
		case !m.core.Holds(p.v): // overtaken by another one, so its operator is told that it failed
		case 2*have > nodes:
			m.w.history.Acknowledged(p.v)
			m.w.acknowledged++
		case m.w.now-p.since < ackWithin:
			rest = append(rest, p)
		}
	}
	m.pending = rest
}
