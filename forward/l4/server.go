package l4

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// maxShards bounds how many goroutines carry connections.
const maxShards = 16

// Options are what a Server needs.
type Options struct {
	Listeners []Listener
	// Registry gives backends. Required.
	Registry *forward.Registry
	// MaxConns is how many connections are served at once, over all listeners;
	// 0 means what the Registry's Intake says.
	MaxConns int
	// Shards is how many goroutines carry connections, 0 … 16; 0 means one for each
	// processor.
	Shards int
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
	// Immutable.
	registry *forward.Registry
	log      *slog.Logger
	most     int64 // of connections; 0 = what intake says
	intake   *forward.Intake
	drain    time.Duration
	metrics  *metrics
	shards   []*shard
	start    time.Time

	waiting      sync.WaitGroup // who stands in line for a backend
	services     serviceCounts
	complainedAt atomic.Int64 // when the last failed accept was logged

	mu       sync.Mutex // guards the rest
	state    state
	pending  bool // a Change is prepared
	bindings []*binding
}

type state uint8

const (
	stateNew state = iota
	stateRunning
	stateEnded
)

// Stats is a Server at one moment.
type Stats struct {
	// Active is how many connections are being served.
	Active int64
	// Accepted, Refused (over MaxConns) and AcceptErrors count since New.
	Accepted, Refused, AcceptErrors uint64
	// NoBackend counts clients reset because there was no backend to give,
	// ConnectFailed those because no backend could be connected to, Idle those
	// because both directions were silent.
	NoBackend, ConnectFailed, Idle uint64
	// Untracked counts clients that the table of clients had no room for.
	Untracked uint64
	// Up and Down count the bytes of ended connections.
	Up, Down uint64

	drops [dropCount]uint64
}

// Dropped returns how many connections were dropped for each reason that has been.
func (s *Stats) Dropped() map[string]uint64 {
	out := make(map[string]uint64)
	for why, n := range s.drops {
		if n > 0 {
			out[drop(why).String()] = n
		}
	}
	return out
}

