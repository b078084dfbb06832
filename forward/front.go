package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/internal/handover"
)

// Defaults of FrontOptions.
const (
	DefaultMaxConns = 16384
	DefaultDrain    = 10 * time.Second
)

const (
	// acceptBackoff is the longest pause after a failed accept (out of
	// descriptors, mostly).
	acceptBackoff = time.Second
	// farewell is how long a socket that is being given up still accepts what
	// has already connected, so that those clients are not reset.
	farewell = 20 * time.Millisecond
	// spareFor is how long a goroutine that has served a connection waits for another
	// one: a stack that has grown is worth keeping for a moment.
	spareFor = 2 * time.Second
)

// A Listen is an address and what a protocol needs to know to serve it.
type Listen[S any] struct {
	// Address to bind; port 0 takes a free one.
	Address  netip.AddrPort
	Settings S
}

// FrontOptions are what a Front needs.
type FrontOptions[S any] struct {
	Listeners []Listen[S]
	// Serve speaks the protocol on one connection and returns when done with it;
	// the Front closes it. ctx ends when draining has taken too long; what the
	// connection holds is aborted then. Required.
	Serve func(ctx context.Context, c *Conn[S])
	// MaxConns is how many connections are served at once; more are closed and
	// counted. 0 means what Intake says.
	MaxConns int
	// Intake bounds what all of this node's listeners take; nil = DefaultMaxConns.
	Intake *Intake
	// Drain is how long connections may take to end when Run stops; 0 means
	// DefaultDrain, negative means none.
	Drain time.Duration
	// Log takes transitions; nil = none.
	Log *slog.Logger
}

// A Front owns listening sockets and the connections accepted on them. Sockets
// and settings can be changed while it runs.
type Front[S any] struct {
	// Immutable.
	serve    func(ctx context.Context, c *Conn[S])
	maxConns int64 // 0 = what intake says
	intake   *Intake
	drain    time.Duration
	log      *slog.Logger

	spare   chan *Conn[S] // to goroutines that have served a connection and wait for another
	leaving chan struct{} // closed when Run begins to end

	draining atomic.Bool
	handed   atomic.Bool  // draining because another process has the sockets
	limit    atomic.Int64 // how long what is open may take, while draining
	active   atomic.Int64
	accepted atomic.Uint64
	refused  atomic.Uint64
	failures atomic.Uint64

	mu      sync.Mutex // guards the rest
	phase   phase
	pending bool // a Change is prepared
	sockets []*socket[S]
	conns   map[*Conn[S]]struct{}
	ctx     context.Context // of the connections, while running
	wg      sync.WaitGroup
}

type phase uint8

const (
	phaseNew phase = iota
	phaseRunning
	phaseEnded
)

// A socket is one listening socket.
type socket[S any] struct {
	asked    netip.AddrPort
	listener *net.TCPListener
	settings atomic.Pointer[S]
	removed  atomic.Bool
	begun    atomic.Uint64
}

// FrontStats is a Front at one moment.
type FrontStats struct {
	// Active is how many connections are being served.
	Active int64
	// Accepted, Refused (over MaxConns) and AcceptErrors count since New.
	Accepted, Refused, AcceptErrors uint64
}

