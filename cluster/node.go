package cluster

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/pharos-lb/pharos/internal/health"
)

// rivalMemory is how long a name conflict is shown after it was last seen.
const rivalMemory = time.Minute

// Node is one node's part in the cluster. All methods are safe for concurrent use.
type Node struct {
	// Immutable.
	opt       Options
	pace      pace
	log       *slog.Logger
	advertise netip.AddrPort
	born      time.Time
	transport transport
	keyring   *memberlist.Keyring // locks itself; see SetKeys
	meters    *meters
	journal   *journal
	inbox     *inbox
	table     *table
	registers *registers
	roster    *roster
	news      *grapevine
	asks      *asks

	parcels    chan parcel   // to the couriers
	dispatches chan dispatch // to the messengers
	questions  chan mail     // to the answerer
	stir       chan struct{} // capacity 1: wakes the sender
	ordered    chan struct{} // capacity 1: wakes the carrier of overrides
	seedsSet   chan struct{} // capacity 1: wakes the joiner
	synced     chan struct{}
	closed     chan struct{}

	keysMu sync.Mutex // held while keys are replaced

	// Owned by the pump.
	echo *health.Report // the newest report of our own name that was delivered

	mu           sync.Mutex // guards the rest
	started      bool
	isClosed     bool
	isSynced     bool
	own          *held // the newest report published here
	still        still
	urgent       bool // own says something that was not sent yet
	greetings    map[string]bool
	forgetful    map[string]bool // observers that speak below an epoch of theirs; at most maxObservers
	seeds        []netip.AddrPort
	found        []netip.AddrPort // by Options.Discover, last
	publicKeys   map[string]ed25519.PublicKey
	trials       trials
	orders       map[health.Scope]record // ours, not yet told
	meta         Meta
	metaChanged  bool
	lastExchange time.Time
	rival        string
	rivalSeen    time.Time
}

// ErrClosed is returned by Run when Close ended it.
var ErrClosed = errors.New("cluster: closed")

