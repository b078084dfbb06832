package udp

import (
	"net/netip"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l4/kernel"
	"github.com/pharos-lb/pharos/forward/l4/udp/offload"
)

const (
	// A session proves to be worth the lane by an answer and another datagram of its client, or, where nobody answers, by so
	// many datagrams.
	manyUnanswered = 16
	// laneRetry is when one that could not be entered is tried again.
	laneRetry = 5 * time.Second
	// Sessions in the lane are looked at four times in Listener.Idle, but not less and not more often than this.
	sweepAtLeast = 5 * time.Second
	sweepAtMost  = 250 * time.Millisecond
	// sweepTurn is how many are looked at before datagrams get their turn, and of how many the one is chosen that gives way to
	// another session.
	sweepTurn = 64
)

// laned is what is known of a session that the kernel carries.
type laned struct {
	session    offload.Session
	generation uint64
	checked    int64
}

// openLane opens the lane if a listener wants it and there is none. What stands in the way is said, and sockets carry all.
func (s *Server) openLane(next []planned) *offload.Lane {
	if !wantsLane(next) || s.lane.Load() != nil {
		return nil
	}
	lane, err := offload.New(offload.Options{Sessions: s.offload, Log: s.log})
	if err != nil {
		s.log.Warn("the kernel carries no UDP sessions, sockets carry all of them: `offload: kernel` takes Linux 6.6 and the capabilities CAP_BPF and CAP_NET_ADMIN",
			"error", err)
		return nil
	}
	return lane
}

func wantsLane(next []planned) bool {
	for _, p := range next {
		if p.set.Offload {
			return true
		}
	}
	return false
}

// setLane puts a lane that was opened for the present listeners into effect, and closes one that they do not want. s.mu is held.
func (s *Server) setLane(fresh *offload.Lane, wanted bool) {
	s.laneWanted = wanted
	switch old := s.lane.Load(); {
	case fresh != nil:
		s.lane.Store(fresh)
	case old != nil && !wanted:
		s.lane.Store(nil)
		s.closeLane(old)
	}
}

// closeLane closes a lane and keeps what it has counted. s.mu is held.
func (s *Server) closeLane(lane *offload.Lane) {
	lane.Close()
	st := lane.Stats()
	st.Active = 0
	s.lanePast.Add(st)
}

// offer has the kernel carry a session from here on, if it is worth it.
func (s *shard) offer(x *session, set *Listener) {
	if s.now < x.tryAgain || x.key.bound != 0 || s.stopping != 0 ||
		(x.replies == 0 || x.asked < 2) && x.asked < manyUnanswered {
		return
	}
	lane := s.server.lane.Load()
	if lane == nil {
		return
	}
	if x.lane != nil {
		if x.lane.generation == lane.Generation() {
			return // one that the kernel has left to the socket: too long, a fragment
		}
		s.leaveLane(x)
	}
	if x.backend.Gone() {
		return
	}
	server := netip.AddrFrom16(x.key.server).Unmap()
	if x.key.server == [16]byte{} {
		server = x.at.binding.real.Addr()
	}
	own := offload.Session{
		Client: unmapped(x.client()), Server: netip.AddrPortFrom(server, x.at.binding.real.Port()),
		Local: unmapped(kernel.LocalAddress(x.upstream.fd)), Backend: unmapped(x.upstream.address),
	}
	generation, refusal := lane.Enter(own)
	if refusal != offload.Entered {
		x.tryAgain = s.now + int64(laneRetry)
		return
	}
	x.lane, x.waiting = &laned{session: own, generation: generation, checked: s.now}, 0
	x.at.used.unlink(x)
	x.at.laned.push(x)
	x.crowd.move(x, &x.crowd.carried, &x.crowd.laned)
	s.lookBy(s.now + min(int64(sweepEvery(set.Idle)), int64(housekeeping)))
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func sweepEvery(idle time.Duration) time.Duration {
	return min(max(idle/4, sweepAtMost), sweepAtLeast)
}

// leaveLane has the socket of a session carry it again, as one that was used just now.
func (s *shard) leaveLane(x *session) {
	if x.lane == nil {
		return
	}
	if lane := s.server.lane.Load(); lane != nil {
		lane.Leave(x.lane.session)
	}
	x.at.laned.unlink(x)
	x.crowd.move(x, &x.crowd.laned, &x.crowd.carried)
	x.lane, x.last = nil, s.now
	x.at.used.push(x)
}

// leaveLanes has sockets carry all sessions of an address again.
func (s *shard) leaveLanes(at *socket) {
	for at.laned.oldest != nil {
		s.leaveLane(at.laned.oldest)
	}
}

// sweep looks at the sessions in the lane whose turn it is, ends those that are silent for too long, and says when to look again.
func (s *shard) sweep(at *socket) int64 {
	set := at.binding.settings.Load()
	every := int64(sweepEvery(set.Idle))
	for range sweepTurn {
		x := at.laned.oldest
		if x == nil {
			return s.now + int64(time.Hour)
		}
		if set.Offload && s.now < x.lane.checked+every {
			return x.lane.checked + every
		}
		switch {
		case !s.refresh(x) || !set.Offload || x.backend.Gone(): // its next datagrams are looked at one by one
			s.leaveLane(x)
		case s.now-x.last >= int64(set.Idle):
			s.end(x, forward.OutcomeServed, false)
		default:
			x.lane.checked = s.now
			at.laned.renew(x)
		}
	}
	return s.now
}

// refresh asks when a session in the lane was last used. It reports false if it is there no more.
func (s *shard) refresh(x *session) bool {
	lane := s.server.lane.Load()
	if lane == nil || x.lane.generation != lane.Generation() {
		return false
	}
	silent, ok := lane.Silent(x.lane.session)
	if ok {
		x.last = max(x.last, s.now-int64(silent))
	}
	return ok
}

// oldest returns the session of an address that gives way to another one, nil if there is none. Of those in the lane it knows
// what it knew when they were looked at.
func (s *shard) oldest(at *socket) *session {
	var found *session
	for x, n := at.laned.oldest, 0; x != nil && n < sweepTurn; x, n = x.newer, n+1 {
		if found == nil || x.last < found.last {
			found = x
		}
	}
	used := at.used.oldest
	if found == nil {
		return used
	}
	if s.refresh(found); used != nil && used.last <= found.last {
		return used
	}
	return found
}
