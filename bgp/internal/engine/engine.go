package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/server"
)

// Options says what the server is. ASN and RouterID are required.
type Options struct {
	ASN      uint32
	RouterID netip.Addr   // IPv4
	Listen   []netip.Addr // nothing else is bound; empty = no listener
	Port     int          // 1 … 65535; anything else = no listener

	// Socket is a unix socket for the gobgp command line; empty = none.
	Socket string

	// Receive keeps what neighbors send and exports nothing; otherwise
	// nothing is kept and only local paths are exported.
	Receive bool

	// Log gets session changes; nil discards them.
	Log *slog.Logger

	// Fatal is called with GoBGP's message when it says that it cannot go
	// on; nil only logs. It must not call the Engine.
	Fatal func(message string)
}

// An Engine is one running BGP server. All methods may be called at the same time by several goroutines.
type Engine struct {
	// Immutable.
	opts    Options
	server  *server.BgpServer
	journal *journal
	cancel  context.CancelFunc // ends the event watch
	changed chan struct{}      // capacity 1: for the owner
	stirred chan struct{}      // capacity 1: for Run

	planning sync.Mutex // guards plans, tags and lastTag
	plans    map[string]*plan
	tags     map[uint32]*plan // the same plans
	lastTag  uint32

	mu    sync.Mutex // guards the rest
	peers map[netip.Addr]*peer

	halls  map[netip.Prefix]*hall
	guests map[netip.Addr]*peer // who came from a range, as long as GoBGP has them
	barred map[netip.Addr]bool
}

// unicast are the two address families spoken.
func unicast() []*api.Family {
	return []*api.Family{
		{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST},
		{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST},
	}
}

// Start binds the listeners and starts the server. An error leaves no socket behind, but GoBGP's idle goroutine.
func Start(opts Options) (*Engine, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		opts:    opts,
		journal: newJournal(opts.Log, opts.Fatal),
		changed: make(chan struct{}, 1),
		stirred: make(chan struct{}, 1),
		plans:   map[string]*plan{},
		tags:    map[uint32]*plan{},
		peers:   map[netip.Addr]*peer{},
		halls:   map[netip.Prefix]*hall{},
		guests:  map[netip.Addr]*peer{},
		barred:  map[netip.Addr]bool{},
	}
	options, err := socketOptions(opts.Socket)
	if err != nil {
		return nil, err
	}
	e.server = server.NewBgpServer(append(options, server.LoggerOption(e.journal))...)
	go e.server.Serve()

	global := &api.Global{
		Asn:        opts.ASN,
		RouterId:   opts.RouterID.String(),
		ListenPort: -1,
		// Left empty this would mean every address family that GoBGP knows.
		Families: []uint32{0, 1},
	}
	if opts.Port > 0 && opts.Port < 1<<16 && len(opts.Listen) > 0 {
		global.ListenPort = int32(opts.Port)
		for _, a := range opts.Listen {
			global.ListenAddresses = append(global.ListenAddresses, a.String())
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	if err := errors.Join(awaitSocket(opts.Socket), e.start(ctx, global)); err != nil {
		cancel()
		_ = e.server.StopBgp(context.Background(), &api.StopBgpRequest{})
		return nil, err
	}
	return e, nil
}

func (e *Engine) start(ctx context.Context, global *api.Global) error {
	if err := e.server.StartBgp(ctx, &api.StartBgpRequest{Global: global}); err != nil {
		return fmt.Errorf("start BGP: %w", err)
	}
	// Policies are in force before the first neighbor exists.
	if err := e.setPolicies(ctx); err != nil {
		return err
	}
	watch := &api.WatchEventRequest{Peer: &api.WatchEventRequest_Peer{}}
	if e.opts.Receive {
		watch.Table = &api.WatchEventRequest_Table{Filters: []*api.WatchEventRequest_Table_Filter{
			{Type: api.WatchEventRequest_Table_Filter_BEST},
			{Type: api.WatchEventRequest_Table_Filter_ADJIN},
		}}
	}
	err := e.server.WatchEvent(ctx, watch, func(*api.WatchEventResponse) {
		signal(e.stirred)
		signal(e.changed)
	})
	if err != nil {
		return fmt.Errorf("watch BGP events: %w", err)
	}
	return nil
}

// Names of GoBGP's policies.
const (
	importName = "local-only"
	exportName = "exports"
)

// importPolicy accepts local paths: the global import policy judges them, too.
func importPolicy() *api.Policy {
	return &api.Policy{Name: importName, Statements: []*api.Statement{{
		Name:       "local",
		Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		Actions:    &api.Actions{RouteAction: api.RouteAction_ACCEPT},
	}}}
}

// setPolicies makes the two directions explicit: a sender accepts local paths only and exports what a plan says; a
// receiver accepts everything and exports nothing.
func (e *Engine) setPolicies(ctx context.Context) error {
	imports := &api.PolicyAssignment{
		Name: "global", Direction: api.PolicyDirection_IMPORT,
		Policies: []*api.Policy{importPolicy()}, DefaultAction: api.RouteAction_REJECT,
	}
	exports := &api.PolicyAssignment{
		Name: "global", Direction: api.PolicyDirection_EXPORT,
		Policies: []*api.Policy{{Name: exportName}}, DefaultAction: api.RouteAction_REJECT,
	}
	for _, p := range []*api.Policy{importPolicy(), {Name: exportName}} {
		if err := e.server.AddPolicy(ctx, &api.AddPolicyRequest{Policy: p}); err != nil {
			return fmt.Errorf("add policy: %w", err)
		}
	}
	if e.opts.Receive {
		imports.DefaultAction = api.RouteAction_ACCEPT
	}
	for _, a := range []*api.PolicyAssignment{imports, exports} {
		if err := e.server.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: a}); err != nil {
			return fmt.Errorf("set %v policy: %w", a.Direction, err)
		}
	}
	return nil
}

// Changed receives (capacity 1) after a session or, for a receiver, the table changed.
func (e *Engine) Changed() <-chan struct{} { return e.changed }

// Run dials neighbors again whose session was lost, until ctx ends. It does not stop the server.
func (e *Engine) Run(ctx context.Context) {
	timer := time.NewTimer(redialLook)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.stirred:
		case <-timer.C:
		}
		timer.Reset(e.redial(time.Now()))
	}
}

// Sessions returns every neighbor's session, sorted by address, those from a Range among them.
func (e *Engine) Sessions() []Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refresh(time.Now(), true)
	out := make([]Session, 0, len(e.peers))
	for _, list := range []map[netip.Addr]*peer{e.peers, e.guests} {
		for _, p := range list {
			s := p.session
			if s.State != "established" {
				s.LastError = e.journal.lastError(s.Address)
			}
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b Session) int { return a.Address.Compare(b.Address) })
	return out
}

// ErrSlowStop is returned by Stop when the server did not end in time. The sessions then end with the process.
var ErrSlowStop = errors.New("BGP server did not stop in time")

// Stop sends Cease to every neighbor and closes all sockets, waiting at most timeout. It may be called once.
func (e *Engine) Stop(timeout time.Duration) error {
	e.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.deleteAll()
		// StopBgp clears what sessions still read: let them end first.
		e.journal.awaitFreed(ctx)
		_ = e.server.StopBgp(context.Background(), &api.StopBgpRequest{})
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ErrSlowStop
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func comparePaths(a, b Path) int {
	return cmp.Or(a.Prefix.Compare(b.Prefix), a.From.Compare(b.From))
}
