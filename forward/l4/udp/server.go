package udp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l4/kernel"
	"github.com/pharos-lb/pharos/forward/l4/udp/offload"
	"github.com/pharos-lb/pharos/internal/handover"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// Defaults of Listener.
const (
	DefaultIdle     = 30 * time.Second
	DefaultSessions = 16384
	maxShards       = 16
)

// AnyResponses leaves the number of answers open.
const AnyResponses = -1

// A Listener takes datagrams for one service.
type Listener struct {
	// Address to bind; port 0 takes a free one.
	Address netip.AddrPort
	// Service names the pool.
	Service string
	// Idle is how long a session may be silent; 0 means DefaultIdle.
	Idle time.Duration
	// Responses is how many answers a datagram of a client gets: a session ends when
	// it has had them. 0 = none (syslog), 1 = DNS, AnyResponses = nobody knows.
	Responses int
	// Sessions is how many there may be, and one more for each shard that would have none; the oldest gives way. 0
	// means DefaultSessions.
	Sessions int
	// Overflow: what the service's own pool has nobody for goes to the port of this listener at other
	// sites' VIPs, where the plan names some.
	Overflow bool
	// QUIC finds the backend of a client that has changed its address; nil = nobody does.
	QUIC *QUIC
	// BackendGone and GoneAfter say what becomes of sessions of a backend that is out of use; GoneAfter 0 means the policy's
	// default.
	BackendGone Gone
	GoneAfter   time.Duration
	// Limits bound how fast sessions begin.
	Limits Limits
	// Offload has the kernel carry sessions that prove to be worth it, where it can (package offload). Neither with
	// Responses nor with QUIC, which want to see every datagram.
	Offload bool

	rate    *forward.Meter // of Limits, as clients below; nil = no limit
	clients *forward.Clients
}

// Options are what a Server needs.
type Options struct {
	Listeners []Listener
	// Registry gives backends. Required.
	Registry *forward.Registry
	// Offloaded is how many sessions the kernel carries at most, 0 … offload.MaxSessions; 0 means as many as that.
	Offloaded int
	// Shards is how many goroutines carry datagrams, 0 … 16; 0 means one for each processor.
	Shards int
	// Drain is how long sessions may go on after Run's context ends; 0 means
	// forward.DefaultDrain, negative means not at all.
	Drain time.Duration
	// Log takes transitions; nil = none.
	Log *slog.Logger
	// Registerer takes the metrics; nil = none.
	Registerer prometheus.Registerer
}

// A Server forwards datagrams.
type Server struct {
	// Immutable.
	registry *forward.Registry
	drain    time.Duration
	shards   []*shard
	start    time.Time
	offload  int // sessions in the lane at most
	count    counters
	log      *slog.Logger

	lane atomic.Pointer[offload.Lane] // nil = sockets carry everything; changed with mu held

	mu       sync.Mutex // guards the rest
	state    state
	pending  bool
	bindings []*binding
	adopted  [][]adopted // by shard: sessions of the process that this one replaces

	laneWanted bool
	lanePast   offload.Stats // of lanes that were closed
}

type state uint8

const (
	stateNew state = iota
	stateRunning
	stateEnded
)

// A binding is one address, with a socket for each shard.
type binding struct {
	asked, real netip.AddrPort
	sockets     []int32
	settings    atomic.Pointer[Listener]
	active      atomic.Int64
	begun       atomic.Uint64
}

// New validates opts and binds every address. It starts nothing.
func New(opts Options) (*Server, error) {
	if opts.Registry == nil {
		return nil, errors.New("udp: Options.Registry is required")
	}
	if opts.Shards < 0 || opts.Shards > maxShards {
		return nil, fmt.Errorf("udp: Shards is %d, want 0 … %d", opts.Shards, maxShards)
	}
	if opts.Offloaded < 0 || opts.Offloaded > offload.MaxSessions {
		return nil, fmt.Errorf("udp: Offloaded is %d, want 0 … %d", opts.Offloaded, offload.MaxSessions)
	}
	s := &Server{registry: opts.Registry, drain: opts.Drain, start: time.Now(), offload: opts.Offloaded, log: opts.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.drain == 0 {
		s.drain = forward.DefaultDrain
	}
	n := opts.Shards
	if n == 0 {
		n = min(runtime.GOMAXPROCS(0), maxShards)
	}
	for range n {
		sh, err := newShard(s)
		if err != nil {
			_ = s.Close()
			return nil, fmt.Errorf("udp: %w", err)
		}
		s.shards = append(s.shards, sh)
	}
	err := checkFree(opts.Listeners)
	var change *Change
	if err == nil {
		change, err = s.Prepare(opts.Listeners)
	}
	if err == nil {
		change.Commit()
		if opts.Registerer != nil {
			err = opts.Registerer.Register(collector{s})
		}
	}
	if err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("udp: %w", err)
	}
	return s, nil
}

