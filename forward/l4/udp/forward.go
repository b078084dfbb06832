package udp

import (
	"net/netip"
	"unsafe"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l4/kernel"
	"golang.org/x/sys/unix"
)

const (
	// takeTurns is how many batches one socket has before others get their turn.
	takeTurns = 4
	// few is how many answers are looked for at a time, until so many were there: then the
	// kernel is asked to join them.
	few = 8
)

// A span is messages in a row of the batch that came from clients, of one session.
type span struct {
	session  *session
	first, n int
}

// take takes clients' datagrams and sends them to their backends.
func (s *shard) take(at *socket) {
	for range takeTurns {
		s.in.used = 0
		n, errno := s.in.receive(at.fd, width)
		if errno != 0 {
			return
		}
		for i := range n {
			s.deliver(at, i)
		}
		s.pass()
		if n < width {
			return
		}
	}
	s.more = append(s.more, at.fd)
}

// deliver finds the session of the message in slot i. Those of one session are sent together.
func (s *shard) deliver(at *socket, i int) {
	source, segment := s.in.told(i)
	data := s.in.message(i)
	n := pieces(len(data), segment)
	s.server.count.received.Add(uint64(n))
	set := at.binding.settings.Load()
	if s.run.first+s.run.n != i { // before a session is looked for: its last datagram may have been what ends it
		s.pass()
	}
	if set.QUIC != nil && segment > 0 && !set.QUIC.alike(data, segment) {
		s.pass()
		s.deliverEach(at, i, source, data, segment)
		return
	}
	x := s.find(at, i, source, data)
	if x == nil {
		return
	}
	x.asked += n
	if s.run.session != x {
		s.pass() // another's: x does not end by it
		s.run = span{x, i, 0}
	}
	s.in.direct(i, nil, 0, nil, segment)
	s.run.n++
}

// deliverEach delivers the datagrams of a message that go to several backends. Nothing has been gathered.
func (s *shard) deliverEach(at *socket, i int, source, data []byte, segment int) {
	for len(data) > 0 {
		n := min(segment, len(data))
		if x := s.find(at, i, source, data[:n]); x != nil {
			x.asked++
			s.sent(x, data[:n])
		}
		data = data[n:]
	}
}

// pass sends what has been gathered to its backend.
func (s *shard) pass() {
	x, first, n := s.run.session, s.run.first, s.run.n
	if x == nil {
		return
	}
	s.run = span{}
	if n == 1 && s.in.headers[first].Hdr.Control == nil {
		s.sent(x, s.in.message(first))
		return
	}
	lost, refused := s.in.send(x.upstream.fd, first, n)
	if lost > 0 {
		s.server.count.lost.Add(uint64(lost))
	}
	s.passed(x, refused)
}

// sent sends one datagram to the backend of a session.
func (s *shard) sent(x *session, data []byte) {
	for range 2 {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(x.upstream.fd), uintptr(unsafe.Pointer(unsafe.SliceData(data))),
			uintptr(len(data)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case 0, unix.ECONNREFUSED: // tells of an earlier one
		default:
			s.server.count.lost.Add(1)
		}
		s.passed(x, errno == unix.ECONNREFUSED)
		return
	}
}

// passed notes that datagrams have gone to a backend.
func (s *shard) passed(x *session, refused bool) {
	switch set := x.at.binding.settings.Load(); {
	case refused:
		s.refused(x)
	case set.Responses == 0: // nobody answers
		s.end(x, forward.OutcomeServed, true)
	case set.Offload:
		s.offer(x, set)
	}
}

// refused ends a session whose backend has nobody at its port: the client's next
// datagram is another's.
func (s *shard) refused(x *session) {
	x.backend.Failed(unix.ECONNREFUSED)
	s.server.count.refused.Add(1)
	s.end(x, forward.OutcomeReset, false)
}

