package forward

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// A Backend is the runtime state of one upstream server for one service.
type Backend struct {
	// What every choice looks at comes first, so that it is in one line of the cache.
	inFlight atomic.Int64
	failedAt atomic.Int64 // registry time of the last connect failure, 0 after a success
	limit    atomic.Int64 // of leases; 0 = none
	record   record

	// Immutable.
	id        identity
	text      string // the address as text
	registry  *Registry
	group     *group
	elsewhere bool // a VIP of another site

	retired atomic.Bool // not in the newest plan
	active  atomic.Bool
	// gone is the registry time since which no plan has had a place for it, negative if by an order that lets it finish; 0 = the
	// newest one has.
	gone      atomic.Int64
	near      atomic.Bool // in this node's availability zone
	leases    atomic.Uint64
	connects  atomic.Uint64
	reuses    atomic.Uint64
	stale     atomic.Uint64
	connFails atomic.Uint64
	outcomes  [outcomeCount]atomic.Uint64
	ramping   atomic.Pointer[ramp]   // of the newest plan; nil before the first
	policy    atomic.Pointer[Policy] // of the newest plan
	latency   latency
	via       atomic.Pointer[Via] // of the newest plan; never nil
	warm      atomic.Int32        // how many connections are to be there, of the newest plan

	idle idleStack

	// registry.mu guards the rest: the newest plan gives it no work, and the
	// registry time at which a plan gave it work again (0 = long ago).
	out  bool
	back int64
}

// An Outcome is the fact that one unit of work leaves behind about its backend.
type Outcome uint8

// The outcomes.
const (
	OutcomeServed   Outcome = iota // answered, or the connection ended in order
	OutcomeError                   // HTTP: answered with 5xx
	OutcomeReset                   // broke off before the end
	OutcomeTimeout                 // said nothing in time
	OutcomeProtocol                // HTTP: answered with something that is not HTTP
	OutcomeClient                  // the client broke off; says nothing about the backend
	outcomeCount
)

var outcomeTexts = [outcomeCount]string{"served", "error", "reset", "timeout", "protocol", "client"}

// String returns the outcome as metrics label it.
func (o Outcome) String() string {
	if o < outcomeCount {
		return outcomeTexts[o]
	}
	return "unknown"
}

// Status is what a Backend looks like at one moment.
type Status struct {
	Service string
	Address netip.AddrPort
	// Active: the newest plan gives it new connections.
	Active bool
	// Share is how much of its weight counts, above 0 … 1: less than 1 in a slow start.
	Share float64
	// Retired: it has left the plan and only finishes what it has.
	Retired bool
	// Elsewhere: it is the VIP of another site.
	Elsewhere bool
	// InFlight counts leases not yet released: L4 connections and L7 requests.
	InFlight int64
	// Idle counts upstream connections waiting to be borrowed.
	Idle int
	// Leases, Connects, Reuses, Stale, ConnectFailures and IdleDropped count
	// since the backend became known. Stale counts borrowed connections that
	// turned out to be dead, IdleDropped those closed because MaxIdle were kept.
	Leases, Connects, Reuses, Stale, ConnectFailures, IdleDropped uint64
	// Outcomes counts by Outcome.
	Outcomes [outcomeCount]uint64
	// Limit is how many leases it may have at once; 0 = any number.
	Limit int64
	// Latency is the moving average of its answers; 0 = never measured.
	Latency time.Duration
	// Ejected is how much longer it is passed over, and EjectedFor why ("errors", "success-rate",
	// "latency"); 0 and "" if it is not. Ejections counts by that reason, EjectionsHeld those
	// that too many others stood in the way of.
	Ejected       time.Duration
	EjectedFor    string
	Ejections     map[string]uint64
	EjectionsHeld uint64
}

func newBackend(r *Registry, id identity, g *group) *Backend {
	b := &Backend{id: id, text: id.address.String(), registry: r, group: g}
	b.idle.init(r.shards, r.maxIdle)
	b.via.Store(&Via{})
	return b
}

// Service returns the service it serves.
func (b *Backend) Service() string { return b.id.service }

// Elsewhere reports whether it is the VIP of another site, which takes what the own pool cannot.
func (b *Backend) Elsewhere() bool { return b.elsewhere }

// Address returns where it listens.
func (b *Backend) Address() netip.AddrPort { return b.id.address }

// Text returns Address as text.
func (b *Backend) Text() string { return b.text }

// Report counts an outcome.
func (b *Backend) Report(o Outcome) {
	if o < outcomeCount {
		b.outcomes[o].Add(1)
	}
}

// ReportAnswer counts the outcome of a request, and tells Options.Outcome what it
// says about the backend: nothing if it is the client's.
func (b *Backend) ReportAnswer(o Outcome) {
	b.Report(o)
	if o != OutcomeClient {
		b.Tell(o == OutcomeServed)
	}
}

