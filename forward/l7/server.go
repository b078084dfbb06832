package l7

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/cert"
	"github.com/pharos-lb/pharos/forward/l7/route"
	"github.com/prometheus/client_golang/prometheus"
)

// Defaults of Options and Listener.
const (
	DefaultIdle            = 75 * time.Second
	DefaultConnect         = 2 * time.Second
	DefaultHeaderTimeout   = 10 * time.Second
	DefaultBodyTimeout     = 30 * time.Second
	DefaultResponseTimeout = 60 * time.Second
	DefaultTunnelIdle      = time.Hour
	DefaultServerName      = "pharos"
)

const (
	// sweepEvery is how often idle upstream connections are looked through, and
	// meterSweeps after how many times the meters of backends are.
	sweepEvery  = time.Second
	meterSweeps = 60
)

// A Listener takes HTTP connections.
type Listener struct {
	// Address to bind; port 0 takes a free one.
	Address netip.AddrPort
	// Routes in any order; the most specific host, then the longest path, wins.
	Routes []Route
	// Idle is how long a connection may wait for its next request; 0 means
	// DefaultIdle.
	Idle time.Duration
	// TLS terminates TLS; nil = plain text.
	TLS *TLS
	// Origin says who is believed about where requests come from.
	Origin Origin
	// Pages are shown instead of errors of our own.
	Pages []Page
	// HTTP3 speaks HTTP/3 too, on the UDP port of the same number, and says so in answers over TCP. It needs TLS.
	HTTP3 bool
	// Transports are those of the services that Routes name: the files that they need are read.
	Transports []forward.Transport
	// Limits bound what is taken, Times how long it may take.
	Limits Limits
	Times  Times
	// Overflow: what a service's own pool has nobody for goes to the port of this listener at other sites' VIPs, where the plan names
	// some. Not with TLS.Clients: the other site would have nobody's certificate to look at.
	Overflow bool
	// AcceptProxy are sources whose connections begin with a PROXY header, version 1 or 2.
	AcceptProxy []netip.Prefix
	// AccessLog is where requests are written down; nil = nowhere.
	AccessLog *AccessLog
}

// An Extra is what a Route of a Listener has besides, as its Extra.
type Extra struct {
	// Pages go before those of the listener.
	Pages []Page
	// Limits bound what the route takes.
	Limits RouteLimits
}

// Options are what a Server needs.
type Options struct {
	Listeners []Listener
	// Registry gives backends. Required.
	Registry *forward.Registry
	// MaxConns is how many client connections are served at once, over all
	// listeners, over TCP and over QUIC each; 0 means what Registry.Intake says.
	MaxConns int
	// Drain is how long requests and upgraded connections may take to end after
	// Run's context ends; 0 means forward.DefaultDrain, negative means none.
	Drain time.Duration
	// ServerName is the Server field of the replies that do not come from a
	// backend; "" means DefaultServerName.
	ServerName string

	// Connect bounds one attempt to reach a backend; 0 means DefaultConnect.
	Connect time.Duration
	// HeaderTimeout bounds the arrival of a request head from its first byte; 0
	// means DefaultHeaderTimeout.
	HeaderTimeout time.Duration
	// BodyTimeout bounds the silence of a client in a body; 0 means
	// DefaultBodyTimeout.
	BodyTimeout time.Duration
	// ResponseTimeout bounds the silence of a backend, and how long a client may
	// not take what is sent to it; 0 means DefaultResponseTimeout.
	ResponseTimeout time.Duration
	// TunnelIdle bounds the silence of both sides after an upgrade; 0 means
	// DefaultTunnelIdle.
	TunnelIdle time.Duration

	// Log takes transitions; nil = none.
	Log *slog.Logger
	// Registerer takes the metrics; nil = none.
	Registerer prometheus.Registerer

	// peerSilence is that of tests; 0 means the constant.
	peerSilence time.Duration
}

// An engine speaks one protocol on an accepted connection until it ends.
type engine func(ctx context.Context, c *forward.Conn[settings])