// keyOf returns the key of a message that came from a name.
func keyOf(name *kernel.RawAddr, source []byte) key {
	k := key{server: asked(source), port: kernel.Port(name)}
	if name.Family == unix.AF_INET {
		k.client[10], k.client[11] = 0xff, 0xff
		copy(k.client[12:], (*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr[:])
	} else {
		k.client = name.Addr
	}
	return k
}

// find returns the session of a datagram of the message in slot i, a new one if need be; nil
// if it is dropped.
func (s *shard) find(at *socket, i int, source, data []byte) *session {
	k := keyOf(&s.in.names[i], source)
	set := at.binding.settings.Load()
	x := at.sessions[k]
	var wanted netip.AddrPort
	if set.QUIC != nil {
		if place, ok := set.QUIC.server(data); ok {
			wanted = set.QUIC.address(place)
			if x != nil && !x.serves(wanted) {
				k.bound = place + 1
				if x = at.sessions[k]; x != nil && !x.serves(wanted) {
					s.pass()                 // the numbers are others since a reload
					if at.sessions[k] == x { // it has not ended by that
						s.end(x, forward.OutcomeServed, false)
					}
					x = nil
				}
			}
		}
	}
	switch {
	case x == nil:
		x = s.begin(at, set, k, wanted)
	case s.forsaken(x, set):
		x = s.elsewhere(x, set, wanted)
	}
	if x == nil {
		return nil
	}
	if x.nameLen == 0 {
		x.name, x.nameLen = s.in.names[i], s.in.headers[i].Hdr.Namelen
		x.from = uint8(copy(x.source[:], source))
	}
	if x.waiting == 0 && x.lane == nil {
		x.waiting = s.now
	}
	s.used(x)
	return x
}

// begin begins a session, nil if that cannot be.
func (s *shard) begin(at *socket, set *Listener, k key, wanted netip.AddrPort) *session {
	if s.stopping != 0 {
		s.server.count.lost.Add(1)
		return nil
	}
	if !s.admit(set, k) {
		return nil
	}
	// A shard that has none to give up takes one all the same, or its clients would never be served
	// while others have them all.
	if at.binding.active.Add(1) > int64(set.Sessions) && len(at.sessions) > 0 {
		s.server.count.evicted.Add(1)
		s.pass() // what it has been sent before it ends
		if x := s.oldest(at); x != nil {
			s.end(x, forward.OutcomeClient, false)
		}
	}
	b := s.choose(set, at, k, wanted)
	if b == nil {
		at.binding.active.Add(-1)
		s.server.count.noBackend.Add(1)
		return nil
	}
	return s.beginWith(at, set, k, wanted, b)
}

// beginWith begins a session of a backend that was claimed for it. It is counted as active already.
func (s *shard) beginWith(at *socket, set *Listener, k key, wanted netip.AddrPort, b *forward.Backend) *session {
	x := s.newSession()
	x.key, x.at, x.last, x.backend, x.sought = k, at, s.now, b, wanted
	if err := s.connect(x); err != nil {
		x.backend.Failed(err)
		x.backend.Done()
		at.binding.active.Add(-1)
		s.server.count.noBackend.Add(1)
		return nil
	}
	x.backend.Opened()
	at.binding.begun.Add(1)
	s.server.count.sessions.Add(1)
	at.sessions[k] = x
	at.used.push(x)
	at.gather(x)
	s.sessions++
	s.lookBy(s.now + int64(set.Idle))
	if set.BackendGone.ends() {
		s.lookBy(s.now + int64(housekeeping))
	}
	return x
}

// choose claims the backend that a connection ID names, else one by the service's policy.
func (s *shard) choose(set *Listener, at *socket, k key, wanted netip.AddrPort) *forward.Backend {
	registry := s.server.registry
	edition := registry.Load()
	if wanted.IsValid() {
		switch b := registry.ClaimAddress(set.Service, wanted); {
		case b == nil:
		case set.led(b):
			s.server.count.byID.Add(1)
			return b
		default:
			b.Done()
		}
	}
	client := netip.AddrPortFrom(netip.AddrFrom16(k.client).Unmap(), k.port)
	flow := forward.Flow{Client: client, Server: at.binding.real, Datagram: true}
	if set.Overflow {
		flow.Overflow = at.binding.real.Port()
	}
	b, err := edition.Claim(set.Service, flow, nil)
	if err != nil {
		return nil
	}
	return b
}

// answer takes what a backend has sent and puts it among what goes to clients.
func (s *shard) answer(u *upstream) {
	for range takeTurns {
		x := u.session
		if x == nil {
			s.stray(u)
			return
		}
		if s.outFD != x.at.fd || s.out.used == width {
			s.flush()
		}
		s.outFD = x.at.fd
		most := few
		if u.bulky {
			most = width
		}
		most = min(most, width-s.out.used)
		n, errno := s.out.receive(u.fd, most)
		switch {
		case errno == unix.ECONNREFUSED:
			s.refused(x)
			return
		case errno != 0:
			return
		}
		for i := s.out.used; i < s.out.used+n; i++ {
			_, segment := s.out.told(i)
			datagrams := pieces(len(s.out.message(i)), segment)
			s.out.direct(i, &x.name, x.nameLen, x.source[:x.from], segment)
			x.replies, x.waiting = x.replies+datagrams, 0
			s.server.count.answered.Add(uint64(datagrams))
		}
		s.out.used += n
		s.used(x)
		if n == few && !u.bulky {
			u.bulk()
		}
		if r := x.at.binding.settings.Load().Responses; r > 0 && x.replies >= r*x.asked {
			s.end(x, forward.OutcomeServed, n < most)
			return
		}
		if n < most {
			return
		}
	}
	s.more = append(s.more, u.fd)
}

// stray drops what has come for nobody any more.
func (s *shard) stray(u *upstream) {
	if s.out.used == width {
		s.flush()
	}
	for range takeTurns {
		n, errno := s.out.receive(u.fd, width)
		if errno != 0 && errno != unix.ECONNREFUSED {
			return
		}
		s.server.count.stray.Add(uint64(n))
	}
	s.more = append(s.more, u.fd)
}

// flush sends what waits for clients.
func (s *shard) flush() {
	if s.out.used > 0 {
		lost, _ := s.out.send(s.outFD, 0, s.out.used)
		if lost > 0 {
			s.server.count.lost.Add(uint64(lost))
		}
		s.out.used = 0
	}
}
