package udp

import (
	"net/netip"
	"time"

	"github.com/pharos-lb/pharos/forward"
)

// Gone says what becomes of a session when its backend is out of use: down, drained or no longer configured. What its client
// sends after its end begins another one.
type Gone uint8

// The policies.
const (
	// GoneSilent ends it when a datagram has had no answer for GoneAfter and the next one comes: a client of UDP is not told
	// that nobody is there, and would go on for ever. While there is nobody else it goes on.
	GoneSilent Gone = iota
	GoneKeep        // it goes on
	GoneDrain       // it goes on for GoneAfter
	GoneAbort       // it ends; of a backend that is drained, as GoneSilent has it
)

// Defaults of GoneAfter, for GoneSilent and for GoneDrain.
const (
	DefaultSilentAfter = 2 * time.Second
	DefaultDrainAfter  = 30 * time.Second
)

// ends reports whether sessions end without their client's doing.
func (g Gone) ends() bool { return g == GoneDrain || g == GoneAbort }

// of is the policy for a backend that is gone. A drain lets what there is finish, so it is not for GoneAbort; a session has no end of
// its own, so silence ends it.
func (g Gone) of(drained bool) Gone {
	if g == GoneAbort && drained {
		return GoneSilent
	}
	return g
}

// forsaken reports whether a session has to be given another backend if there is one.
func (s *shard) forsaken(x *session, set *Listener) bool {
	if x.waiting == 0 || set.BackendGone.of(true) != GoneSilent || s.now-x.waiting < int64(set.GoneAfter) || s.stopping != 0 {
		return false
	}
	s.server.registry.Load() // refreshes what Gone tells
	gone, drained := x.backend.GoneFor()
	return gone > 0 && set.BackendGone.of(drained) == GoneSilent
}

// elsewhere ends a session that is forsaken, and begins another one for its client. Where nobody else is left it
// returns the same.
func (s *shard) elsewhere(x *session, set *Listener, wanted netip.AddrPort) *session {
	at, k, old := x.at, x.key, x.backend
	b := s.choose(set, at, k, netip.AddrPort{})
	if b == nil || b == old {
		if b != nil {
			b.Done()
		}
		x.waiting = s.now // and then it is tried again
		return x
	}
	next := *x // where its client is
	s.pass()
	if at.sessions[k] == x { // it has not ended by that
		s.server.count.gone.Add(1)
		s.end(x, forward.OutcomeTimeout, false)
	}
	at.binding.active.Add(1)
	fresh := s.beginWith(at, set, k, wanted, b)
	if fresh != nil {
		fresh.name, fresh.nameLen, fresh.source, fresh.from = next.name, next.nameLen, next.source, next.from
	}
	return fresh
}

// led reports whether a connection ID leads to a backend. Servers give them out, so the connection is there already and only its
// client's address is new: who merely drains keeps it. One that is down gets nothing that is new to this node, unless its sessions are
// kept in any case.
func (l *Listener) led(b *forward.Backend) bool {
	gone, drained := b.GoneFor()
	switch {
	case gone == 0 || l.BackendGone == GoneKeep:
		return true
	case !drained:
		return false
	}
	return l.BackendGone != GoneDrain || gone < l.GoneAfter
}

// endTurn is how many sessions end, or go back to their sockets, before datagrams get their turn.
const endTurn = 64

// judge looks for backends of an address's sessions that are gone. Those that the kernel carries to one are given back to their
// sockets, and all of them end that have to by the policy. It says when to look again.
func (s *shard) judge(at *socket, set *Listener) int64 {
	if !set.BackendGone.ends() && at.laned.oldest == nil {
		return s.now + int64(time.Hour)
	}
	s.server.registry.Load() // refreshes what Gone tells
	next, turn := s.now+int64(housekeeping), endTurn
	for _, c := range at.crowds {
		gone, drained := c.backend.GoneFor()
		if gone == 0 {
			continue
		}
		for ; c.laned != nil; turn-- {
			if turn == 0 {
				return s.now
			}
			s.leaveLane(c.laned)
		}
		if wait := set.GoneAfter - gone; set.BackendGone == GoneDrain && wait > 0 {
			next = min(next, s.now+int64(wait))
			continue
		}
		if !set.BackendGone.of(drained).ends() {
			continue
		}
		for ; c.carried != nil; turn-- {
			if turn == 0 {
				return s.now
			}
			s.server.count.gone.Add(1)
			s.end(c.carried, forward.OutcomeClient, false)
		}
	}
	return next
}

// A crowd is the sessions of an address that have one backend: they leave together, and nobody looks through the others for them.
type crowd struct {
	backend        *forward.Backend
	carried, laned *session // by sockets, by the kernel: the first of each
}

// gather puts a session, which sockets carry, among those of its backend.
func (at *socket) gather(x *session) {
	c := at.crowds[x.backend]
	if c == nil {
		c = &crowd{backend: x.backend}
		at.crowds[x.backend] = c
	}
	x.crowd = c
	c.move(x, nil, &c.carried)
}

// scatter takes a session, which sockets carry, from among those of its backend.
func (at *socket) scatter(x *session) {
	c := x.crowd
	if c.move(x, &c.carried, nil); c.carried == nil && c.laned == nil {
		delete(at.crowds, c.backend)
	}
	x.crowd = nil
}

// move takes a session from one list to another; nil = none.
func (c *crowd) move(x *session, from, to **session) {
	if from != nil {
		if x.before != nil {
			x.before.after = x.after
		} else {
			*from = x.after
		}
		if x.after != nil {
			x.after.before = x.before
		}
	}
	x.before, x.after = nil, nil
	if to != nil {
		if x.after = *to; x.after != nil {
			x.after.before = x
		}
		*to = x
	}
}
