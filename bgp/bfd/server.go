package bfd

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Limits and ports.
const (
	MaxPeers      = 512 // of one Server
	MinInterval   = 10 * time.Millisecond
	MaxInterval   = time.Minute
	SingleHopPort = 3784 // RFC 5881
	MultihopPort  = 4784 // RFC 5883
)

// A Key names a session before discriminators are known.
type Key struct {
	Remote, Local netip.Addr // of one family; link-local ones with their zone
	Multihop      bool
}

func (k Key) String() string { return k.Local.String() + "→" + k.Remote.String() }

func (k Key) port() uint16 {
	if k.Multihop {
		return MultihopPort
	}
	return SingleHopPort
}

// A Peer is one session that should exist.
type Peer struct {
	Key
	Interval   time.Duration // both ways, MinInterval to MaxInterval
	Multiplier int           // 2 … 255

	// MinTTL drops packets that arrive with less. A single-hop session takes nothing but 255 (RFC 5082) and ignores
	// it; 0 = anything, for not every router sends multihop packets with 255.
	MinTTL int
}

func (p Peer) validate() error {
	switch {
	case !p.Remote.IsValid() || !p.Local.IsValid() || p.Remote.Is4() != p.Local.Is4():
		return fmt.Errorf("bfd: %s is not two addresses of one family", p.Key)
	case p.Interval < MinInterval || p.Interval > MaxInterval:
		return fmt.Errorf("bfd: interval %s is not %s to %s", p.Interval, MinInterval, MaxInterval)
	case p.Multiplier < 2 || p.Multiplier > 255:
		return fmt.Errorf("bfd: multiplier %d is not 2 to 255", p.Multiplier)
	case p.MinTTL < 0 || p.MinTTL > 255:
		return fmt.Errorf("bfd: TTL %d is not 0 to 255", p.MinTTL)
	}
	return nil
}

func (p Peer) parameters() Parameters {
	return Parameters{MinTx: p.Interval, MinRx: p.Interval, Multiplier: uint8(p.Multiplier)}
}

// A Status is one session as it is.
type Status struct {
	Key
	State, PeerState State
	Since            time.Time
	Diag, PeerDiag   Diag

	Transmit  time.Duration // interval in force, before jitter
	Detection time.Duration // silence that ends the session; 0 = the neighbour is not heard

	Failures  uint64 // times that the session was up and failed; administrative ends do not count
	Cause     Cause  // of the newest end
	In, Out   uint64 // packets
	SendError string // of the newest packet, if it could not be sent
}

// Drops are packets that were not taken in, by reason.
type Drops struct {
	Malformed uint64 // Parse's errors
	TTL       uint64 // came from further away than allowed
	Unknown   uint64 // of no session of ours
	Unsent    uint64 // ours, that the kernel would not send
}

// Options makes a Server. The zero value is fine.
type Options struct {
	Log *slog.Logger // nil discards; gets changes of state
}

// A Server runs sessions on sockets. Its methods may be called by several goroutines; Run once.
type Server struct {
	// Immutable.
	log     *slog.Logger
	changed chan struct{} // capacity 1: for the owner
	kick    chan struct{} // capacity 1: for Run

	readers sync.WaitGroup

	mu      sync.Mutex // guards the rest
	closed  bool
	byKey   map[Key]*entry
	byDisc  map[uint32]*entry
	agenda  agenda
	sockets map[socketKey]*socket
	senders map[netip.Addr]*sender
	drops   Drops
}

// entry is one session with its place in the world.
type entry struct {
	peer    Peer
	session *Session
	from    *sender
	via     *socket
	to      *net.UDPAddr

	due   time.Time // key of the agenda
	place int       // in the agenda
	looks int       // at a neighbour that seems dead

	failures  uint64
	in, out   uint64
	sendError string
}

// New returns a Server without sessions.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{
		log: o.Log, changed: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		byKey: map[Key]*entry{}, byDisc: map[uint32]*entry{},
		sockets: map[socketKey]*socket{}, senders: map[netip.Addr]*sender{},
	}
}

// Changed receives (capacity 1) after a session changed its state.
func (s *Server) Changed() <-chan struct{} { return s.changed }

// Set makes the sessions be those of peers: the others are taken down administratively, changed ones negotiate anew
// without an interruption, and the rest is not touched. One that fails stops no other; it is returned with its error,
// to be tried again.
func (s *Server) Set(peers []Peer) map[Key]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	errs := map[Key]error{}
	want := make(map[Key]bool, len(peers))
	for _, p := range peers {
		want[p.Key] = true
	}
	now := time.Now()
	for key, e := range s.byKey {
		if !want[key] {
			s.remove(e, now)
		}
	}
	for _, p := range peers {
		if err := s.set(p, now); err != nil {
			errs[p.Key] = err
		}
	}
	s.flush()
	s.closeUnused()
	signal(s.kick)
	return errs
}

func (s *Server) set(p Peer, now time.Time) error {
	if err := p.validate(); err != nil {
		return err
	}
	if e, ok := s.byKey[p.Key]; ok {
		if e.peer != p {
			e.peer = p
			e.session.Reconfigure(p.parameters())
			s.service(e, now)
		}
		return nil
	}
	if len(s.byKey) >= MaxPeers {
		return fmt.Errorf("bfd: more than %d sessions", MaxPeers)
	}
	via, err := s.listen(p.Key)
	if err != nil {
		return err
	}
	from, err := s.dialer(p.Local)
	if err != nil {
		return err
	}
	mine := rand.Uint32()
	for mine == 0 || s.byDisc[mine] != nil {
		mine = rand.Uint32()
	}
	e := &entry{
		peer: p, session: NewSession(p.parameters(), mine, now), from: from, via: via,
		to: net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.Remote, p.port())),
	}
	s.byKey[p.Key], s.byDisc[mine] = e, e
	e.due = now
	s.agenda.add(e)
	s.service(e, now)
	return nil
}

