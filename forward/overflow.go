package forward

import (
	"net/netip"
	"slices"
)

// An Elsewhere is how the listeners of other sites are spoken to, which are configured as our own.
type Elsewhere struct {
	// Transport is HTTP1 or HTTP1TLS; of services whose backends speak HTTP/2 it becomes H2C or H2.
	Transport Transport
	// AcceptProxy are the sources that the listener demands a PROXY header of: if nodes of the fleet are among them, one is sent.
	AcceptProxy []netip.Prefix
}

// transport is how other sites' listeners are spoken to for a pool's service.
func (o *Elsewhere) transport(p *pool) Transport {
	t := o.Transport
	switch {
	case p.shared && t.Protocol == HTTP1TLS:
		t.Protocol = H2
	case p.shared:
		t.Protocol = H2C
	}
	for _, prefix := range o.AcceptProxy {
		if slices.ContainsFunc(p.fleet, prefix.Contains) {
			t.SendProxy = 2
		}
	}
	return t
}

// Overflows reports whether work that has come from an address may go to other sites: it does not come from one
// of the fleet's nodes, and the service has somewhere to overflow to.
func (e *Edition) Overflows(service string, from netip.Addr) bool {
	return !e.forwarded(service, Flow{From: from})
}

// Fleet reports whether an address is that of a node of the fleet. While no service overflows nobody's is.
func (e *Edition) Fleet(a netip.Addr) bool { return among(e.fleet, a) }

func among(sorted []netip.Addr, a netip.Addr) bool {
	_, found := slices.BinarySearchFunc(sorted, a.Unmap(), netip.Addr.Compare)
	return found
}

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
	return among(p.fleet, from)
}

// While a pool still works, other sites have at most as many leases as this, or as spillTimes those of the pool.
const (
	spillMost  = 256
	spillTimes = 4
)

// maySpill reports whether more may go to other sites. Two sites that are both full would hand everything on to each other, over and
// over, where one cannot tell that the other is of the fleet: its address is translated, or it is another one than the topology
// says. A pool that does nothing itself is no one's second choice, so what comes there has not been handed on. registry.mu is held.
func (r *Registry) maySpill(p *pool, port uint16) bool {
	if len(p.active) == 0 {
		return true
	}
	away, own := int64(0), int64(0)
	for _, addr := range p.overflow {
		if b := r.backends[identity{p.service, netip.AddrPortFrom(addr, port)}]; b != nil && b.elsewhere {
			away += b.inFlight.Load()
		}
	}
	if away < spillMost {
		return true
	}
	for _, b := range p.active {
		own += b.inFlight.Load()
	}
	return away < spillTimes*own
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
	if !r.maySpill(p, terms.Overflow) {
		return nil
	}
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
		b.depart(false, false, 0)
		if terms.Elsewhere != nil {
			b.setVia(terms.Elsewhere.transport(p))
		}
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