// New checks the options and binds the gossip port, over UDP and TCP. Nothing
// is read or sent before Run. The caller must Close the Node.
func New(opt Options) (*Node, error) {
	if err := opt.validate(); err != nil {
		return nil, err
	}
	var primary []byte
	keys := make([][]byte, 0, len(opt.Keys))
	for _, key := range opt.Keys {
		keys = append(keys, slices.Clone(key))
	}
	if len(keys) > 0 {
		primary = keys[0]
	}
	keyring, err := memberlist.NewKeyring(keys, primary)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	n := &Node{
		opt:       opt,
		pace:      defaultPace(),
		log:       opt.Log,
		born:      time.Now(),
		keyring:   keyring,
		meters:    newMeters(),
		inbox:     newInbox(maxInboxFrames, maxInboxBytes),
		table:     newTable(),
		registers: newRegisters(),
		roster:    newRoster(),
		forgetful: make(map[string]bool),
		asks:      &asks{pending: make(map[uint64]pendingAnswer)},

		parcels:    make(chan parcel, maxMembers),
		dispatches: make(chan dispatch, maxDispatches),
		questions:  make(chan mail, maxQuestions),
		stir:       make(chan struct{}, 1),
		ordered:    make(chan struct{}, 1),
		seedsSet:   make(chan struct{}, 1),
		synced:     make(chan struct{}),
		closed:     make(chan struct{}),

		greetings:  make(map[string]bool),
		seeds:      slices.Clone(opt.Seeds),
		publicKeys: maps.Clone(opt.PublicKeys),
		orders:     make(map[health.Scope]record),
		meta:       opt.Meta,
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if opt.pace != nil {
		n.pace = *opt.pace
	}
	n.journal = newJournal(n.log, n.meters)
	n.news = newGrapevine(func() int {
		present, _ := n.roster.count()
		return present + 1
	}, n.born)
	if n.transport = opt.transport; n.transport == nil {
		if n.transport, err = bindSockets(opt.Bind, opt.Advertise, n.meters); err != nil {
			return nil, err
		}
	}
	n.advertise = n.transport.addr()
	if err := n.meters.register(opt.Registerer, n); err != nil {
		return nil, errors.Join(err, n.transport.Shutdown())
	}
	if len(n.otherSeeds()) == 0 && opt.Discover == nil {
		n.markSynced()
	}
	return n, nil
}

// Run joins the others and carries reports until ctx ends. It then says good-bye
// with a report that has health.FlagLeaving, leaves, and returns nil within
// about a second. If Close is called first it leaves without a word, as a crash
// would, and returns ErrClosed. Run can be called once.
func (n *Node) Run(ctx context.Context) error {
	n.mu.Lock()
	again, closed := n.started, n.isClosed
	n.started = true
	n.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if again {
		return errors.New("cluster: Run called twice")
	}
	if len(n.opt.Keys) == 0 {
		n.log.Warn("gossip is neither encrypted nor authenticated", "hint", "give the cluster a key")
	}

	protocol, err := memberlist.Create(n.memberlistConfig())
	if err != nil {
		return fmt.Errorf("cluster: start membership protocol: %w", errors.Join(err, n.transport.Shutdown()))
	}
	n.transport.start()

	running, stop := context.WithCancel(ctx)
	defer stop()
	var own sync.WaitGroup
	own.Go(func() { n.pump(running) })
	own.Go(func() { n.send(running, protocol) })
	own.Go(func() { n.join(running, protocol) })
	own.Go(func() { n.carryOverrides(running, protocol) })
	if n.opt.Discover != nil {
		own.Go(func() { n.discover(running) })
	}
	if n.opt.Answer != nil {
		own.Go(func() { n.answerQuestions(running) })
	}
	for range maxCouriers {
		own.Go(func() { n.deliverParcels(running, protocol) })
	}
	for range maxMessengers {
		own.Go(func() { n.deliverDispatches(running, protocol) })
	}

	select {
	case <-ctx.Done():
		n.farewell(protocol)
	case <-n.closed:
		err = ErrClosed
	}
	stop()
	// Ends every stream, so that nothing of ours waits on the network.
	if e := protocol.Shutdown(); e != nil {
		err = errors.Join(err, fmt.Errorf("cluster: stop membership protocol: %w", e))
	}
	own.Wait()
	return err
}

// farewell tells everybody that this node stops on purpose.
func (n *Node) farewell(protocol *memberlist.Memberlist) {
	n.mu.Lock()
	own := n.own
	n.mu.Unlock()
	if own != nil {
		last := *own.report
		last.Flags |= health.FlagLeaving
		last.Seq++
		n.Publish(&last)
		n.spread(protocol)
	}
	if err := protocol.Leave(n.pace.leave); err != nil {
		n.log.Debug("leaving was not confirmed", "error", err)
	}
	n.spread(protocol) // once more, should the first have been lost
}

// Publish makes r the report that is sent to the others every second and is
// part of every exchanged state; its age counts from now. If its statements, its
// flags or its digest of overrides differ from the last one it is also sent at
// once, or in a storm of changes shortly. A report that is not
// newer than the last one, or of another observer, is ignored and counted. r
// must not be changed afterwards. Publish never blocks.
func (n *Node) Publish(r *health.Report) {
	if r == nil || r.Observer != n.opt.Name {
		n.meters.dropped.WithLabelValues(dropRefused).Inc()
		return
	}
	raw, err := encodeReport(r, wireNow)
	if err != nil {
		n.meters.dropped.WithLabelValues(dropRefused).Inc()
		n.log.Error("own report cannot be sent", "error", err)
		return
	}
	seal := n.sign(sealReport, raw)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.own != nil && !r.Newer(n.own.report) {
		n.meters.dropped.WithLabelValues(dropRefused).Inc()
		return
	}
	if n.own == nil || saysOther(n.own.report, r) {
		n.urgent = true
		wake(n.stir)
	}
	now := time.Now()
	n.still.publish(n.own, now)
	n.own = &held{report: r, raw: raw, seal: seal, signed: seal != nil, born: now}
}

// SetPeers replaces the configured nodes, the public keys of Options.PublicKeys
// and what this node tells of itself, after a reload. A key that is none stands
// for one that nobody has: nothing is taken of its observer. It cannot fail: what exceeds a limit is cut off and logged.
// Nodes that are not configured any more are no longer looked for; they remain
// members until they go.
func (n *Node) SetPeers(seeds []netip.AddrPort, publicKeys map[string]ed25519.PublicKey, meta Meta) {
	if len(seeds) > maxSeeds {
		n.log.Error("too many configured nodes", "nodes", len(seeds), "limit", maxSeeds)
		seeds = seeds[:maxSeeds]
	}
	if err := checkPublicKeys(publicKeys); err != nil {
		n.log.Error("a node's public key is none; nothing is taken of that node", "error", err)
	}
	if err := meta.check(); err != nil {
		n.log.Error("what this node tells of itself is cut off", "error", err)
	}
	n.mu.Lock()
	n.seeds = slices.Clone(seeds)
	before := n.publicKeys
	n.publicKeys = maps.Clone(publicKeys)
	if meta = meta.clip(); meta != n.meta {
		n.meta, n.metaChanged = meta, true
	}
	n.mu.Unlock()
	n.registers.refresh(func(writer string) bool { return !bytes.Equal(before[writer], publicKeys[writer]) }, n.sealFor)
	wake(n.seedsSet)
}

// Synced is closed once a table was exchanged with some member and everything
// in it was delivered; from the start if no other node is configured. While no
// other node can be reached it stays open: bound the wait.
func (n *Node) Synced() <-chan struct{} { return n.synced }

// Addr returns where the others reach this node, with the port that was bound.
func (n *Node) Addr() netip.AddrPort { return n.advertise }

// Close frees the port and the metrics. If Run is under way it ends without
// leaving. Close may be called more than once.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.isClosed {
		n.mu.Unlock()
		return nil
	}
	n.isClosed = true
	close(n.closed)
	n.mu.Unlock()
	n.meters.unregister()
	if err := n.transport.Shutdown(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("cluster: close: %w", err)
	}
	return nil
}