// New validates opts and binds every address. It starts nothing.
func New(opts Options) (*Server, error) {
	if opts.Registry == nil {
		return nil, errors.New("l4: Options.Registry is required")
	}
	if opts.MaxConns < 0 || opts.Shards < 0 || opts.Shards > maxShards {
		return nil, fmt.Errorf("l4: MaxConns is %d, want 0 or more; Shards is %d, want 0 … %d", opts.MaxConns, opts.Shards, maxShards)
	}
	s := &Server{
		registry: opts.Registry, log: opts.Log, drain: opts.Drain, most: int64(opts.MaxConns), intake: opts.Registry.Intake(),
		metrics: newMetrics(), start: time.Now(),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.drain == 0 {
		s.drain = forward.DefaultDrain
	}
	shards := opts.Shards
	if shards == 0 {
		shards = min(runtime.GOMAXPROCS(0), maxShards)
	}
	for range shards {
		sh, err := newShard(s)
		if err != nil {
			s.closeShards()
			return nil, fmt.Errorf("l4: %w", err)
		}
		s.shards = append(s.shards, sh)
	}
	if err := s.begin(opts); err != nil {
		s.closeShards()
		return nil, err
	}
	return s, nil
}

func (s *Server) begin(opts Options) error {
	sets := make([]*settings, 0, len(opts.Listeners))
	var errs []error
	for _, l := range opts.Listeners {
		set, err := settle(l, nil, s.metrics)
		errs = append(errs, err)
		sets = append(sets, set)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := checkFree(sets); err != nil {
		return fmt.Errorf("l4: %w", err)
	}
	change, err := s.Prepare(opts.Listeners)
	if err != nil {
		return err
	}
	change.Commit()
	if opts.Registerer != nil {
		if err := opts.Registerer.Register(s.metrics); err != nil {
			s.closeBindings()
			return fmt.Errorf("register l4 metrics: %w", err)
		}
	}
	return nil
}

// maxConns is how many connections are served at once.
func (s *Server) maxConns() int64 {
	if s.most > 0 {
		return s.most
	}
	return s.intake.Connections()
}

// now is the monotonic time in nanoseconds, never 0.
func (s *Server) now() int64 { return int64(time.Since(s.start)) + 1 }

// Run accepts and forwards until ctx ends, lets connections end for the time of
// Drain, resets those that are left, and returns with every goroutine joined. It
// can be called once.
func (s *Server) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.state != stateNew {
		s.mu.Unlock()
		return errors.New("l4: Run called twice, or after Close")
	}
	s.state = stateRunning
	for _, b := range s.bindings {
		s.startListening(b)
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, sh := range s.shards {
		wg.Go(sh.run)
	}
	<-ctx.Done()
	s.mu.Lock()
	s.state = stateEnded // no Commit starts anything from here on
	s.bindings = nil
	s.mu.Unlock()
	for _, sh := range s.shards {
		sh.Do(func() { sh.leave(nil); sh.stopping = true })
	}
	drain, _ := forward.Drain(ctx, s.drain)
	s.join(&wg, drain)
	s.waiting.Wait()
	return nil
}

// join waits for the shards, and after drain ends what they still carry.
func (s *Server) join(wg *sync.WaitGroup, drain time.Duration) {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	timer := time.NewTimer(max(drain, 0))
	defer timer.Stop()
	select {
	case <-done:
		return
	case <-timer.C:
	}
	var cut atomic.Int64
	for _, sh := range s.shards {
		sh.Do(func() {
			sh.cutting = true // what is accepted in the farewell too
			cut.Add(int64(sh.cut()))
		})
	}
	<-done
	if n := cut.Load(); n > 0 {
		s.log.Warn("connections cut at the end of draining", "connections", n, "after", drain)
	}
}

// startListening gives the sockets of b to the shards.
func (s *Server) startListening(b *binding) {
	for i, sh := range s.shards {
		fd := b.sockets[i]
		if !sh.Do(func() { sh.listen(fd, b) }) {
			closeFD(fd)
		}
	}
}

// Close frees the sockets of a Server that was never run.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != stateNew {
		return nil
	}
	s.state = stateEnded
	s.closeBindings()
	s.closeShards()
	return nil
}

func (s *Server) closeBindings() {
	for _, b := range s.bindings {
		b.close()
	}
	s.bindings = nil
}

func (s *Server) closeShards() {
	for _, sh := range s.shards {
		sh.close()
	}
	s.shards = nil
}

// Traffic returns what arrives at each address that is listened on.
func (s *Server) Traffic() []forward.Traffic {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]forward.Traffic, len(s.bindings))
	for i, b := range s.bindings {
		out[i] = forward.Traffic{Address: b.asked, Open: b.active.Load(), Begun: b.begun.Load()}
	}
	return out
}

// Waits returns how often the loops had to wait for events so far, and how many loops there are.
func (s *Server) Waits() (waits uint64, loops int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sh := range s.shards {
		waits += sh.Waits()
	}
	return waits, len(s.shards)
}

// Addrs returns the bound addresses in the order of the listeners.
func (s *Server) Addrs() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]netip.AddrPort, len(s.bindings))
	for i, b := range s.bindings {
		out[i] = b.real
	}
	return out
}

// Stats returns the counters.
func (s *Server) Stats() Stats { return s.metrics.stats() }

// acceptFailed logs a failure to accept, once a second at most.
func (s *Server) acceptFailed(b *binding, errno unix.Errno) {
	now := s.now()
	if last := s.complainedAt.Load(); (last == 0 || now-last > int64(time.Second)) && s.complainedAt.CompareAndSwap(last, now) {
		s.log.Warn("accept failed", "listener", b.asked, "error", errno)
	}
}
