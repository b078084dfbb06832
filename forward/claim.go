package forward

import "net/netip"

// A Flow is what is known of a unit of work before its backend is chosen.
type Flow struct {
	// Client is where it comes from, Server the address it was sent to. Either may be invalid.
	Client, Server netip.AddrPort
	// Datagram: it is a UDP session, which is hashed unless another algorithm was chosen.
	Datagram bool
	// Overflow is the port of other sites' VIPs that takes what the own pool cannot; 0 = nobody does.
	Overflow uint16
	// From is where it has come from, if that is not Client, who is told by another's header.
	From netip.Addr
}

// Terms makes of a flow what Pick and Await want. What a service hashes that a flow does not
// have, a header say, is the client's address.
func (e *Edition) Terms(service string, flow Flow) Terms {
	t := Terms{Datagram: flow.Datagram}
	if flow.Overflow != 0 && !e.forwarded(service, flow) {
		t.Overflow = flow.Overflow
	}
	switch key := e.Key(service, flow.Datagram); {
	case key.Kind == KeyNone || !flow.Client.IsValid():
	case key.Kind == KeyFlow && flow.Server.IsValid():
		t.Key = key.Flow(flow.Client, flow.Server)
	default:
		t.Key = key.Addr(flow.Client.Addr())
	}
	return t
}

// Admit reports whether one more unit of work may begin at a service now, by its Limit.Rate; what may not is counted. It is asked
// once for each, before Claim or Borrow, and not again for another backend.
func (e *Edition) Admit(service string) bool {
	if !e.metered {
		return true
	}
	p := e.pools[service]
	if p == nil || p.rate == nil || p.rate.Take(e.registry.now()) {
		return true
	}
	p.group.overRate.Add(1)
	return false
}

// Claim chooses a backend of service for work whose connection the caller opens
// itself, in whatever way and without a goroutine that waits for it. Backends in
// tried are passed over. It returns nil and no error when none is left that was
// not tried; the error wraps ErrNoPlan, ErrNoPool or ErrNoBackend.
//
// The backend counts the work as in flight until Done, which the caller calls
// exactly once for each claim, after Opened or Failed:
//
//	b, err := registry.Load().Claim("db", forward.Flow{Client: client}, nil)
//	…connect to b.Address()…
//	b.Opened() // and b.Observe(took) if b.Timed()
//	…
//	b.Report(forward.OutcomeServed)
//	b.Done()
func (e *Edition) Claim(service string, flow Flow, tried []*Backend) (*Backend, error) {
	if len(tried) >= MaxAttempts {
		return nil, nil
	}
	b, err := e.Pick(service, e.Terms(service, flow), tried)
	if err != nil && len(tried) > 0 {
		return nil, nil
	}
	return b, err
}

// Version tells editions apart.
func (e *Edition) Version() uint64 { return e.version }

// Opened notes that a connection to a claimed backend was opened.
func (b *Backend) Opened() {
	b.connects.Add(1)
	if b.failedAt.Load() != 0 {
		b.failedAt.Store(0)
	}
}

// Failed notes that a connection to a claimed backend could not be opened: it is
// passed over for a moment. What this machine lacks says nothing about it, and
// is not told to Options.Outcome.
func (b *Backend) Failed(err error) {
	b.connFails.Add(1)
	b.failedAt.Store(b.registry.now())
	if !isLocal(err) {
		b.Tell(false)
	}
}

// Done ends a claim.
func (b *Backend) Done() { b.end() }

// InUse reports whether the newest plan gives it new work.
func (b *Backend) InUse() bool { return b.active.Load() && !b.retired.Load() }

// Retired reports whether it has left the plan. One that comes back after its last use has ended is another Backend.
func (b *Backend) Retired() bool { return b.retired.Load() }

// ClaimAddress begins a claim of a certain backend of service, for work that is
// bound to it already: nil if no plan has it, or it carries all that it may. It may
// be out of use.
func (r *Registry) ClaimAddress(service string, address netip.AddrPort) *Backend {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.backends[identity{service: service, address: address}]
	if b == nil || b.retired.Load() || !b.begin() {
		return nil
	}
	return b
}
