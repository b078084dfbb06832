package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Timing of the parent.
const (
	resyncEvery  = 30 * time.Second       // the whole state is handed over at least this often
	backoffFirst = 100 * time.Millisecond // pause after the child died; doubles, with jitter
	backoffMost  = 5 * time.Second
	childStable  = 30 * time.Second // a child that lived this long resets the pause
	childSilence = 5 * time.Second  // a child that reports nothing for this long is killed
	stopGrace    = 5 * time.Second  // for a child to withdraw and say goodbye
)

// Options makes a Speaker. Child, Config and Desired are required.
type Options struct {
	// Child is the command line of the child process, whose main calls
	// ChildMain: {"/proc/self/exe", "bgp-speaker"}.
	Child []string

	// ChildEnv is its whole environment; nil = empty, so that no secret in
	// ours gets there.
	ChildEnv []string

	Config Config
	Peers  []Peer // at most MaxPeers

	// Desired returns what should be announced now; the Speaker does not
	// change it. It is called from Run on every wake-up and at least three
	// times per lease, and must not block: a Desired that hangs lets the
	// lease run out, and everything is withdrawn.
	Desired func() []Route

	// Wake asks for Desired at once; nil = only the lease's rhythm. Never closed.
	Wake <-chan struct{}

	// Adopt is a child that another process started and let go of; the first child is that one. nil = none.
	Adopt *Leash

	Log        *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil = no metrics
}

// A Speaker supervises the BGP child. Its methods may be called at any time by several goroutines; Run once.
type Speaker struct {
	// Immutable.
	command []string
	env     []string
	desired func() []Route
	wake    <-chan struct{}
	log     *slog.Logger
	metrics *metrics
	kick    chan struct{} // capacity 1: Reconfigure tells Run
	changed chan struct{} // capacity 1: Watch
	detach  chan detachment
	idle    chan struct{} // closed when Run has returned

	close sync.Once

	// Owned by Run.
	generation uint64
	adopt      *Leash // not adopted yet

	mu        sync.Mutex // guards the rest
	config    Config     // normalized
	peers     []Peer     // normalized
	child     ChildStatus
	reported  *report // of the running child; nil = none yet
	refused   []RouteStatus
	wanted    []Route
	running   bool
	heardLast time.Time

	bfdFailures uint64 // that this child has reported, as strange
	strange     uint64
	quarantined map[netip.Addr]quarantine
	md5         md5Watch
}

