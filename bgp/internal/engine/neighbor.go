package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	api "github.com/osrg/gobgp/v3/api"
)

// Timing of sessions. GoBGP dials 1 to 2 s after a neighbor was added, and then every dialEvery to 2·dialEvery.
const (
	dialEvery    = 2 * time.Second        // also bounds one dial: GoBGP gives up after dialEvery − 1 s
	redialFirst  = 250 * time.Millisecond // first pause after a lost session; doubles
	redialMost   = 4 * time.Second        // longer pauses are GoBGP's own 5 s of idling
	redialLook   = time.Second            // how often sessions are looked at without an event
	redialCapped = time.Minute            // pause after a neighbor broke its prefix limit
	stableAfter  = 30 * time.Second       // a session that lived this long resets the pause
)

// DefaultMaxPrefixes is how many prefixes per family a neighbor may send.
const DefaultMaxPrefixes = 10_000

// A Neighbor is one router to speak with. It is comparable.
type Neighbor struct {
	Address     netip.Addr
	Local       netip.Addr // same family; connections use it on our side
	ASN         uint32
	Port        uint16        // dialled; 0 = 179
	Password    string        // TCP MD5, at most 80 bytes; empty = none
	Hold        time.Duration // whole seconds, 3 s or more
	Multihop    int           // TTL; 0 = 1 for eBGP
	TTLSecurity int           // eBGP: hops that it may be away; 0 = not checked
	Passive     bool          // never dial
	MaxPrefixes int           // per family; more ends the session; 0 = DefaultMaxPrefixes

	// Restart has it keep our routes for so long when the session is lost without a word
	// (RFC 4724), whole seconds; 0 = it withdraws them at once.
	Restart time.Duration
}

// LogValue leaves the password out.
func (n Neighbor) LogValue() slog.Value {
	return slog.GroupValue(slog.String("address", n.Address.String()), slog.Uint64("asn", uint64(n.ASN)))
}

// String leaves the password out.
func (n Neighbor) String() string { return fmt.Sprintf("%s AS%d", n.Address, n.ASN) }

// GoString leaves the password out.
func (n Neighbor) GoString() string { return n.String() }

// A Session is the state of one neighbor.
type Session struct {
	Address   netip.Addr
	ASN       uint32 // configured
	State     string // idle, connect, active, opensent, openconfirm, established
	Since     time.Time
	LastError string       // why it is not established, if known
	From      netip.Prefix // the Range that let it in; zero = it was added
	Sent      int          // paths exported to it
	Sent4     int          // of them IPv4
	Received  int          // paths it sent

	// What the two agreed on; zero before.
	RouterID netip.Addr
	Hold     time.Duration
	IPv4     bool // it takes IPv4 prefixes
	IPv6     bool
	Refresh  bool // it can be asked, and ask, for all routes again
	restarts bool // it knows graceful restart
}

// peer is what the Engine remembers of one neighbor. Guarded by Engine.mu.
type peer struct {
	neighbor Neighbor
	session  Session
	failures int       // lost sessions in a row
	redialAt time.Time // zero = not waiting
	stale    bool      // GoBGP has an older neighbor

	notified uint64 // NOTIFICATIONs that it has sent

	from netip.Prefix // of a guest: its range

	// renew: GoBGP says no longer that this process has restarted, which the neighbor
	// still has to hear.
	renew bool
}

// ErrPassword is returned by Add when the listener would accept sessions without the password. Besides kernels without
// TCP MD5 the cause can be that Go listens with multipath TCP, which GODEBUG=multipathtcp=0 turns off.
var ErrPassword = errors.New("cannot set the TCP MD5 key on the listener")

// Add adds one neighbor and starts its session.
func (e *Engine) Add(n Neighbor) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.peers[n.Address]; ok {
		return fmt.Errorf("neighbor %s exists", n.Address)
	}
	if err := e.add(n); err != nil {
		return err
	}
	e.peers[n.Address] = &peer{neighbor: n, session: Session{
		Address: n.Address, ASN: n.ASN, State: "idle", Since: time.Now(),
	}}
	signal(e.changed)
	return nil
}

