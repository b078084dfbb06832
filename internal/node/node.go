package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/bgp"
	"github.com/pharos-lb/pharos/cluster"
	"github.com/pharos-lb/pharos/dnslb"
	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l4"
	"github.com/pharos-lb/pharos/forward/l4/udp"
	"github.com/pharos-lb/pharos/forward/l7"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/handover"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/health/probe"
	"github.com/pharos-lb/pharos/internal/steer"
)

// Options are what the command line gives a node.
type Options struct {
	// ConfigFile is the YAML file.
	ConfigFile string
	// Name is this node's name; "" = the host's name.
	Name string
	// StateDir keeps the epoch and the last known good verdicts; default /var/lib/pharos.
	StateDir string
	// Socket overrides admin.socket.
	Socket string
	// Version is shown in status and told to the other nodes.
	Version string
	// Speaker is the command line of the BGP child; default this binary's hidden verb.
	Speaker []string
	// Compiler is the command line of the process that compiles large zones; likewise.
	Compiler []string
	// Binary and Arguments are how this process was started, for an upgrade to start the next.
	Binary    string
	Arguments []string
	// Takeover is the connection to the process that this one replaces; nil = none.
	Takeover *handover.Conn
	// Log takes transitions at Info and events at Debug.
	Log *slog.Logger
}

// Defaults of Options.
const (
	DefaultStateDir = "/var/lib/pharos"
	SpeakerVerb     = "bgp-speaker"   // hidden verb of the binary that runs the BGP child
	KeeperVerb      = "check-keeper"  // hidden verb of the binary that runs the commands of checks
	CompilerVerb    = "zone-compiler" // hidden verb of the binary that compiles large zones
)

// How long each step of a stop may take.
const (
	stopStep  = 3 * time.Second
	drainTime = 10 * time.Second
	// convergence is how long a node serves on after it withdrew its routes.
	convergence = time.Second
)

// A Node is one running pharos.
type Node struct {
	opts     Options
	log      *slog.Logger
	started  time.Time
	registry *prometheus.Registry
	counters *counters      // what is scraped of registry
	heir     *handover.Conn // to the process that has replaced this one; set before handedOver is closed
	metrics  *metrics
	board    steer.Board
	setup    atomic.Pointer[Setup]
	phase    atomic.Value // string: "starting", "serving", "stopping"

	state    *stateDir
	epoch    uint64
	decider  *decider
	runner   *probe.Runner
	gossip   *cluster.Node
	canaries *probe.Canaries // nil without any
	admin    *admin.Server
	backends *forward.Registry
	vips     *vips         // nil: the VIPs are on the node already
	doors    *probe.Runner // asks this node itself for what its prefixes require

	parts *parts // set by Run

	absent []netip.Addr // owned by the decider: VIPs with doors that are not on this machine

	handed map[health.Target]ownState // by the process that this one replaced

	handedOver chan struct{}            // closed when another process has taken over
	drainLimit atomic.Int64             // how long what is open may take then
	outlooks   atomic.Pointer[outlooks] // what others see of our prefixes; nil before anybody was asked

	stopping  chan struct{} // closed when the stop begins
	reloading sync.Mutex    // held for one reload at a time, and by the stop

	// mu guards what opens late or changes with a reload.
	mu        sync.Mutex
	dns       *dnslb.Server
	l4        *l4.Server
	udp       *udp.Server
	l7        *l7.Server
	speaker   *bgp.Speaker
	leash     *bgp.Leash // the child of the process that this one replaced, until it is adopted
	lastTry   time.Time
	lastError error // of the newest reload of the configuration
	geoError  error // of the newest replacement of a geo database
	// ordersError is why the file of overrides was refused, nil if it was not.
	ordersError error
}

// New loads the configuration and binds what must not wait (the state folder,
// the admin socket, the gossip port). Every error says what to do.
func New(opts Options) (*Node, error) {
	if opts.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("find this host's name (give it with --node): %w", err)
		}
		opts.Name = host
	}
	if opts.StateDir == "" {
		opts.StateDir = DefaultStateDir
	}
	n := &Node{opts: opts, log: opts.Log, started: time.Now(), stopping: make(chan struct{}), handedOver: make(chan struct{}), registry: prometheus.NewRegistry()}
	n.phase.Store("starting")
	n.counters = &counters{registry: n.registry, ended: make(chan struct{})}
	n.metrics = newMetrics(n.registry, opts.Version)
	setup, err := loadBy(opts.ConfigFile, opts.Name, n.compileZones)
	if err != nil {
		return nil, err
	}
	n.setLoaded(setup)
	n.metrics.reloadOK.Set(1)
	if err := n.build(setup); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// build makes the parts that run from the first moment on.