// settings are what a listener is set to.
type settings struct {
	engine       engine
	routes       *route.Table
	extras       []extra // by the index of the route
	idle         time.Duration
	tls          *terminator // nil = plain text
	altSvc       []byte      // says where HTTP/3 is spoken; nil if it is not
	origin       Origin
	requestIDLow string // Origin.RequestID in lower case
	pages        pages
	gate         *gate
	times        Times
	acceptProxy  []netip.Prefix
	overflow     uint16 // the port of other sites' VIPs; 0 = none
	elsewhere    forward.Elsewhere
	log          *accessLog // nil = none
	name         string     // in the access log
}

// An extra is an Extra that has been made ready.
type extra struct {
	pages  pages
	limits RouteLimits
	meter  *meter
	title  string
}

// A Server forwards HTTP requests.
type Server struct {
	// Immutable.
	opts     Options // with the defaults filled in
	registry *forward.Registry
	front    *forward.Front[settings]
	metrics  *metrics
	stapler  *cert.Stapler
	carrier  *carrier
	fronts3  *fronts3
	secret   [32]byte // for tickets of listeners that share theirs with nobody

	terminators atomic.Pointer[[]*terminator] // in force

	listens atomic.Pointer[[]forward.Listen[settings]] // in force
	meters  meters
	gates   gates
	logs    logs

	streams  chan job // to goroutines that have handled a stream and wait for another
	handlers sync.WaitGroup
	ended    chan struct{} // closed when Run ends
}

// New validates opts and binds every address. It starts nothing.
func New(opts Options) (*Server, error) {
	if opts.Registry == nil {
		return nil, errors.New("l7: Options.Registry is required")
	}
	for _, d := range []time.Duration{
		opts.Connect, opts.HeaderTimeout, opts.BodyTimeout, opts.ResponseTimeout, opts.TunnelIdle,
	} {
		if d < 0 {
			return nil, errors.New("l7: durations must not be negative")
		}
	}
	if !isValue([]byte(opts.ServerName)) {
		return nil, errors.New("l7: Options.ServerName has control characters")
	}
	opts.ServerName = cmp.Or(opts.ServerName, DefaultServerName)
	opts.Connect = cmp.Or(opts.Connect, DefaultConnect)
	opts.HeaderTimeout = cmp.Or(opts.HeaderTimeout, DefaultHeaderTimeout)
	opts.BodyTimeout = cmp.Or(opts.BodyTimeout, DefaultBodyTimeout)
	opts.ResponseTimeout = cmp.Or(opts.ResponseTimeout, DefaultResponseTimeout)
	opts.TunnelIdle = cmp.Or(opts.TunnelIdle, DefaultTunnelIdle)
	opts.peerSilence = cmp.Or(opts.peerSilence, peerSilence)
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		opts: opts, registry: opts.Registry, stapler: cert.NewStapler(), secret: newSecret(),
		streams: make(chan job), ended: make(chan struct{}), logs: logs{log: opts.Log},
	}
	s.carrier, s.fronts3 = newCarrier(s), &fronts3{server: s, groups: newQUICGroups()}
	listens, terminators, files, err := s.settle(opts.Listeners)
	if err != nil {
		return nil, err
	}
	s.carrier.files.Store(&files)
	s.metrics = newMetrics(s)
	quic, err := s.fronts3.prepare(opts.Listeners, listens)
	if err != nil {
		return nil, fmt.Errorf("l7: %w", err)
	}
	s.front, err = forward.NewFront(forward.FrontOptions[settings]{
		Listeners: listens, MaxConns: opts.MaxConns, Intake: opts.Registry.Intake(), Drain: opts.Drain, Log: opts.Log,
		Serve: s.serve,
	})
	if err != nil {
		quic.discard()
		return nil, fmt.Errorf("l7: %w", err)
	}
	quic.commit()
	s.terminators.Store(&terminators)
	s.listens.Store(&listens)
	s.gates.keep(listens)
	if opts.Registerer != nil {
		if err := opts.Registerer.Register(s.metrics); err != nil {
			_ = s.Close()
			return nil, fmt.Errorf("register l7 metrics: %w", err)
		}
	}
	return s, nil
}

