package udp

import (
	"net/netip"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l4/kernel"
)

// A session is one client at one of our addresses. It belongs to one shard.
type session struct {
	key      key
	at       *socket
	backend  *forward.Backend
	upstream *upstream
	name     kernel.RawAddr // of the client
	nameLen  uint32
	from     uint8              // how much of source there is; 0 = answers leave from the socket's address
	source   [controlSpace]byte // the control message that says where they leave from
	last     int64
	asked    int // datagrams of the client
	replies  int
	waiting  int64          // since when a datagram has had no answer; 0 = none, or the kernel carries it
	sought   netip.AddrPort // the backend that a connection ID has named, whether it could be had or not
	lane     *laned         // nil = its socket carries it
	tryAgain int64          // before that it is not entered into the lane

	newer, older  *session // in one of socket's orders
	crowd         *crowd
	before, after *session // in one of crowd's lists
}

// A key tells the sessions of a socket apart.
type key struct {
	client, server [16]byte
	port           uint16
	// bound is above 0 for packets whose connection ID names another backend than
	// the session of their addresses has: the place of that backend in QUIC.order.
	bound uint16
}

// A socket is where a shard takes the datagrams of one address.
type socket struct {
	fd       int32
	binding  *binding
	sessions map[key]*session
	used     order // those that sockets carry, by last use
	laned    order // those that the kernel carries, by when they were looked at
	crowds   map[*forward.Backend]*crowd
}

// An order is sessions in a row.
type order struct{ newest, oldest *session }

func (o *order) unlink(x *session) {
	if x.newer != nil {
		x.newer.older = x.older
	} else {
		o.newest = x.older
	}
	if x.older != nil {
		x.older.newer = x.newer
	} else {
		o.oldest = x.newer
	}
	x.newer, x.older = nil, nil
}

func (o *order) push(x *session) {
	x.older = o.newest
	if o.newest != nil {
		o.newest.newer = x
	} else {
		o.oldest = x
	}
	o.newest = x
}

// renew makes a session the newest.
func (o *order) renew(x *session) {
	if o.newest != x {
		o.unlink(x)
		o.push(x)
	}
}

// keptSessions is how many session structs a shard keeps for the next use.
const keptSessions = 1024

func (s *shard) newSession() *session {
	if n := len(s.spare); n > 0 {
		x := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return x
	}
	return new(session)
}

// serves reports whether a session is where datagrams go whose connection ID names a backend.
func (x *session) serves(wanted netip.AddrPort) bool {
	return x.backend.Address() == wanted || x.sought == wanted
}

// used notes that a session is in use.
func (s *shard) used(x *session) {
	x.last = s.now
	if x.lane == nil {
		x.at.used.renew(x)
	}
}

// end ends a session. Its socket rests for another one if nothing more can come for it.
func (s *shard) end(x *session, outcome forward.Outcome, rest bool) {
	s.leaveLane(x) // before its socket can be another one's
	x.at.used.unlink(x)
	x.at.scatter(x)
	delete(x.at.sessions, x.key)
	s.sessions--
	x.upstream.session = nil
	if rest && s.rests.put(x.upstream, s.now) {
		s.lookBy(s.now + int64(housekeeping))
	} else {
		s.hangUp(x.upstream)
	}
	x.at.binding.active.Add(-1)
	x.backend.Report(outcome)
	x.backend.Done()
	if len(s.spare) < keptSessions {
		*x = session{}
		s.spare = append(s.spare, x)
	}
}