// NewFront binds every address, or none and returns an error that names each
// that could not be bound.
func NewFront[S any](opts FrontOptions[S]) (*Front[S], error) {
	if opts.Serve == nil {
		return nil, errors.New("forward: FrontOptions.Serve is required")
	}
	if opts.MaxConns < 0 {
		return nil, fmt.Errorf("forward: MaxConns is %d, want 0 or more", opts.MaxConns)
	}
	f := &Front[S]{
		serve: opts.Serve, maxConns: int64(opts.MaxConns), intake: opts.Intake, drain: opts.Drain, log: opts.Log,
		conns: make(map[*Conn[S]]struct{}), spare: make(chan *Conn[S]), leaving: make(chan struct{}),
	}
	if f.intake == nil {
		f.intake = new(Intake)
		f.intake.Set(0, 0)
	}
	if f.drain == 0 {
		f.drain = DefaultDrain
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if err := checkFree(opts.Listeners); err != nil {
		return nil, err
	}
	change, err := f.Prepare(opts.Listeners)
	if err != nil {
		return nil, err
	}
	change.Commit()
	return f, nil
}

// checkFree refuses addresses that another program listens on, a second pharos
// too: with SO_REUSEPORT the two would share it without knowing, and each serve
// half. Reloads are not checked, since there one tier takes over from another.
func checkFree[S any](listeners []Listen[S]) error {
	var errs []error
	named := make(map[netip.AddrPort]bool, len(listeners))
	for _, l := range listeners {
		switch {
		case named[l.Address]:
			return nil // Prepare says so, which is more to the point
		case !l.Address.IsValid() || l.Address.Port() == 0 || handover.Has("tcp", l.Address.String()):
			continue
		}
		named[l.Address] = true
		s, err := net.Listen("tcp", listenText(l.Address))
		if err != nil {
			errs = append(errs, fmt.Errorf("listen on %s: %w%s", l.Address, err, Cure(l.Address, err, "-ltnp")))
			continue
		}
		s.Close()
	}
	return errors.Join(errs...)
}

// listenText is what package net calls an address to listen on.
func listenText(address netip.AddrPort) string {
	if address.Addr() == netip.IPv6Unspecified() {
		return fmt.Sprintf(":%d", address.Port()) // both families, or IPv4 alone where there is no IPv6
	}
	return address.String()
}

// bind opens a listening socket that may share its address (SO_REUSEPORT), so
// that over a reload one tier can take over from another without a gap.
func bind[S any](address netip.AddrPort) (*socket[S], error) {
	if l, err := handover.Listener("tcp", address.String()); l != nil && err == nil {
		return &socket[S]{asked: address, listener: l.(*net.TCPListener)}, nil
	} else if err != nil {
		return nil, fmt.Errorf("listen on %s: take the socket over: %w", address, err)
	}
	config := net.ListenConfig{
		Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			if e := c.Control(func(fd uintptr) { err = prepare(int(fd)) }); e != nil {
				return e
			}
			return err
		},
		KeepAlive: -1, // set on the listening socket once; package net would set it on each connection
	}
	config.SetMultipathTCP(false) // splice and socket options need plain TCP
	l, err := config.Listen(context.Background(), "tcp", listenText(address))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w%s", address, err, Cure(address, err, "-ltnp"))
	}
	return &socket[S]{asked: address, listener: l.(*net.TCPListener)}, nil
}

// prepare sets what accepted connections take over from their listening socket.
func prepare(fd int) error {
	const probeEvery, probes = 15, 9 // seconds; what package net sets
	// A connection is accepted with its first bytes, since clients speak first here, or about a second later
	// without any: a goroutine that is started before would find nothing and have to be woken again.
	const deferAccept = 1
	for _, o := range [...]struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, probeEvery},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, probeEvery},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, probes},
		{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, deferAccept},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// Cure says what to do about an address that cannot be listened on; "" if
// nobody knows. flags are those by which ss lists who does.
func Cure(address netip.AddrPort, err error, flags string) string {
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		bits := address.Addr().BitLen()
		return fmt.Sprintf(" (no interface here has it: ip address add %s/%d dev lo)", address.Addr(), bits)
	case errors.Is(err, syscall.EADDRINUSE):
		return " (another program listens there: ss " + flags + " names it)"
	case errors.Is(err, syscall.EACCES):
		return " (ports below 1024 need root or CAP_NET_BIND_SERVICE)"
	}
	return ""
}

func (s *socket[S]) addr() netip.AddrPort {
	return s.listener.Addr().(*net.TCPAddr).AddrPort()
}

// Addrs returns the bound addresses in the order of the listeners.
func (f *Front[S]) Addrs() []netip.AddrPort {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]netip.AddrPort, len(f.sockets))
	for i, s := range f.sockets {
		out[i] = s.addr()
	}
	return out
}

// Stats returns the counters.
func (f *Front[S]) Stats() FrontStats {
	return FrontStats{
		Active: f.active.Load(), Accepted: f.accepted.Load(),
		Refused: f.refused.Load(), AcceptErrors: f.failures.Load(),
	}
}

