package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/pharos-lb/pharos/bgp/bfd"
	"github.com/pharos-lb/pharos/bgp/internal/engine"
)

// Defaults of BFD.
const (
	DefaultBFDInterval   = 300 * time.Millisecond
	DefaultBFDMultiplier = 3
)

// BFD is bidirectional forwarding detection beside a session (RFC 5882): when it was up and fails, the session is reset at
// once. The zero value is none.
type BFD struct {
	Interval   time.Duration // both ways, 10 ms to 1 min; 0 = no BFD
	Multiplier int           // intervals of silence, 2 to 255
	Multihop   bool          // RFC 5883, UDP 4784; otherwise RFC 5881, UDP 3784, and the TTL must be 255
	MinTTL     int           // of multihop packets; 0 = any

	// Strict keeps the session from starting before BFD is up.
	Strict bool
}

func (b BFD) check() error {
	switch {
	case b == BFD{}:
		return nil
	case b.Interval < bfd.MinInterval || b.Interval > bfd.MaxInterval:
		return fmt.Errorf("BFD interval %s is not %s to %s", b.Interval, bfd.MinInterval, bfd.MaxInterval)
	case b.Multiplier < 2 || b.Multiplier > 255:
		return fmt.Errorf("BFD multiplier %d is not 2 to 255", b.Multiplier)
	case b.MinTTL < 0 || b.MinTTL > 255:
		return fmt.Errorf("BFD minimum TTL %d is not 0 to 255", b.MinTTL)
	case b.MinTTL > 0 && !b.Multihop:
		return errors.New("BFD minimum TTL is for multihop: a single hop takes nothing but 255")
	}
	return nil
}

// BFDStatus is the BFD session beside a BGP session.
type BFDStatus struct {
	State     string // up, init, down, admin_down
	PeerState string // what the router says of itself
	Since     time.Time
	Detection time.Duration // silence that ends it; 0 = the router is not heard
	Transmit  time.Duration // between our packets
	Failures  uint64        // times that it failed while up
	LastError string        // why it is not up, or last was not
}

// A liveness is the child's BFD.
type liveness struct {
	server *bfd.Server
	peers  map[bfd.Key]Peer
	counts map[bfd.Key]uint64 // failures that were acted upon
	gate   map[bfd.Key]bool   // strict sessions that may run
	errors map[bfd.Key]error
	resets map[netip.Addr]reset // of sessions that are not established again
}

// A reset is the end of a BGP session by BFD.
type reset struct {
	why string
	at  time.Time
}

func newLiveness(s *bfd.Server) *liveness {
	return &liveness{server: s, counts: map[bfd.Key]uint64{}, gate: map[bfd.Key]bool{}, resets: map[netip.Addr]reset{}}
}

func bfdKey(p Peer) bfd.Key {
	return bfd.Key{Remote: p.Address, Local: p.LocalAddress, Multihop: p.BFD.Multihop}
}

// set makes the BFD sessions those of peers.
func (l *liveness) set(peers []Peer) {
	want := make([]bfd.Peer, 0, len(peers))
	l.peers = make(map[bfd.Key]Peer, len(peers))
	for _, p := range peers {
		if p.BFD.Interval == 0 {
			continue
		}
		l.peers[bfdKey(p)] = p
		want = append(want, bfd.Peer{
			Key: bfdKey(p), Interval: p.BFD.Interval, Multiplier: p.BFD.Multiplier, MinTTL: p.BFD.MinTTL,
		})
	}
	l.errors = l.server.Set(want)
	for key := range l.counts {
		if _, ok := l.peers[key]; !ok {
			delete(l.counts, key)
			delete(l.gate, key)
			delete(l.resets, key.Remote)
		}
	}
}

// lost returns the peers whose BFD session failed since the last call, with the reason, and brings the gates up to date.
func (l *liveness) lost() map[netip.Addr]string {
	out := map[netip.Addr]string{}
	all, _ := l.server.Status()
	for _, s := range all {
		if s.Failures > l.counts[s.Key] {
			out[s.Remote] = "BFD: " + s.Cause.String()
			l.resets[s.Remote] = reset{out[s.Remote], time.Now()}
			l.gate[s.Key] = false
		}
		l.counts[s.Key] = s.Failures
		// A router that takes BFD down on purpose does not mean BGP (RFC 5882, section 4.2).
		if s.State == bfd.Up || s.PeerState == bfd.AdminDown {
			l.gate[s.Key] = true
		}
	}
	return out
}

// reason is why a session is not established, as far as BFD knows.
func (l *liveness) reason(s engine.Session) string {
	if s.State == "established" && s.Since.After(l.resets[s.Address].at) {
		delete(l.resets, s.Address)
	}
	return l.resets[s.Address].why
}

// holds reports whether a peer's session must wait for BFD.
func (l *liveness) holds(p Peer) bool {
	return p.BFD.Interval > 0 && p.BFD.Strict && !l.gate[bfdKey(p)]
}

// status returns the BFD sessions by the peers' addresses.
func (l *liveness) status() map[netip.Addr]*BFDStatus {
	out := make(map[netip.Addr]*BFDStatus, len(l.peers))
	for key, err := range l.errors {
		out[key.Remote] = &BFDStatus{State: bfd.Down.String(), PeerState: bfd.Down.String(), LastError: err.Error()}
	}
	all, _ := l.server.Status()
	for _, s := range all {
		b := &BFDStatus{
			State: s.State.String(), PeerState: s.PeerState.String(), Since: s.Since, Detection: s.Detection,
			Transmit: s.Transmit, Failures: s.Failures, LastError: s.Cause.String(),
		}
		switch {
		case s.State == bfd.Up:
		case s.SendError != "":
			b.LastError = "cannot send: " + s.SendError
		case s.PeerState == bfd.AdminDown:
			b.LastError = bfd.CausePeerAdmin.String()
		case s.Detection == 0 && b.LastError == "":
			b.LastError = "the router has not been heard"
		}
		out[s.Remote] = b
	}
	return out
}

// followBFD resets the sessions whose BFD failed, and starts those that waited for it.
func (c *child) followBFD() {
	lost := c.live.lost()
	for a, why := range lost {
		c.log.Warn("BFD failed: resetting the BGP session", "peer", a, "reason", why)
		if err := c.engine.Reset(a, why); err != nil {
			c.log.Debug("cannot reset peer", "peer", a, "error", err)
		}
	}
	for _, p := range c.state.Peers {
		if p.BFD.Strict {
			c.applyPeers(c.state.Peers)
			return
		}
	}
}

// startBFD runs BFD until ctx ends; it outlives no BGP session by more than its packets.
func (c *child) startBFD(ctx context.Context) {
	if err := c.live.server.Run(ctx); err != nil {
		c.log.Warn("BFD ended", "error", err)
	}
}