// Tell tells Options.Outcome whether the backend did its work.
func (b *Backend) Tell(ok bool) {
	b.judge(ok)
	if tell := b.registry.outcome; tell != nil {
		tell(b.id.service, b.id.address, ok)
	}
}

// open opens a connection and makes of it what via asks for.
func (b *Backend) open(ctx context.Context, via *Via, client *Client, terms Terms) (*Stream, error) {
	d := net.Dialer{Timeout: terms.Connect, Control: b.registry.leaveRoom}
	d.SetMultipathTCP(false)
	secure := via.TLS()
	if secure {
		if terms.Carrier == nil {
			return nil, errNoCarrier
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, terms.Connect) // for both
		defer cancel()
	}
	conn, err := d.DialContext(ctx, "tcp", b.text)
	if err != nil {
		return nil, err
	}
	s := NewStream(conn)
	if via.SendProxy > 0 {
		if err := s.introduce(via.SendProxy, client, terms.Connect); err != nil {
			_ = s.Close()
			return nil, err
		}
		s.ForgetDeadlines()
	}
	if secure {
		return terms.Carrier.Secure(ctx, b, via, s)
	}
	return s, nil
}

// isLocal reports whether a connection could not be opened for want of something
// on this machine, which says nothing about the backend.
func isLocal(err error) bool {
	for _, want := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL, syscall.EACCES, syscall.EPERM,
	} {
		if errors.Is(err, want) {
			return true
		}
	}
	return false
}

// penalised reports whether it refused a connection a moment ago.
func (b *Backend) penalised() bool {
	at := b.failedAt.Load()
	return at != 0 && b.registry.now()-at < int64(b.registry.penalty)
}

// usable reports whether nothing speaks against giving it new work now.
func (b *Backend) usable() bool { return !b.penalised() && !b.ejected() && !b.full() }

// full reports whether it carries as much as it may.
func (b *Backend) full() bool {
	limit := b.limit.Load()
	return limit > 0 && b.inFlight.Load() >= limit
}

// begin takes a lease; false if it has all that it may.
func (b *Backend) begin() bool {
	n := b.inFlight.Add(1)
	if limit := b.limit.Load(); limit > 0 && n > limit {
		b.inFlight.Add(-1)
		return false
	}
	b.group.inFlight.Add(1)
	b.leases.Add(1)
	return true
}

func (b *Backend) end() {
	b.group.inFlight.Add(-1)
	left := b.inFlight.Add(-1)
	b.group.line.call()
	if left == 0 && b.retired.Load() {
		b.registry.forget(b)
	}
}

// Timed reports whether its pool's policy goes by what Observe is told.
func (b *Backend) Timed() bool {
	p := b.policy.Load()
	return p != nil && (p.Algorithm == Latency || p.Eject.Latency > 0)
}

// Observe adds how long it took to answer to what Latency balances by, and Ejection.Latency.
func (b *Backend) Observe(took time.Duration) { b.latency.observe(took, b.registry.now()) }

// share returns how much of its weight counts now, in rampFull-ths.
func (b *Backend) share() uint64 {
	if r := b.ramping.Load(); r != nil && *r != (ramp{}) {
		return r.share(b.registry.now())
	}
	return rampFull
}

func (b *Backend) status() Status {
	s := Status{
		Service: b.id.service, Address: b.id.address,
		Active: b.active.Load() && !b.retired.Load(), Retired: b.retired.Load(), Elsewhere: b.elsewhere,
		InFlight: b.inFlight.Load(), Idle: b.idle.len(),
		Leases: b.leases.Load(), Connects: b.connects.Load(), Reuses: b.reuses.Load(),
		Share: float64(b.share()) / rampFull, Stale: b.stale.Load(), ConnectFailures: b.connFails.Load(), IdleDropped: b.idle.dropped.Load(),
	}
	for i := range b.outcomes {
		s.Outcomes[i] = b.outcomes[i].Load()
	}
	s.Limit = b.limit.Load()
	if now := b.registry.now(); b.latency.value.Load() != 0 {
		s.Latency = time.Duration(b.latency.at(now, false))
	}
	if until := b.record.until.Load(); b.ejected() {
		s.Ejected = time.Duration(until - b.registry.now())
		s.EjectedFor = ejectReason(b.record.why.Load()).String()
	}
	s.Ejections = make(map[string]uint64, ejectReasonCount-1)
	for why := ejectErrors; why < ejectReasonCount; why++ {
		s.Ejections[why.String()] = b.record.count[why].Load()
	}
	s.EjectionsHeld = b.record.held.Load()
	return s
}