// Retime takes over a neighbor whose hold time alone changed: the session that is up keeps the one that it agreed on,
// the next one has the new. It reports false when that is not all that changed, or no session is up.
func (e *Engine) Retime(n Neighbor) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.peers[n.Address]
	if !ok || p.session.State != "established" {
		return false
	}
	same := p.neighbor
	same.Hold = n.Hold
	if same != n {
		return false
	}
	p.neighbor, p.stale = n, true
	return true
}

// Neighbors returns what was added, by address.
func (e *Engine) Neighbors() map[netip.Addr]Neighbor {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make(map[netip.Addr]Neighbor, len(e.peers))
	for a, p := range e.peers {
		out[a] = p.neighbor
	}
	return out
}

// Remove ends a neighbor's session with Cease and forgets it. The listener's MD5 key goes too: DeletePeer alone would
// leave it, and a later session without password would be refused.
func (e *Engine) Remove(a netip.Addr) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.peers[a]
	if !ok {
		return fmt.Errorf("no neighbor %s", a)
	}
	ctx := context.Background()
	if p.neighbor.Password != "" {
		bare := p.neighbor
		bare.Password = ""
		update := apiPeer(bare)
		update.Conf.AdminDown = true
		if _, err := e.server.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: update}); err != nil {
			return fmt.Errorf("clear password of %s: %w", a, err)
		}
		e.journal.started() // the update replaced the session's goroutine
	}
	if err := e.server.DeletePeer(ctx, &api.DeletePeerRequest{Address: a.String()}); err != nil {
		return fmt.Errorf("delete neighbor %s: %w", a, err)
	}
	delete(e.peers, a)
	e.journal.forget(a)
	signal(e.changed)
	return nil
}

// Reset ends a neighbor's session at once, for the given reason, and dials it again.
func (e *Engine) Reset(a netip.Addr, reason string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.peers[a] == nil && e.guests[a] == nil {
		return fmt.Errorf("no neighbor %s", a)
	}
	err := e.server.ResetPeer(context.Background(), &api.ResetPeerRequest{Address: a.String(), Communication: reason})
	if err != nil {
		return fmt.Errorf("reset neighbor %s: %w", a, err)
	}
	e.journal.note(a, reason)
	signal(e.stirred)
	return nil
}

// deleteAll ends every session with Cease.
func (e *Engine) deleteAll() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, h := range e.halls {
		e.closeHall(h)
	}
	e.bar(nil, nil)
	for a := range e.peers {
		_ = e.server.DeletePeer(context.Background(), &api.DeletePeerRequest{Address: a.String()})
	}
	e.peers, e.halls = map[netip.Addr]*peer{}, map[netip.Prefix]*hall{}
}

// add hands a neighbor to GoBGP and takes it back when its password cannot be enforced.
func (e *Engine) add(n Neighbor) error {
	e.journal.takeKeyFailure(n.Address)
	ctx := context.Background()
	if err := e.server.AddPeer(ctx, &api.AddPeerRequest{Peer: apiPeer(n)}); err != nil {
		return fmt.Errorf("add neighbor %s: %w", n.Address, err)
	}
	e.journal.started()
	if reason := e.journal.takeKeyFailure(n.Address); reason != "" {
		_ = e.server.DeletePeer(ctx, &api.DeletePeerRequest{Address: n.Address.String()})
		return fmt.Errorf("add neighbor %s: %w: %s", n.Address, ErrPassword, reason)
	}
	return nil
}

