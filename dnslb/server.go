package dnslb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/dnslb/transport"
	"github.com/pharos-lb/pharos/dnslb/zone"
	"github.com/pharos-lb/pharos/internal/descriptors"
	"github.com/pharos-lb/pharos/internal/steer"
)

// A Server answers DNS queries. All its methods may be called from any
// goroutine.
type Server struct {
	// Immutable.
	board    *steer.Board
	sockets  int
	log      *slog.Logger
	registry prometheus.Registerer
	metrics  *metrics
	pool     *transport.Pool

	// Loaded once per query.
	zones    atomic.Pointer[serving]
	tunables atomic.Pointer[Tunables]

	mu        sync.Mutex // guards the rest
	state     state
	listeners []*listener
	holds     int            // calls of Hold that are not released
	held      int            // what room was told so far
	room      func(more int) // nil = nobody is told
	stopping  sync.WaitGroup // listeners that a reload removed
	panics    sync.Once
}

type state uint8

const (
	idle state = iota
	running
	stopped
)

// ErrStopped is returned by what needs a server that has not ended.
var ErrStopped = errors.New("dns server has stopped")

// New checks the options and binds every socket, or none. The server knows no
// zone (and refuses every question) until SetZones, and answers nothing until
// Run. Close frees the sockets.
func New(o Options) (*Server, error) {
	o, err := o.complete()
	listen, listenErr := addresses(o.Listen)
	if err = errors.Join(err, listenErr); err != nil {
		return nil, err
	}
	s := &Server{
		board:    o.Board,
		sockets:  o.Sockets,
		log:      o.Log,
		registry: o.Registerer,
		metrics:  newMetrics(),
		room:     o.Room,
	}
	s.tunables.Store(&o.Tunables)
	s.zones.Store(serve(new(zone.Set), s.board))
	s.pool, err = transport.NewPool(s.limits(&o.Tunables), &s.metrics.tcp, o.Sockets, func() transport.Responder {
		return newResponder(s, s.metrics.socket(nil))
	})
	if err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	s.metrics.open = s.pool.Open
	s.metrics.real = s.RealTime
	if err := s.open(listen, o.Shared); err != nil {
		s.pool.Shutdown()
		return nil, fmt.Errorf("dns: %w", err)
	}
	return s, nil
}

// open binds every socket, or none.
func (s *Server) open(listen []netip.AddrPort, shared bool) (err error) {
	if !shared {
		if err := checkFree(listen); err != nil {
			return err
		}
	}
	if s.listeners, err = bindAll(listen, 0, binder(s.sockets)); err != nil {
		return err
	}
	if s.registry != nil {
		if err := s.registry.Register(s.metrics); err != nil {
			closeAll(s.listeners)
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

// limits bound the TCP connections by the options, and by the descriptors of the process.
func (s *Server) limits(t *Tunables) transport.Limits {
	l := transport.Limits{Connections: t.TCPMax, Idle: t.TCPIdle, Descriptors: descriptors.DNS()}
	if most := descriptors.Connections(); most > 0 && most < l.Connections {
		l.Connections = most
		s.log.Warn("fewer dns connections over tcp than tcp_max", "connections", most, "tcp_max", t.TCPMax,
			"descriptors", descriptors.All(), "hint", "raise the limit of open files (LimitNOFILE) to twice tcp_max, or lower tcp_max")
	}
	return l
}

// SetZones replaces the zones. Queries in hand keep the old ones to their end.
// nil stands for no zones.
func (s *Server) SetZones(set *zone.Set) {
	if set == nil {
		set = new(zone.Set)
	}
	s.metrics.setZones(len(set.Zones()), set.Steered())
	s.zones.Store(serve(set, s.board))
}

// Run serves until ctx ends: then it stops reading, finishes what has been
// read, ends the TCP connections, unbinds every socket and returns nil. It
// works once.
func (s *Server) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.state != idle {
		s.mu.Unlock()
		return ErrStopped
	}
	s.state = running
	for _, l := range s.listeners {
		l.start(s)
	}
	s.mu.Unlock()

	<-ctx.Done()

	s.mu.Lock()
	s.state = stopped
	listeners := s.listeners
	s.listeners = nil
	s.mu.Unlock()
	err := stopAll(listeners)
	s.linger(ctx)
	s.pool.Shutdown()
	s.stopping.Wait()
	s.unregister()
	return err
}

// linger lets TCP connections end by themselves if another process has the sockets now, which the cause of
// ctx's end says by a limit: on a connection that was accepted here a query may be on its way.
func (s *Server) linger(ctx context.Context) {
	var handed interface{ Linger() time.Duration }
	if !errors.As(context.Cause(ctx), &handed) {
		return
	}
	limit := time.NewTimer(min(handed.Linger(), s.tunables.Load().TCPIdle))
	defer limit.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for s.pool.Open() > 0 {
		select {
		case <-look.C:
		case <-limit.C:
			return
		}
	}
}

// Addrs returns what is bound, in the order of Options.Listen, with the ports
// that the kernel chose.
func (s *Server) Addrs() (udp, tcp []netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		udp = append(udp, l.udp[0].Local())
		tcp = append(tcp, l.tcp.Local())
	}
	return udp, tcp
}

// Close frees the sockets of a server that is not running. While Run runs it
// does nothing: end its context. It may be called more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == running {
		return nil
	}
	s.state = stopped
	err := closeAll(s.listeners)
	s.listeners = nil
	s.stopping.Wait()
	s.pool.Shutdown()
	s.unregister()
	return err
}

func (s *Server) unregister() {
	if s.registry != nil {
		s.registry.Unregister(s.metrics)
	}
}

// panicked logs the first panic of a responder, which is a bug; the counter
// tells of the others.
func (s *Server) panicked(p any) {
	s.panics.Do(func() {
		s.log.Error("dns query dropped after an internal error", "error", p, "stack", string(debug.Stack()))
	})
}

// Hold has the goroutines of the sockets keep their processors, as
// runtime.GOMAXPROCS counts them, until release is called, once: for a while in which the process
// has much else to do, or they have. Calls may overlap. Options.Room is told of one more for each of the Threads, also of
// those that a reload adds meanwhile.
func (s *Server) Hold() (release func()) {
	hold := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.holds += n
		s.holdSockets()
	}
	hold(1)
	return func() { hold(-1) }
}

// holdSockets tells the sockets whether anybody holds, with room for each of them before it keeps its own. mu is held.
func (s *Server) holdSockets() {
	want := 0
	if s.holds > 0 {
		want = s.threads()
	}
	more := want - s.held
	s.held = want
	if more > 0 && s.room != nil {
		s.room(more)
	}
	for _, l := range s.listeners {
		for _, u := range l.udp {
			u.Hold(s.holds > 0)
		}
	}
	s.pool.Hold(s.holds > 0)
	if more < 0 && s.room != nil {
		s.room(more)
	}
}

// RealTime returns how many of the Threads go before all usual ones of the machine at the moment.
func (s *Server) RealTime() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, l := range s.listeners {
		for _, u := range l.udp {
			if u.RealTime() {
				n++
			}
		}
	}
	return n
}

// Threads returns the number of goroutines that serve sockets.
func (s *Server) Threads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.threads()
}

func (s *Server) threads() int {
	return s.sockets * (len(s.listeners) + 1) // for TCP as many as for one address
}

func stopAll(listeners []*listener) error {
	errs := make([]error, len(listeners))
	var wg sync.WaitGroup
	for i, l := range listeners {
		wg.Go(func() { errs[i] = l.stop() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func closeAll(listeners []*listener) error {
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}
