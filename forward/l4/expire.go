package l4

import (
	"cmp"
	"time"

	"golang.org/x/sys/unix"
)

// look ends a flow whose time is over, or says when to look again.
func (s *shard) look(f *flow) {
	set := f.binding.settings.Load()
	switch f.phase {
	case phaseGreeting:
		if due := f.began + int64(set.Hello); s.now < due {
			s.timers.set(f, due)
			return
		}
		why := dropHelloTimeout
		if f.awaitsHeader() {
			why = dropProxyTimeout
		}
		s.abandon(f, why)
	case phaseQueued: // the line has its own limit of time
		s.timers.set(f, s.now+int64(set.Idle))
	case phaseConnecting:
		due := f.began + int64(set.Connect)
		if s.now < due {
			s.timers.set(f, due)
			return
		}
		s.timers.set(f, s.now+int64(set.Connect))
		s.connectFailed(f, unix.ETIMEDOUT)
	case phaseRelaying:
		due, why := f.due(set)
		if s.now >= due {
			s.abandon(f, why)
			return
		}
		if !f.settled {
			if grown := f.born + int64(settleAfter); s.now < grown {
				due = min(due, grown)
			} else {
				s.settle(f, set)
			}
		}
		s.timers.set(f, due)
	}
}

// due is when a flow that moves nothing more is ended, and why.
func (f *flow) due(set *settings) (int64, drop) {
	due, why := f.last+int64(set.Idle), dropIdle
	if set.Lifetime > 0 {
		if end := f.born + int64(set.Lifetime); end < due {
			due, why = end, dropLifetime
		}
	}
	if f.goneAt != 0 && f.goneAt < due {
		due, why = f.goneAt, dropBackendGone
	}
	return due, why
}

// settle gives the backend's connection the keep-alives that the client's has
// from its listening socket: a backend that has lost power says nothing.
func (s *shard) settle(f *flow, set *settings) {
	f.settled = true
	keepAlive(f.server.fd, set.KeepAlive)
}

// keepAlive has the kernel ask a silent peer whether it is still there, three
// times. 0 = never.
func keepAlive(fd int32, every time.Duration) {
	if every <= 0 {
		setOption(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
		return
	}
	seconds := max(int(every/time.Second), 1)
	setOption(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	setOption(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds)
	setOption(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, max(seconds/3, 1))
	setOption(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3)
}

// keepHouse ends what lasts too long without anybody's event: flows of backends
// that are out of use, pipes that nobody needs.
func (s *shard) keepHouse() {
	s.keepTime = 0
	if len(s.timers) > 0 || len(s.pipes.free) > 0 {
		s.keepTime = s.now + int64(housekeeping)
	}
	if !s.pipes.used {
		s.pipes.close()
	}
	s.pipes.used = false
	if plan := s.server.registry.Load().Version(); plan != s.judged { // Load refreshes what Gone tells
		s.judged, s.unjudged = plan, 0
	}
	s.judge()
}

const (
	// judgeTurn is how many flows are asked for their backend, and endTurn how many timers looked at, before others get their turn.
	judgeTurn = 1024
	endTurn   = 64
)

// judge looks at the backends of some of the flows that the newest plan has not been held against.
func (s *shard) judge() {
	last := min(s.unjudged+judgeTurn, len(s.flows))
	for _, f := range s.flows[min(s.unjudged, last):last] {
		if f != nil && f.phase == phaseRelaying {
			s.judgeBackend(f)
		}
	}
	s.unjudged = last
}

// judgeBackend notes when a flow has to end since its backend is gone.
func (s *shard) judgeBackend(f *flow) {
	due := int64(0)
	if gone, drained := f.backend.GoneFor(); gone > 0 {
		switch d := f.binding.settings.Load().departure(f.service()); d.Policy {
		case GoneAbort:
			if !drained { // which lets it finish what it has
				due = s.now
			}
		case GoneDrain:
			due = s.now + int64(max(cmp.Or(d.After, DefaultGoneAfter)-gone, 0))
		}
	}
	if f.goneAt = due; due != 0 {
		s.sooner(f, due)
	}
}

// lookAtAll has every timer look again: settings have changed. What is open when the first limit of a service comes counts for it.
func (s *shard) lookAtAll() {
	s.unjudged = 0
	counts := s.server.services.on.Load()
	for _, f := range s.flows {
		if f != nil && counts && !f.counted && f.phase != phaseGreeting {
			f.counted = s.server.services.enter(f.service(), 0)
		}
		if f != nil && f.index >= 0 {
			s.look(f)
		}
	}
}