func apiPeer(n Neighbor) *api.Peer {
	hold := uint64(n.Hold / time.Second)
	limit := n.MaxPrefixes
	if limit <= 0 {
		limit = DefaultMaxPrefixes
	}
	p := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: n.Address.String(),
			PeerAsn:         n.ASN,
			AuthPassword:    n.Password,
		},
		Timers: &api.Timers{Config: &api.TimersConfig{
			ConnectRetry:           uint64(dialEvery / time.Second),
			HoldTime:               hold,
			KeepaliveInterval:      hold / 3,
			IdleHoldTimeAfterReset: 1,
		}},
		Transport: &api.Transport{
			LocalAddress: n.Local.String(),
			RemotePort:   uint32(n.Port),
			PassiveMode:  n.Passive,
		},
		GracefulRestart: gracefulRestart(n.Restart),
	}
	if n.Multihop > 0 {
		p.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(n.Multihop)}
	}
	if n.TTLSecurity > 0 {
		p.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: uint32(256 - n.TTLSecurity)}
	}
	for _, f := range unicast() {
		p.AfiSafis = append(p.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: f, Enabled: true},
			PrefixLimits:      &api.PrefixLimit{Family: f, MaxPrefixes: uint32(limit)},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: n.Restart > 0}},
		})
	}
	return p
}

// restartDeferral is how long a session waits for the end of what a neighbor sends before it is sent anything, where
// graceful restart is on.
const restartDeferral = 5 * time.Second

// gracefulRestart is off unless asked for: with it a crash does not withdraw. Each session begins as that of a process which
// has restarted and goes on forwarding, because a neighbor drops what it has kept where that is not said.
func gracefulRestart(d time.Duration) *api.GracefulRestart {
	if d == 0 {
		return &api.GracefulRestart{Enabled: false}
	}
	return &api.GracefulRestart{
		Enabled: true, RestartTime: uint32(d / time.Second), DeferralTime: uint32(restartDeferral / time.Second), LocalRestarting: true,
	}
}

// renewOthers has neighbors that have no session yet added again: GoBGP takes all of them for restarted as soon as one has
// heard everything. The caller holds mu.
func (e *Engine) renewOthers(done *peer) {
	if done.neighbor.Restart == 0 {
		return
	}
	for _, p := range e.peers {
		if p != done && p.neighbor.Restart > 0 && !p.handshaking() {
			p.renew = true
		}
	}
}

// handshaking reports whether a session is up, or about to be.
func (p *peer) handshaking() bool {
	return p.session.State == "established" || p.session.State == "opensent" || p.session.State == "openconfirm"
}

// refresh reads the sessions from GoBGP, and what each was sent only if count is true: that judges every route for every
// neighbor. The caller holds mu.
func (e *Engine) refresh(now time.Time, count bool) {
	seen := make(map[netip.Addr]bool, len(e.peers)+len(e.guests))
	_ = e.server.ListPeer(context.Background(), &api.ListPeerRequest{EnableAdvertised: count}, func(got *api.Peer) {
		a, err := netip.ParseAddr(got.GetState().GetNeighborAddress())
		if err != nil {
			return
		}
		seen[a] = true
		p := e.peers[a]
		if p == nil {
			p = e.guest(a, now)
		}
		if p == nil {
			return
		}
		sent, sent4, received := 0, 0, 0
		p.session.agreed(got)
		for _, f := range got.AfiSafis {
			advertised := int(f.GetState().GetAdvertised())
			if p.session.restarts && p.neighbor.Restart > 0 && advertised > 0 {
				advertised-- // GoBGP counts the End-of-RIB, which is sent then
			}
			sent += advertised
			received += int(f.GetState().GetReceived())
			if f.GetConfig().GetFamily().GetAfi() == api.Family_AFI_IP {
				sent4 += advertised
			}
		}
		p.session.Received = received
		if count {
			p.session.Sent, p.session.Sent4 = sent, sent4
		}
		state := strings.ToLower(got.GetState().GetSessionState().String())
		if state != "established" {
			p.session.Sent, p.session.Sent4 = 0, 0
		}
		e.hearRefusal(p, got)
		capped := got.GetState().GetAdminState() == api.PeerState_PFX_CT
		e.enter(p, state, capped, now)
	})
	e.keepHouse(seen, now)
}

