package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// A Backend is the runtime state of one upstream server for one service.
type Backend struct {
	// Immutable.
	id       identity
	text     string // the address as text
	registry *Registry

	inFlight  atomic.Int64
	failedAt  atomic.Int64 // registry time of the last connect failure, 0 after a success
	retired   atomic.Bool  // not in the newest plan
	active    atomic.Bool
	leases    atomic.Uint64
	connects  atomic.Uint64
	reuses    atomic.Uint64
	stale     atomic.Uint64
	connFails atomic.Uint64
	outcomes  [outcomeCount]atomic.Uint64
	ramping   atomic.Pointer[ramp] // of the newest plan; nil before the first

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
}

func newBackend(r *Registry, id identity) *Backend {
	b := &Backend{id: id, text: id.address.String(), registry: r}
	b.idle.init(r.shards, r.maxIdle)
	return b
}

// Service returns the service it serves.
func (b *Backend) Service() string { return b.id.service }

// Address returns where it listens.
func (b *Backend) Address() netip.AddrPort { return b.id.address }

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
	if tell := b.registry.outcome; tell != nil {
		tell(b.id.service, b.id.address, ok)
	}
}

// dial opens a fresh connection and notes the result.
func (b *Backend) dial(ctx context.Context, timeout time.Duration) (*Stream, error) {
	d := net.Dialer{Timeout: timeout}
	d.SetMultipathTCP(false)
	conn, err := d.DialContext(ctx, "tcp", b.text)
	if err != nil {
		if ctx.Err() == nil { // otherwise it is we who gave up
			b.Failed(err)
		}
		return nil, fmt.Errorf("connect to backend %s: %w", b.text, err)
	}
	b.Opened()
	return NewStream(conn), nil
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

func (b *Backend) begin() {
	b.inFlight.Add(1)
	b.leases.Add(1)
}

func (b *Backend) end() {
	if b.inFlight.Add(-1) == 0 && b.retired.Load() {
		b.registry.forget(b)
	}
}

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
		Active: b.active.Load() && !b.retired.Load(), Retired: b.retired.Load(),
		InFlight: b.inFlight.Load(), Idle: b.idle.len(),
		Leases: b.leases.Load(), Connects: b.connects.Load(), Reuses: b.reuses.Load(),
		Share: float64(b.share()) / rampFull, Stale: b.stale.Load(), ConnectFailures: b.connFails.Load(), IdleDropped: b.idle.dropped.Load(),
	}
	for i := range b.outcomes {
		s.Outcomes[i] = b.outcomes[i].Load()
	}
	return s
}