func (s *Server) now() int64 { return int64(time.Since(s.start)) + 1 }

// Run forwards until ctx ends, lets sessions go on for the time of Drain, and
// returns with every goroutine joined. It can be called once.
func (s *Server) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.state != stateNew {
		s.mu.Unlock()
		return errors.New("udp: Run called twice, or after Close")
	}
	s.state = stateRunning
	for _, b := range s.bindings {
		s.open(b)
	}
	for i, sessions := range s.adopted {
		sh := s.shards[i]
		sh.Do(func() { sh.adopt(sessions) }) // after its sockets, before the first datagram
	}
	s.adopted = nil
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, sh := range s.shards {
		wg.Go(sh.serve)
	}
	<-ctx.Done()
	s.mu.Lock()
	s.state = stateEnded
	s.bindings = nil
	s.mu.Unlock()
	drain, handed := forward.Drain(ctx, s.drain)
	for _, sh := range s.shards {
		sh.Do(func() {
			sh.stopping = sh.now + int64(max(drain, 0))
			if handed { // what clients send from here on is the other process's
				sh.deafen()
				for _, at := range sh.sockets {
					sh.leaveLanes(at)
				}
			}
			if handed && sh.away {
				sh.dropGiven()
			}
		})
	}
	wg.Wait()
	s.mu.Lock()
	s.setLane(nil, false)
	s.mu.Unlock()
	return nil
}

// open gives the sockets of b to the shards.
func (s *Server) open(b *binding) {
	for i, sh := range s.shards {
		fd := b.sockets[i]
		if !sh.Do(func() { sh.listen(fd, b) }) {
			unix.Close(int(fd))
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
	for _, b := range s.bindings {
		b.close()
	}
	for _, sh := range s.shards {
		sh.Close()
	}
	s.setLane(nil, false)
	s.bindings, s.shards = nil, nil
	return nil
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

func (b *binding) close() {
	for _, fd := range b.sockets {
		unix.Close(int(fd))
	}
	b.sockets = nil
}

// bind opens the sockets of an address.
func bind(l *Listener, shards int) (*binding, error) {
	b := &binding{asked: l.Address}
	at := l.Address
	for range shards {
		fd, err := inherited(at)
		if fd < 0 && err == nil {
			fd, err = openSocket(at, true)
		}
		if err != nil {
			b.close()
			return nil, fmt.Errorf("listen on %s/udp: %w%s", l.Address, err, forward.Cure(l.Address, err, "-lunp"))
		}
		b.sockets = append(b.sockets, fd)
		at = netip.AddrPortFrom(at.Addr(), kernel.LocalAddress(fd).Port())
	}
	b.real = at
	b.settings.Store(l)
	return b, nil
}

// inherited returns a socket that the process that this one replaces has given it; −1 if there is none.
func inherited(at netip.AddrPort) (int32, error) {
	fd, ok := handover.Take("udp", at.String())
	if !ok {
		return -1, nil
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return int32(fd), nil
}

func openSocket(at netip.AddrPort, share bool) (int32, error) {
	dual := at.Addr() == netip.IPv6Unspecified() // both families, or IPv4 alone where there is no IPv6
	family := unix.AF_INET6
	if at.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) && dual {
		dual, family, at = false, unix.AF_INET, netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())
		fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	}
	if err != nil {
		return -1, err
	}
	if err := prepare(fd, family, at, dual, share); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return int32(fd), nil
}

// prepare sets the options of a socket and binds it.
func prepare(fd, family int, at netip.AddrPort, dual, share bool) error {
	only := 1
	if dual {
		only = 0
	}
	wild := 0
	if at.Addr().IsUnspecified() {
		wild = 1
	}
	var errs []error
	set := func(level, option, value int) { errs = append(errs, unix.SetsockoptInt(fd, level, option, value)) }
	if share {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if family == unix.AF_INET6 {
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
		set(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, wild)
	} else {
		set(unix.IPPROTO_IP, unix.IP_PKTINFO, wild)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // as much as the kernel allows
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if at.Addr().Is4() {
		return unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
	}
	return unix.Bind(fd, &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()})
}

// checkFree refuses addresses that another program has: SO_REUSEPORT would share them.
func checkFree(listeners []Listener) error {
	var errs []error
	for i, l := range listeners {
		if !l.Address.IsValid() || l.Address.Port() == 0 || handover.Has("udp", l.Address.String()) ||
			slices.ContainsFunc(listeners[:i], func(x Listener) bool { return x.Address == l.Address }) {
			continue // Prepare says what is wrong
		}
		fd, err := openSocket(l.Address, false)
		if err != nil {
			errs = append(errs, fmt.Errorf("listen on %s/udp: %w%s", l.Address, err, forward.Cure(l.Address, err, "-lunp")))
			continue
		}
		unix.Close(int(fd))
	}
	return errors.Join(errs...)
}