func (n *Node) build(setup *Setup) (err error) {
	var lock *os.File
	if n.opts.Takeover != nil {
		if lock, err = n.receiveOffer(); err != nil {
			return err
		}
	}
	if n.state, err = openState(n.opts.StateDir, lock, n.log); err != nil {
		return err
	}
	watchState(n.registry, n.state)
	n.epoch = n.state.nextEpoch(n.started)
	if n.opts.Takeover != nil {
		n.state.freeze() // it is the old one's to write, until the release
	}
	n.decider = newDecider(setup, n.state, n.epoch, n.log, &n.board, n.metrics)
	n.decider.handed = n.handed
	if n.runner, err = probe.New(n.probeOptions(setup)); err != nil {
		return err
	}
	gossip, err := n.clusterOptions(setup)
	if err != nil {
		return err
	}
	if n.gossip, err = cluster.New(gossip); err != nil {
		return err
	}
	if err := n.setCanaries(setup); err != nil {
		return err
	}
	n.decider.prober, n.decider.gossip = n.runner, n.gossip
	n.decider.doubts = func() doubt { return doubtOf(n.runner, n.canaries) }
	if n.backends, err = forward.New(n.forwardOptions(setup)); err != nil {
		return err
	}
	n.setIntake(setup)
	if n.vips, err = n.newVIPs(setup); err != nil {
		return err
	}
	if n.doors, err = n.newDoors(setup); err != nil {
		return fmt.Errorf("bgp.prefixes: %w", err)
	}
	socket := n.opts.Socket
	if socket == "" {
		socket = setup.Config.Admin.Socket
		if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
			return fmt.Errorf("admin socket: %w (name a writable place with --socket or admin.socket)", err)
		}
	}
	n.admin, err = admin.New(n.adminOptions(setup, socket))
	return err
}

// Close frees what New acquired. Run does it too; a second call does nothing.
func (n *Node) Close() error {
	var errs []error
	if n.admin != nil {
		errs = append(errs, n.admin.Close())
	}
	if n.backends != nil {
		errs = append(errs, n.backends.Close())
	}
	errs = append(errs, n.vips.close())
	if n.gossip != nil {
		errs = append(errs, n.gossip.Close())
	}
	if n.state != nil {
		n.state.close()
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends, then stops in the safe order. It returns early
// with an error when a part that the node cannot do without fails.
func (n *Node) Run(ctx context.Context) error {
	defer n.Close()
	n.parts = newParts(n.log)
	parts := n.parts
	parts.start("saver of verdicts", n.decider.views.Run)
	parts.start("saver of registers", n.decider.heard.Run)
	parts.start("saver of overrides", n.decider.orders.Run)
	if n.canaries != nil {
		parts.start("canaries", n.canaries.Run)
	}
	if n.opts.Takeover == nil {
		parts.start("admin", n.admin.Run)
		parts.start("cluster", n.gossip.Run)
	}
	parts.start("decider", n.decider.Run)
	parts.start("probe", n.runner.Run)
	parts.start("geo watch", n.watchGeo)
	parts.start("overrides file", n.watchOrders)
	parts.start("route watch", n.watchRoutes)
	parts.start("traffic", n.watchTraffic)

	err := n.open(ctx, parts)
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-parts.failed:
		case <-n.handedOver:
			n.leave(ctx, parts)
			return nil
		}
	}
	n.stop(parts)
	return err
}

// open brings the tiers up in the safe order, each when there is something
// true to say, or when waiting longer would be worse.
func (n *Node) open(ctx context.Context, parts *parts) error {
	setup := n.setup.Load()
	limit := time.NewTimer(setup.Config.Cluster.Wait)
	defer limit.Stop()
	wait := func(known <-chan struct{}) error {
		select {
		case <-known:
			return nil
		case <-limit.C:
			limit.Reset(0) // the bound is shared by both waits
			return nil
		case err := <-parts.failed:
			return err
		case <-ctx.Done():
			return nil
		}
	}
	if err := wait(n.decider.poolsKnown); err != nil || ctx.Err() != nil {
		return err
	}
	if err := n.openVIPs(setup, parts); err != nil {
		return err
	}
	if err := n.openForwarding(setup); err != nil {
		return err
	}
	if n.opts.Takeover == nil {
		parts.start("l4", n.l4.Run)
		parts.start("udp", n.udp.Run)
		parts.start("l7", n.l7.Run)
	}
	if err := wait(n.decider.allKnown); err != nil || ctx.Err() != nil {
		return err
	}
	if err := n.openDNS(setup); err != nil {
		return err
	}
	parts.start("doors", n.watchDoors)
	if err := n.begin(ctx, setup, parts); err != nil {
		return err
	}
	n.phase.Store("serving")
	if n.vips != nil {
		n.vips.served.Store(true)
	}
	n.metrics.servingFrom.SetToCurrentTime()
	n.log.Info("serving", "node", n.opts.Name, "site", setup.Self.Site.Name, "after", time.Since(n.started).Round(time.Millisecond).String())
	notifySystemd("READY=1")
	return nil
}

// begin is the last step of open: names are answered, then routes announced.
func (n *Node) begin(ctx context.Context, setup *Setup, parts *parts) error {
	if n.opts.Takeover != nil {
		return n.takeOver(ctx, setup, parts)
	}
	parts.start("dns", n.dns.Run)
	parts.start("room", func(ctx context.Context) error { return watchRoom(ctx, n.dns, n.l7, n.l4, n.udp) })
	n.decider.setReady(ctx, true)
	speaker, err := n.prepareSpeaker(setup)
	if err != nil {
		return fmt.Errorf("bgp: %w", err)
	}
	speaker.Commit()
	return nil
}