// Suspend makes this node deaf and dumb: another process is about to take its name and its
// sockets. Streams that are open end. Resume ends it, when that process failed; Close is next
// when it did not, and is silent.
func (n *Node) Suspend() {
	if s, ok := n.transport.(*sockets); ok {
		s.suspend()
	}
}

// Resume ends Suspend.
func (n *Node) Resume() {
	if s, ok := n.transport.(*sockets); ok {
		s.resume()
	}
}

// card returns what this node tells of itself.
func (n *Node) card() card {
	n.mu.Lock()
	defer n.mu.Unlock()
	return card{Meta: n.meta, wire: wireNow, keys: string(n.fingerprints())}
}

// otherSeeds returns the configured addresses that are not our own.
func (n *Node) otherSeeds() []netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.others(n.seeds)
}

// wanted returns the addresses of nodes to join: those configured, and those
// found.
func (n *Node) wanted() []netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.others(slices.Concat(n.seeds, n.found))
}

// others returns the addresses that are not our own, each once.
func (n *Node) others(all []netip.AddrPort) []netip.AddrPort {
	others := make([]netip.AddrPort, 0, len(all))
	for _, s := range all {
		s = netip.AddrPortFrom(s.Addr().Unmap(), s.Port())
		if s.IsValid() && s.Port() != 0 && s != n.advertise && s != n.opt.Bind && !slices.Contains(others, s) {
			others = append(others, s)
		}
	}
	return others
}

// markSynced closes synced, once.
func (n *Node) markSynced() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.isSynced {
		n.isSynced = true
		close(n.synced)
	}
}

// exchangeAge returns the time since the last exchange, or since New.
func (n *Node) exchangeAge(now time.Time) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lastExchange.IsZero() {
		return now.Sub(n.born)
	}
	return now.Sub(n.lastExchange)
}

// wake fills a channel of capacity 1.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