// New checks the options. It starts nothing.
func New(o Options) (*Speaker, error) {
	config, peers, err := normalize(o.Config, o.Peers)
	if err != nil {
		return nil, err
	}
	if len(o.Child) == 0 || o.Child[0] == "" {
		return nil, errors.New("bgp: the child's command line is missing")
	}
	if o.Desired == nil {
		return nil, errors.New("bgp: Desired is missing")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	m.peers.Set(float64(len(peers)))
	return &Speaker{
		command: slices.Clone(o.Child), env: slices.Clone(o.ChildEnv), desired: o.Desired, wake: o.Wake,
		log: o.Log, metrics: m, kick: make(chan struct{}, 1), changed: make(chan struct{}, 1),
		detach: make(chan detachment), idle: make(chan struct{}), adopt: o.Adopt,
		config: config, peers: peers, quarantined: map[netip.Addr]quarantine{},
		child: ChildStatus{State: childStopped, Since: time.Now()},
	}, nil
}

// Close frees what New acquired, the metrics; call it after Run returned. Twice is fine.
func (s *Speaker) Close() error {
	s.close.Do(s.metrics.unregister)
	return nil
}

// Reconfigure takes a new configuration over, or returns every error of it and keeps the old one. Peers that did not
// change keep their sessions; a changed one starts a new session. A new ASN, router ID, listen port or local address
// restarts the child, and with it all sessions.
func (s *Speaker) Reconfigure(c Config, peers []Peer) error {
	c, peers, err := normalize(c, peers)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.forgive(s.peers, peers)
	s.config, s.peers = c, peers
	s.mu.Unlock()
	s.metrics.peers.Set(float64(len(peers)))
	s.Nudge()
	return nil
}

// Nudge has Desired asked again soon, as Options.Wake does, by whoever has no channel of the plan's.
func (s *Speaker) Nudge() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Run keeps a child running until ctx ends; then it withdraws everything, closes the sessions, waits for the child to
// end and returns nil.
func (s *Speaker) Run(ctx context.Context) error {
	s.mu.Lock()
	ran := s.running
	s.running = true
	s.mu.Unlock()
	if ran {
		return errors.New("bgp: Run was called twice")
	}
	defer close(s.idle)
	defer s.setChild(childStopped, 0)
	backoff := backoffFirst
	for {
		began := time.Now()
		err := s.runChild(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errDetached) {
			<-ctx.Done()
			return nil
		}
		if errors.Is(err, errReplace) {
			s.log.Info("BGP child is replaced: its identity or listeners changed")
			continue
		}
		if time.Since(began) >= childStable || s.isBlamed(err) {
			backoff = backoffFirst
		}
		pause := backoff/2 + rand.N(backoff)
		backoff = min(2*backoff, backoffMost)
		s.metrics.restarts.Inc()
		s.died(err)
		s.log.Error("BGP child died; all routes are withdrawn until it is back", "error", err, "again_in", pause.String())
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// errReplace ends a child that cannot take a new configuration over.
var errReplace = errors.New("child must be replaced")

// runChild runs one child until it dies (the error says how), must be replaced (errReplace), or ctx ends.
func (s *Speaker) runChild(ctx context.Context) error {
	p, started, peers, err := s.begin()
	if err != nil {
		return err
	}
	s.setChild(childStarting, p.pid)
	s.metrics.up.Set(1)
	defer s.metrics.up.Set(0)
	lapsed := make(chan struct{}, 1)
	var readers sync.WaitGroup
	readers.Go(func() { p.readLog(s.log, s.metrics.logDropped.Inc) })
	readers.Go(func() { s.readReports(p, lapsed) })

	err = s.feed(ctx, p, started, peers, lapsed)
	if errors.Is(err, errDetached) {
		p.leave()
		p.closeReaders()
		p.reportsGate.open()
		p.errsGate.open()
		readers.Wait()
		return err
	}
	if ctx.Err() != nil || errors.Is(err, errReplace) {
		_ = p.send(order{Kind: orderStop}, time.Second)
		if exit := p.end(stopGrace); exit != nil {
			s.log.Warn("BGP child did not end cleanly", "error", p.describe(exit))
		}
	} else {
		err = p.bury(err)
	}
	// Nothing writes to the pipes any more, unless the child left children
	// of its own; the deadline is for those.
	p.reportsGate.ending.Store(true)
	p.errsGate.ending.Store(true)
	deadline := time.Now().Add(time.Second)
	_ = p.reports.SetReadDeadline(deadline)
	_ = p.errs.SetReadDeadline(deadline)
	readers.Wait()
	p.closeReaders()
	if ctx.Err() != nil || errors.Is(err, errReplace) {
		return err
	}
	return &deathError{text: p.describe(err), culprit: p.blamed()}
}

// A deathError is the end of a child that nobody told to end.
type deathError struct {
	text    string
	culprit netip.Addr // the peer whose message did it; zero = not known
}

func (e *deathError) Error() string {
	if e.culprit.IsValid() {
		return fmt.Sprintf("%s, by what peer %s sent", e.text, e.culprit)
	}
	return e.text
}

// isBlamed puts the peer that ended the child into quarantine and reports whether there was one: then the next child
// need not wait.
func (s *Speaker) isBlamed(err error) bool {
	var death *deathError
	if !errors.As(err, &death) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blame(death.culprit, death.text, time.Now())
}

// begin starts a child, or adopts the one that there is, and returns with what it was or will be started.
func (s *Speaker) begin() (*process, Config, []Peer, error) {
	config, peers := s.current()
	if l := s.adopt; l != nil {
		s.adopt = nil
		if p, err := adopt(l); err == nil {
			s.generation = max(s.generation, l.Generation)
			s.log.Info("BGP child is taken over with its sessions", "pid", l.PID)
			return p, l.Config, l.Peers, nil
		} else {
			s.log.Error("BGP child could not be taken over; another is started", "error", err)
		}
	}
	p, err := startProcess(s.command, s.env)
	return p, config, peers, err
}

// feed hands the child the desired state and renews its lease. It returns why it stopped; nil when the child exited.
func (s *Speaker) feed(ctx context.Context, p *process, started Config, startPeers []Peer, lapsed <-chan struct{}) error {
	config, peers := s.current()
	if needsRestart(started, config, startPeers, peers) {
		return errReplace
	}
	sent, err := s.handOver(p, config, peers, nil)
	if err != nil {
		return err
	}
	renew := time.NewTicker(started.Lease / 3)
	defer renew.Stop()
	resync := time.NewTicker(resyncEvery)
	defer resync.Stop()
	for {
		fresh := false // hand over even if nothing changed
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.exited:
			return nil // bury says why
		case d := <-s.detach:
			if s.lend(p, started, startPeers, d) {
				return errDetached
			}
			fresh = true
		case <-s.kick:
			config, _ := s.current()
			renew.Reset(config.Lease / 3)
		case <-s.wake:
		case <-lapsed:
			s.log.Warn("BGP child had withdrawn everything: the lease was not renewed in time")
			fresh = true
		case <-resync.C:
			fresh = true
		case <-renew.C:
			if silent := time.Since(s.heard()); silent > childSilence {
				return fmt.Errorf("it reported nothing for %s", silent.Round(time.Second))
			}
		}
		config, peers := s.current()
		if needsRestart(started, config, startPeers, peers) {
			return errReplace
		}
		previous := &sent
		if fresh {
			previous = nil
		}
		if sent, err = s.handOver(p, config, peers, previous); err != nil {
			return err
		}
	}
}

// handOver sends the state if it differs from previous (nil = always), and renews the lease either way.
func (s *Speaker) handOver(p *process, config Config, peers []Peer, previous *order) (order, error) {
	routes, refused := resolve(config, s.desired())
	s.mu.Lock()
	s.wanted, s.refused = routes, refused
	s.mu.Unlock()
	s.metrics.desired.Set(float64(len(routes) + len(refused)))
	s.metrics.refused.Set(float64(len(refused)))
	o := order{Kind: orderState, Config: config, Peers: peers, Routes: routes}
	if previous != nil && reflect.DeepEqual(previous.Config, o.Config) && slices.EqualFunc(previous.Peers, o.Peers, Peer.equal) &&
		slices.EqualFunc(previous.Routes, o.Routes, Route.equal) {
		return *previous, p.send(order{Kind: orderRenew, Generation: previous.Generation}, config.Lease)
	}
	s.generation++
	o.Generation = s.generation
	s.metrics.states.Inc()
	return o, p.send(o, config.Lease)
}

// readReports keeps the newest report until the pipe ends.
func (s *Speaker) readReports(p *process, lapsed chan<- struct{}) {
	for {
		var r report
		p.reportsGate.within.Store(false)
		if err := readMessage(&inside{p.reportsGate}, &r); err != nil {
			return
		}
		s.mu.Lock()
		s.reported, s.heardLast = &r, time.Now()
		s.md5.look(s.heardLast)
		state := childRunning
		if r.Lapsed {
			state = childLapsed
		}
		entered := s.child.State != state
		if entered {
			s.child.State, s.child.Since = state, time.Now()
		}
		s.mu.Unlock()
		if entered && r.Lapsed {
			s.metrics.lapses.Inc()
		}
		s.count(r)
		s.signal()
		if r.Lapsed {
			select {
			case lapsed <- struct{}{}:
			default:
			}
		}
	}
}

func (s *Speaker) current() (Config, []Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	admitted := s.admitted(time.Now())
	away := 0
	for _, q := range s.quarantined {
		if q.until.After(time.Now()) {
			away++
		}
	}
	s.metrics.quarantined.Set(float64(away))
	return s.config, admitted
}

func (s *Speaker) heard() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heardLast
}

// setChild enters a state of the child; without a process nothing is installed or established.
func (s *Speaker) setChild(state string, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.child.State, s.child.PID, s.child.Since = state, pid, time.Now()
	s.reported, s.heardLast, s.bfdFailures, s.strange = nil, time.Now(), 0, 0
	s.metrics.established.Set(0)
	s.metrics.guests.Set(0)
	s.metrics.bfdUp.Set(0)
	s.metrics.installed.Set(0)
	s.signal()
}

func (s *Speaker) died(err error) {
	s.mu.Lock()
	s.child.Restarts++
	s.child.LastError = err.Error()
	s.mu.Unlock()
	s.setChild(childBackoff, 0)
}