// Run accepts and serves until ctx ends, then stops accepting, lets connections
// end for the time of Drain, and closes those that are left. It returns nil
// after that, with every goroutine joined. It can be called once.
func (f *Front[S]) Run(ctx context.Context) error {
	connCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	f.mu.Lock()
	if f.phase != phaseNew {
		f.mu.Unlock()
		return errors.New("forward: Run called twice, or after Close")
	}
	f.phase, f.ctx = phaseRunning, connCtx
	for _, s := range f.sockets {
		f.startLocked(s)
	}
	f.mu.Unlock()

	<-ctx.Done()
	limit, handed := Drain(ctx, f.drain)
	f.limit.Store(int64(limit))
	f.draining.Store(true)
	close(f.leaving)
	f.handed.Store(handed)
	f.mu.Lock()
	f.phase = phaseEnded // no Commit starts anything from here on
	for _, s := range f.sockets {
		s.stop()
	}
	f.sockets = nil
	for c := range f.conns {
		if !handed {
			c.wake()
		}
	}
	f.mu.Unlock()
	f.join(cancel, limit)
	return nil
}

// join waits for the connections, and after Drain ends them.
func (f *Front[S]) join(cancel context.CancelFunc, limit time.Duration) {
	done := make(chan struct{})
	go func() {
		f.wg.Wait()
		close(done)
	}()
	timer := time.NewTimer(max(limit, 0))
	defer timer.Stop()
	select {
	case <-done:
		return
	case <-timer.C:
	}
	cancel()
	f.mu.Lock()
	cut := len(f.conns)
	for c := range f.conns {
		c.abort()
	}
	f.mu.Unlock()
	if cut > 0 {
		f.log.Warn("connections cut at the end of draining", "connections", cut, "after", limit)
	}
	<-done
}

// Close frees the sockets when Run was never called; otherwise Run does that.
func (f *Front[S]) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.phase != phaseNew {
		return nil
	}
	f.phase = phaseEnded
	for _, s := range f.sockets {
		_ = s.listener.Close()
	}
	f.sockets = nil
	return nil
}

func (f *Front[S]) startLocked(s *socket[S]) {
	f.wg.Go(func() { f.accept(f.ctx, s) })
}

// stop makes the accept loop end after it has taken what has already connected.
func (s *socket[S]) stop() {
	s.removed.Store(true)
	_ = s.listener.SetDeadline(time.Now().Add(farewell))
}

// accept is one listening socket's loop.
func (f *Front[S]) accept(ctx context.Context, s *socket[S]) {
	defer func() { _ = s.listener.Close() }()
	backoff := time.Millisecond
	room := false
	look := func(fd uintptr) { room = f.intake.Room(int(fd)) }
	for {
		conn, err := s.listener.AcceptTCP()
		if err == nil {
			backoff = time.Millisecond
			stream := NewStream(conn)
			if room = true; stream.raw != nil {
				_ = stream.raw.Control(look)
			}
			f.admit(ctx, s, stream, room)
			continue
		}
		if s.removed.Load() || errors.Is(err, net.ErrClosed) {
			return
		}
		f.failures.Add(1)
		f.log.Warn("accept failed", "listener", s.asked, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, acceptBackoff)
	}
}

// admit serves a connection on a goroutine of its own unless there are too many, or no room for its descriptor.
func (f *Front[S]) admit(ctx context.Context, s *socket[S], stream *Stream, room bool) {
	most := f.maxConns
	if most == 0 {
		most = f.intake.Connections()
	}
	if f.active.Add(1) > most || !room || !f.intake.Take() {
		f.active.Add(-1)
		f.refused.Add(1)
		stream.Abort() // no lingering state for what we refuse
		return
	}
	id := f.accepted.Add(1)
	s.begun.Add(1)
	c := &Conn[S]{Stream: stream, ID: id, front: f, socket: s}
	f.mu.Lock()
	f.conns[c] = struct{}{}
	if ctx.Err() != nil { // accepted in the farewell, after join has cut the rest
		c.abort()
	}
	f.mu.Unlock()
	select {
	case f.spare <- c:
	default:
		f.wg.Go(func() { f.work(ctx, c) })
	}
}

// work serves connections until there has been none for a while.
func (f *Front[S]) work(ctx context.Context, c *Conn[S]) {
	timer := time.NewTimer(spareFor)
	defer timer.Stop()
	for {
		f.serveOne(ctx, c)
		timer.Reset(spareFor)
		select {
		case c = <-f.spare:
		case <-timer.C:
			return
		case <-f.leaving:
			return
		}
	}
}

func (f *Front[S]) serveOne(ctx context.Context, c *Conn[S]) {
	defer func() {
		_ = c.Stream.Close()
		f.mu.Lock()
		delete(f.conns, c)
		f.mu.Unlock()
		f.active.Add(-1)
	}()
	f.serve(ctx, c)
}
