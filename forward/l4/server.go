package l4

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/prometheus/client_golang/prometheus"
)

// Defaults of Listener.
const (
	DefaultIdle    = 10 * time.Minute
	DefaultConnect = 2 * time.Second
)

// A Listener takes connections for one service.
type Listener struct {
	// Address to bind; port 0 takes a free one.
	Address netip.AddrPort
	// Service names the pool. A service that no plan knows is not an error:
	// its clients are reset and counted.
	Service string
	// Idle is how long both directions may be silent; 0 means DefaultIdle.
	Idle time.Duration
	// Connect bounds one attempt to reach a backend; 0 means DefaultConnect.
	Connect time.Duration
}

// Options are what a Server needs.
type Options struct {
	Listeners []Listener
	// Registry gives backends. Required.
	Registry *forward.Registry
	// MaxConns is how many connections are served at once, over all listeners;
	// 0 means forward.DefaultMaxConns.
	MaxConns int
	// Drain is how long connections may take to end after Run's context ends;
	// 0 means forward.DefaultDrain, negative means none.
	Drain time.Duration
	// Log takes transitions; nil = none.
	Log *slog.Logger
	// Registerer takes the metrics; nil = none.
	Registerer prometheus.Registerer
}

// A Server forwards TCP connections.
type Server struct {
	registry *forward.Registry
	log      *slog.Logger
	front    *forward.Front[Listener]
	metrics  *metrics
}

// Stats is a Server at one moment.
type Stats struct {
	forward.FrontStats
	// NoBackend counts clients reset because there was no backend to give,
	// ConnectFailed those because no backend could be connected to, Idle those
	// because both directions were silent.
	NoBackend, ConnectFailed, Idle uint64
	// Up and Down count the bytes of ended connections.
	Up, Down uint64
}

// New validates opts and binds every address. It starts nothing.
func New(opts Options) (*Server, error) {
	if opts.Registry == nil {
		return nil, errors.New("l4: Options.Registry is required")
	}
	listens, err := settle(opts.Listeners)
	if err != nil {
		return nil, err
	}
	s := &Server{registry: opts.Registry, log: opts.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.front, err = forward.NewFront(forward.FrontOptions[Listener]{
		Listeners: listens, Serve: s.serve, MaxConns: opts.MaxConns, Drain: opts.Drain, Log: s.log,
	})
	if err != nil {
		return nil, fmt.Errorf("l4: %w", err)
	}
	s.metrics = newMetrics(s.front)
	if opts.Registerer != nil {
		if err := opts.Registerer.Register(s.metrics); err != nil {
			_ = s.front.Close()
			return nil, fmt.Errorf("register l4 metrics: %w", err)
		}
	}
	return s, nil
}

// settle checks listeners and fills in the defaults.
func settle(listeners []Listener) ([]forward.Listen[Listener], error) {
	var errs []error
	out := make([]forward.Listen[Listener], len(listeners))
	for i, l := range listeners {
		if l.Service == "" {
			errs = append(errs, fmt.Errorf("l4: listener %s: service is missing", l.Address))
		}
		if l.Idle < 0 || l.Connect < 0 {
			errs = append(errs, fmt.Errorf("l4: listener %s: durations must not be negative", l.Address))
		}
		l.Idle = cmp.Or(l.Idle, DefaultIdle)
		l.Connect = cmp.Or(l.Connect, DefaultConnect)
		out[i] = forward.Listen[Listener]{Address: l.Address, Settings: l}
	}
	return out, errors.Join(errs...)
}

// Run accepts and forwards until ctx ends, drains, and returns with every
// goroutine joined. It can be called once.
func (s *Server) Run(ctx context.Context) error { return s.front.Run(ctx) }

// Close frees the sockets of a Server that was never run.
func (s *Server) Close() error { return s.front.Close() }

// Addrs returns the bound addresses in the order of the listeners.
func (s *Server) Addrs() []netip.AddrPort { return s.front.Addrs() }

// Stats returns the counters.
func (s *Server) Stats() Stats { return s.metrics.stats() }

// A Change is a new set of listeners with everything fallible already done.
// Addresses in both sets keep their sockets and no connection is cut.
type Change = forward.Change[Listener]

// Prepare validates listeners and binds the addresses that are new. The Server
// goes on unchanged until Commit.
func (s *Server) Prepare(listeners []Listener) (*Change, error) {
	listens, err := settle(listeners)
	if err != nil {
		return nil, err
	}
	change, err := s.front.Prepare(listens)
	if err != nil {
		return nil, fmt.Errorf("l4: %w", err)
	}
	return change, nil
}