// remove tells the neighbour that the end of this session means nothing, and forgets it.
func (s *Server) remove(e *entry, now time.Time) {
	e.session.Disable(now)
	s.queue(e, e.session.packet())
	s.agenda.remove(e)
	delete(s.byKey, e.peer.Key)
	delete(s.byDisc, e.session.mine)
}

// Status returns all sessions, sorted by addresses, and what was dropped.
func (s *Server) Status() ([]Status, Drops) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, 0, len(s.byKey))
	for _, e := range s.byKey {
		x := e.session
		out = append(out, Status{
			Key: e.peer.Key, State: x.state, PeerState: x.peerState, Since: x.since, Diag: x.diag, PeerDiag: x.peerDiag,
			Transmit: x.txInterval(), Detection: x.detection(), Failures: e.failures, Cause: x.cause,
			In: e.in, Out: e.out, SendError: e.sendError,
		})
	}
	slices.SortFunc(out, func(a, b Status) int {
		return cmp.Or(a.Remote.Compare(b.Remote), a.Local.Compare(b.Local))
	})
	return out, s.drops
}

// Run keeps the sessions' time until ctx ends. Then it takes all of them down administratively, so that a stop is no
// failure to the neighbours, and closes the sockets.
func (s *Server) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.Close()
		case <-s.kick:
		case <-timer.C:
		}
		timer.Reset(s.turn())
	}
}

// Close ends all sessions and frees the sockets. Run calls it; twice is fine.
func (s *Server) Close() error {
	s.mu.Lock()
	now := time.Now()
	for _, e := range s.byKey {
		s.remove(e, now)
	}
	s.flush()
	s.closed = true
	err := s.closeUnused()
	s.mu.Unlock()
	s.readers.Wait()
	return err
}

// turn does what is due and returns how long nothing will be.
func (s *Server) turn() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	sent := false
	for e := s.agenda.first(); e != nil; e = s.agenda.first() {
		if e.due.After(now) && (!sent || now.Before(e.due.Add(-e.session.early())) || !e.due.Equal(e.session.nextTx)) {
			break
		}
		sent = s.service(e, now) || sent
	}
	s.flush()
	if e := s.agenda.first(); e != nil {
		return max(time.Until(e.due), 0)
	}
	return time.Hour
}

// service gives a session its time, queues what it sends, and puts it on the agenda anew.
func (s *Server) service(e *entry, now time.Time) (sent bool) {
	if limit := e.session.detection(); limit > 0 && !now.Before(e.session.heard.Add(limit)) && e.doubtful() {
		e.looks++
		e.due = now.Add(lookAgain)
		s.agenda.moved(e)
		return false
	}
	e.looks = 0
	before := e.session.state
	e.session.Expire(now)
	for {
		p, ok := e.session.Transmit(now, rand.Float64())
		if !ok {
			break
		}
		s.queue(e, p)
		sent = true
	}
	s.noteState(e, before)
	e.due = e.session.Due()
	if e.due.IsZero() {
		e.due = now.Add(time.Hour)
	}
	s.agenda.moved(e)
	return sent
}

// Patience with ourselves.
const (
	lookAgain = 2 * time.Millisecond
	maxLooks  = 50 // times lookAgain: packets of others cannot keep a dead neighbour alive for longer
)

// doubtful reports whether a neighbour that seems dead may only be unread: when it was us who slept, its packets wait in
// the kernel, or with the reader, who then has lookAgain to hand them over.
func (e *entry) doubtful() bool {
	return e.looks == 0 || e.looks < maxLooks && e.via.waiting()
}

// noteState counts and tells a change of state.
func (s *Server) noteState(e *entry, before State) {
	after := e.session.state
	if before == after {
		return
	}
	signal(s.changed)
	level, cause := slog.LevelDebug, ""
	if before == Up {
		cause = e.session.cause.String()
		level = slog.LevelInfo
		if e.session.cause.Failure() {
			e.failures++
			level = slog.LevelWarn
		}
	} else if after == Up {
		level = slog.LevelInfo
	}
	s.log.Log(context.Background(), level, "BFD session changed", "peer", e.peer.Remote, "state", after.String(), "cause", cause)
}

// receive takes in one datagram.
func (s *Server) receive(via *socket, from netip.Addr, ttl int, b []byte, now time.Time) {
	p, err := Parse(b)
	if err != nil {
		s.drops.Malformed++
		return
	}
	var e *entry
	if p.Yours != 0 {
		e = s.byDisc[p.Yours]
	} else {
		e = s.byKey[Key{Remote: from, Local: via.key.local, Multihop: via.key.multihop}]
	}
	// A discriminator alone is no proof: the packet must also come where and from whom it should.
	if e == nil || e.via != via || e.peer.Remote != from {
		s.drops.Unknown++
		return
	}
	least := e.peer.MinTTL
	if !via.key.multihop {
		least = 255
	}
	if ttl < least {
		s.drops.TTL++
		return
	}
	e.in++
	before := e.session.state
	e.session.Receive(p, now)
	s.noteState(e, before)
	if due := e.session.Due(); due.Before(e.due) {
		s.service(e, now)
		signal(s.kick)
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