// settle checks listeners, compiles their routes and reads their certificates and what their backends' need.
func (s *Server) settle(listeners []Listener) ([]forward.Listen[settings], []*terminator, fileSet, error) {
	var errs []error
	var terminators []*terminator
	out := make([]forward.Listen[settings], len(listeners))
	for i, l := range listeners {
		set, err := s.settleOne(&l)
		if err != nil {
			errs = append(errs, fmt.Errorf("l7: listener %s: %w", l.Address, err))
		}
		if l.TLS != nil {
			set.engine = s.serveTLS
			if set.tls, err = s.newTerminator(l.Address.String(), *l.TLS); err != nil {
				errs = append(errs, fmt.Errorf("l7: listener %s: tls: %w", l.Address, err))
			}
			terminators = append(terminators, set.tls)
		}
		if l.Overflow && (l.TLS == nil || l.TLS.Clients == nil) {
			set.overflow, set.elsewhere = l.Address.Port(), elsewhere(&l, set.tls)
		}
		out[i] = forward.Listen[settings]{Address: l.Address, Settings: set}
	}
	files, err := s.carrier.read(listeners)
	return out, terminators, files, errors.Join(append(errs, err)...)
}

// settleOne makes the settings of one listener, but for TLS.
func (s *Server) settleOne(l *Listener) (settings, error) {
	set := settings{
		engine: s.serveHTTP1, idle: cmp.Or(l.Idle, DefaultIdle), origin: l.Origin,
		acceptProxy: l.AcceptProxy, name: l.Address.String(), times: l.Times,
	}
	var errs []error
	var err error
	if set.routes, err = route.New(l.Routes); err != nil {
		errs = append(errs, err)
	}
	if l.Idle < 0 {
		errs = append(errs, errors.New("durations must not be negative"))
	}
	set.origin.XForwarded = cmp.Or(l.Origin.XForwarded, ModeAppend)
	set.origin.Forwarded = cmp.Or(l.Origin.Forwarded, ModeNone)
	if id := l.Origin.RequestID; id != "" {
		set.requestIDLow = strings.ToLower(id)
		if !isToken([]byte(id)) || route.Owned(id) {
			errs = append(errs, fmt.Errorf("request id: %q is no header of its own", id))
		}
	}
	if set.pages, err = readPages(l.Pages); err != nil {
		errs = append(errs, err)
	}
	if err := set.times.settle(&s.opts); err != nil {
		errs = append(errs, err)
	}
	limits := l.Limits
	if err := limits.check(); err != nil {
		errs = append(errs, err)
	}
	set.gate = s.gates.get(l.Address, limits)
	if set.log, err = s.logs.get(l.AccessLog); err != nil {
		errs = append(errs, err)
	}
	set.extras = make([]extra, len(l.Routes))
	for _, rule := range set.routes.Rules() {
		title := rule.Title()
		set.extras[rule.Index].title, set.extras[rule.Index].meter = title, s.meters.route(title)
	}
	for i := range l.Routes {
		x, _ := l.Routes[i].Extra.(*Extra)
		if x == nil {
			continue
		}
		set.extras[i].limits = x.Limits
		if x.Limits.Requests < 0 || x.Limits.Body < 0 {
			errs = append(errs, fmt.Errorf("route %d: limits must not be negative", i+1))
		}
		if set.extras[i].pages, err = readPages(x.Pages); err != nil {
			errs = append(errs, fmt.Errorf("route %d: %w", i+1, err))
		}
	}
	return set, errors.Join(errs...)
}

// serve takes a connection in and speaks its listener's protocol on it.
func (s *Server) serve(ctx context.Context, c *forward.Conn[settings]) {
	set := c.Settings()
	if len(set.acceptProxy) > 0 && trusts(set.acceptProxy, addrPort(c.Stream.RemoteAddr()).Addr()) && !s.readProxy(c) {
		return
	}
	if set.gate.connections != nil && (c.Source.IsValid() || !s.registry.Load().Fleet(addrPort(c.Stream.RemoteAddr()).Addr())) {
		who := c.Source.Addr()
		if !who.IsValid() {
			who = addrPort(c.Stream.RemoteAddr()).Addr()
		}
		leave, ok := s.admitConn(c, who)
		if !ok {
			c.Stream.Abort()
			return
		}
		defer leave()
	}
	set.engine(ctx, c)
}