// RefusedOpen is the LastError of a session that the neighbor ended by a NOTIFICATION before it was established. GoBGP says
// nothing of those, so all that is known is that there was one.
const RefusedOpen = "it refused our OPEN"

// hearRefusal notices such a NOTIFICATION. The caller holds mu.
func (e *Engine) hearRefusal(p *peer, got *api.Peer) {
	n := got.GetState().GetMessages().GetReceived().GetNotification()
	if n > p.notified && p.session.State != "established" {
		e.journal.note(p.neighbor.Address, RefusedOpen)
	}
	p.notified = n
}

// agreed reads what the two sides said of themselves.
func (s *Session) agreed(got *api.Peer) {
	s.RouterID, _ = netip.ParseAddr(got.GetState().GetRouterId())
	s.Hold = time.Duration(got.GetTimers().GetState().GetNegotiatedHoldTime()) * time.Second
	s.IPv4, s.IPv6, s.Refresh, s.restarts = false, false, false, false
	for _, packed := range got.GetState().GetRemoteCap() {
		message, err := packed.UnmarshalNew()
		if err != nil {
			continue
		}
		switch c := message.(type) {
		case *api.MultiProtocolCapability:
			unicast := c.GetFamily().GetSafi() == api.Family_SAFI_UNICAST
			s.IPv4 = s.IPv4 || unicast && c.GetFamily().GetAfi() == api.Family_AFI_IP
			s.IPv6 = s.IPv6 || unicast && c.GetFamily().GetAfi() == api.Family_AFI_IP6
		case *api.RouteRefreshCapability:
			s.Refresh = true
		case *api.GracefulRestartCapability:
			s.restarts = true
		}
	}
}

// enter records a session's state and plans the next dial when the session was lost.
func (e *Engine) enter(p *peer, state string, capped bool, now time.Time) {
	old := p.session.State
	if state == old {
		return
	}
	lived := now.Sub(p.session.Since)
	p.session.State, p.session.Since = state, now
	switch {
	case state == "established":
		e.journal.forget(p.neighbor.Address)
		p.redialAt, p.renew = time.Time{}, false
		e.renewOthers(p)
		e.opts.Log.Info("BGP session established", "peer", p.neighbor.Address, "asn", p.neighbor.ASN)
	case state == "idle":
		if old == "established" && lived >= stableAfter {
			p.failures = 0
		}
		pause := redialFirst << min(p.failures, 5)
		p.failures++
		if capped {
			e.journal.note(p.neighbor.Address, "it sent more prefixes than its limit")
			pause = redialCapped
		}
		if pause <= redialMost || capped || p.stale {
			p.redialAt = now.Add(pause)
		}
	}
	if old == "established" {
		e.opts.Log.Warn("BGP session lost", "peer", p.neighbor.Address, "asn", p.neighbor.ASN,
			"reason", e.journal.lastError(p.neighbor.Address))
	}
}

// redial replaces neighbors that idle longer than they need to: a fresh neighbor dials and accepts at once, an idle
// one refuses everything for 5 s. It returns how long to wait for the next look.
func (e *Engine) redial(now time.Time) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refresh(now, false)
	next := redialLook
	for a, p := range e.peers {
		if p.renew && !p.handshaking() {
			p.renew, p.redialAt = false, time.Time{}
			_ = e.server.DeletePeer(context.Background(), &api.DeletePeerRequest{Address: a.String()})
			if err := e.add(p.neighbor); err != nil {
				e.journal.note(a, err.Error())
				p.renew = true // nobody else would add it again
			}
			continue
		}
		if p.redialAt.IsZero() {
			continue
		}
		if p.session.State != "idle" {
			p.redialAt = time.Time{}
			continue
		}
		if wait := p.redialAt.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		p.redialAt, p.stale = time.Time{}, false
		_ = e.server.DeletePeer(context.Background(), &api.DeletePeerRequest{Address: a.String()})
		if err := e.add(p.neighbor); err != nil {
			e.journal.note(a, err.Error())
			p.redialAt = now.Add(redialMost)
		}
	}
	return next
}
