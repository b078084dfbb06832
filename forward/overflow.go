package forward

import (
	"net/netip"
	"slices"
)

// forwarded reports whether work comes from a node of the fleet, which has forwarded it
// once already: two sites that hand on to each other would do so for ever.
func (e *Edition) forwarded(service string, flow Flow) bool {
	p := e.pools[service]
	if p == nil || len(p.overflow) == 0 {
		return true
	}
	from := flow.From
	if !from.IsValid() {
		from = flow.Client.Addr()
	}
	_, found := slices.BinarySearchFunc(p.fleet, from.Unmap(), netip.Addr.Compare)
	return found
}

// spill begins a lease of another site's VIP for work that the pool has nobody for: the
// most preferred that has not been tried and has not just refused a connection, else the most preferred
// that has not been tried. It returns nil if there is none.
func (r *Registry) spill(p *pool, terms Terms, tried []*Backend) *Backend {
	if p == nil || terms.Overflow == 0 || len(p.overflow) == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var fallback *Backend
	for _, addr := range p.overflow {
		id := identity{p.service, netip.AddrPortFrom(addr, terms.Overflow)}
		b := r.backends[id]
		if b == nil {
			b = newBackend(r, id, p.group)
			b.elsewhere = true
			r.backends[id] = b
		}
		if !b.elsewhere || slices.Contains(tried, b) {
			continue // an address that is a backend of our own pool, too
		}
		b.retired.Store(false)
		b.active.Store(true)
		if !b.penalised() {
			fallback = b
			break
		}
		if fallback == nil {
			fallback = b
		}
	}
	if fallback == nil || !fallback.begin() {
		return nil
	}
	p.group.spilled.Add(1)
	return fallback
}