// Run accepts and forwards until ctx ends, drains, and returns with every
// goroutine joined. It can be called once.
func (s *Server) Run(ctx context.Context) error {
	tending, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	for _, tend := range []func(context.Context){s.sweep, s.tendCertificates, s.fetchStaples, s.warm} {
		wg.Go(func() { tend(tending) })
	}
	written := s.logs.start()
	var quic sync.WaitGroup
	quic.Go(func() { s.fronts3.run(ctx) })
	err := s.front.Run(ctx)
	quic.Wait()
	stop()
	close(s.ended)
	s.handlers.Wait()
	wg.Wait()
	s.carrier.close()
	written()
	return err
}

// sweep closes what has been idle for too long.
func (s *Server) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for ticks := 0; ; {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			s.registry.Sweep(now)
			s.carrier.sweep(now)
			s.fronts3.tend(now)
			if ticks++; ticks%meterSweeps == 0 {
				s.meters.sweep()
			}
		}
	}
}

// Close frees the sockets of a Server that was never run.
func (s *Server) Close() error {
	s.logs.closeIdle()
	s.fronts3.close()
	return s.front.Close()
}

// maxConns is how many client connections there may be, over TCP and over QUIC each.
func (s *Server) maxConns() int64 {
	return cmp.Or(int64(s.opts.MaxConns), s.registry.Intake().Connections())
}

// drain is how long what is open may take to end.
func (s *Server) drain() time.Duration { return max(cmp.Or(s.opts.Drain, forward.DefaultDrain), 0) }

// Lend says that another process is about to take over, on this one's sockets. It may still end before it has:
// then TakeBack.
func (s *Server) Lend() { s.fronts3.groups.lend() }

// TakeBack says that the process that was to take over has ended. New connections of QUIC, which it has had sent to
// itself, come here again.
func (s *Server) TakeBack() { s.fronts3.takeBack() }

// Addrs3 returns the UDP addresses at which HTTP/3 is spoken, in the order of the listeners that do.
func (s *Server) Addrs3() []netip.AddrPort { return s.fronts3.addrs() }

// Addrs returns the bound addresses in the order of the listeners.
func (s *Server) Addrs() []netip.AddrPort { return s.front.Addrs() }

// Traffic returns what arrives at each address that is listened on. HTTP/2 streams are not told apart.
func (s *Server) Traffic() []forward.Traffic { return s.front.Traffic() }

// Stats returns the counters.
func (s *Server) Stats() Stats { return s.metrics.stats() }

// A Change is a new set of listeners with everything fallible already done.
// Addresses in both sets keep their sockets, and the next request on any open
// connection sees the new routes. Connections of removed listeners end after
// their current request.
type Change struct {
	server      *Server
	listens     []forward.Listen[settings]
	front       *forward.Change[settings]
	terminators []*terminator
	files, old  *fileSet
	quic        *change3
}

// Prepare compiles the routes of listeners, reads their certificates and binds the
// addresses that are new. The Server goes on unchanged until Commit.
func (s *Server) Prepare(listeners []Listener) (_ *Change, err error) {
	listens, terminators, files, err := s.settle(listeners)
	defer func() {
		if err != nil {
			s.logs.keep(*s.listens.Load()) // those that were opened for nothing are closed
		}
	}()
	if err != nil {
		return nil, err
	}
	quic, err := s.fronts3.prepare(listeners, listens)
	if err != nil {
		return nil, fmt.Errorf("l7: %w", err)
	}
	change, err := s.front.Prepare(listens)
	if err != nil {
		quic.discard()
		return nil, fmt.Errorf("l7: %w", err)
	}
	// A plan that needs them may come before Commit.
	old := s.carrier.files.Load()
	s.carrier.files.Store(old.and(files))
	return &Change{s, listens, change, terminators, &files, old, quic}, nil
}

// Commit puts the change into effect. It cannot fail.
func (c *Change) Commit() {
	c.server.terminators.Store(&c.terminators)
	c.server.carrier.files.Store(c.files)
	c.quic.commit()
	c.front.Commit()
	c.server.listens.Store(&c.listens)
	c.server.gates.keep(c.listens)
	c.server.meters.keepRoutes(c.listens)
	c.server.logs.keep(c.listens)
	c.server.logs.reopen()
}

// Discard frees what Prepare opened.
func (c *Change) Discard() {
	c.server.carrier.files.Store(c.old)
	c.quic.discard()
	c.front.Discard()
	c.server.logs.keep(*c.server.listens.Load())
}
