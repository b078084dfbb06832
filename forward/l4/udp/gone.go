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
	GoneAbort       // it ends
)

// Defaults of GoneAfter, for GoneSilent and for GoneDrain.
const (
	DefaultSilentAfter = 2 * time.Second
	DefaultDrainAfter  = 30 * time.Second
)

// ends reports whether sessions end without their client's doing.
func (g Gone) ends() bool { return g == GoneDrain || g == GoneAbort }

// forsaken reports whether a session has to be given another backend if there is one.
func (s *shard) forsaken(x *session, set *Listener) bool {
	if x.waiting == 0 || set.BackendGone != GoneSilent || s.now-x.waiting < int64(set.GoneAfter) || s.stopping != 0 {
		return false
	}
	s.server.registry.Load() // refreshes what Gone tells
	return x.backend.Gone()
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

// judge looks at the sessions of an address after the plan has changed. Those that the kernel carries to a backend that is out of use
// are given back to their sockets, and all of them end that have to by the policy. It says when to look again.
func (s *shard) judge(at *socket, set *Listener) int64 {
	if !set.BackendGone.ends() && at.laned.oldest == nil {
		return s.now + int64(time.Hour)
	}
	again := s.now + int64(housekeeping)
	plan := s.server.registry.Load().Version()
	if plan == at.judged.plan && set == at.judged.set && s.now < at.judged.next {
		return min(again, at.judged.next)
	}
	at.judged = judged{plan: plan, set: set, next: s.now + int64(time.Hour)}
	for x := at.laned.oldest; x != nil; {
		newer := x.newer
		if x.backend.Gone() {
			s.leaveLane(x)
		}
		x = newer
	}
	if set.BackendGone.ends() {
		for x := at.used.oldest; x != nil; {
			newer := x.newer
			s.judgeOne(x, set)
			x = newer
		}
	}
	return min(again, at.judged.next)
}

// judgeOne ends a session if its backend has been out of use for long enough.
func (s *shard) judgeOne(x *session, set *Listener) {
	if !x.backend.Gone() {
		x.goneAt = 0
		return
	}
	if x.goneAt == 0 {
		x.goneAt = s.now
	}
	due := x.goneAt
	if set.BackendGone == GoneDrain {
		due += int64(set.GoneAfter)
	}
	if s.now < due {
		x.at.judged.next = min(x.at.judged.next, due)
		return
	}
	s.server.count.gone.Add(1)
	s.end(x, forward.OutcomeClient, false)
}

// judged says what the sessions of an address were last looked at by.
type judged struct {
	plan uint64
	set  *Listener
	next int64 // when the first that is to end is due
}
