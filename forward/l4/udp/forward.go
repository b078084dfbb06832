package udp

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"unsafe"

	"github.com/pharos-lb/pharos/forward"
	"golang.org/x/sys/unix"
)

// take takes a batch of clients' datagrams and sends each to its backend.
func (s *shard) take(at *socket) {
	s.in.used = 0
	n, errno := s.in.receive(at.fd, true)
	if errno != 0 {
		return
	}
	s.server.count.received.Add(uint64(n))
	for i := range n {
		h := &s.in.headers[i]
		data := s.in.slot(i)[:min(int(h.Len), slotSize)]
		source := replySource(s.in.control[i][:h.Hdr.Controllen])
		x := s.find(at, &s.in.names[i], h.Hdr.Namelen, source, data)
		if x == nil {
			continue
		}
		s.used(x)
		x.asked++
		if !s.pass(x, data) {
			continue
		}
		if set := at.binding.settings.Load(); set.Responses == 0 {
			s.end(x, forward.OutcomeServed) // nobody answers
		}
	}
}

// pass sends a datagram to the backend of a session. It reports whether the
// session still is.
func (s *shard) pass(x *session, data []byte) bool {
	for range 2 {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(x.fd), uintptr(unsafe.Pointer(unsafe.SliceData(data))),
			uintptr(len(data)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return true
		case unix.ECONNREFUSED: // tells of an earlier one
			s.refused(x)
			return false
		case unix.EINTR:
		default:
			s.server.count.lost.Add(1)
			return true
		}
	}
	return true
}

// refused ends a session whose backend has nobody at its port: the client's next
// datagram is another's.
func (s *shard) refused(x *session) {
	x.backend.Failed(unix.ECONNREFUSED)
	s.server.count.refused.Add(1)
	s.end(x, forward.OutcomeReset)
}

// used notes that a session is in use.
func (s *shard) used(x *session) {
	x.last = s.now
	if x.at.newest != x {
		x.at.unlink(x)
		x.at.push(x)
	}
}

// find returns the session of a datagram, a new one if need be; nil if it is dropped.
func (s *shard) find(at *socket, name *unix.RawSockaddrInet6, size uint32, source, data []byte) *session {
	k := key{client: addrPort(name), server: asked(source)}
	set := at.binding.settings.Load()
	x := at.sessions[k]
	var wanted netip.AddrPort
	if set.QUIC != nil {
		if address, ok := set.QUIC.server(data); ok {
			wanted = address
			if x != nil && x.backend.Address() != address {
				k.backend = address
				x = at.sessions[k]
			}
		}
	}
	if x != nil {
		return x
	}
	if s.stopping != 0 {
		s.server.count.lost.Add(1)
		return nil
	}
	if at.binding.active.Add(1) > int64(set.Sessions) {
		if at.oldest == nil {
			at.binding.active.Add(-1)
			s.server.count.full.Add(1)
			return nil
		}
		s.server.count.evicted.Add(1)
		s.end(at.oldest, forward.OutcomeClient)
	}
	backend := s.choose(set, at, k, wanted)
	if backend == nil {
		at.binding.active.Add(-1)
		s.server.count.noBackend.Add(1)
		return nil
	}
	x = &session{key: k, at: at, backend: backend, name: *name, nameLen: size, source: slices.Clone(source), last: s.now}
	if err := s.connect(x); err != nil {
		backend.Failed(err)
		backend.Done()
		at.binding.active.Add(-1)
		s.server.count.noBackend.Add(1)
		return nil
	}
	backend.Opened()
	s.server.count.sessions.Add(1)
	at.sessions[k] = x
	at.push(x)
	s.sessions[x.fd] = x
	return x
}

// choose claims the backend that a connection ID names, else one by the service's policy.
func (s *shard) choose(set *Listener, at *socket, k key, wanted netip.AddrPort) *forward.Backend {
	registry := s.server.registry
	edition := registry.Load()
	if wanted.IsValid() {
		if b := registry.ClaimAddress(set.Service, wanted); b != nil {
			s.server.count.byID.Add(1)
			return b
		}
	}
	b, err := edition.Claim(set.Service, forward.Flow{Client: k.client, Server: at.binding.real, Datagram: true}, nil)
	if err != nil {
		return nil
	}
	return b
}

// connect opens the socket of a session.
func (s *shard) connect(x *session) error {
	address := x.backend.Address()
	family := unix.AF_INET6
	if address.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	var sa unix.RawSockaddrInet6
	size := sockaddr(&sa, address, false)
	if _, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(size)); errno != 0 {
		unix.Close(fd)
		return errno
	}
	x.fd = int32(fd)
	if err := s.watch(x.fd); err != nil {
		unix.Close(fd)
		return err
	}
	return nil
}

// answer takes what a backend has sent and puts it among what goes to clients.
func (s *shard) answer(x *session) {
	if s.outFD != x.at.fd || s.out.used == width {
		s.flush()
	}
	s.outFD = x.at.fd
	first := s.out.used
	n, errno := s.out.receive(x.fd, false)
	switch {
	case errno == unix.ECONNREFUSED:
		s.refused(x)
		return
	case errno != 0:
		return
	}
	for i := first; i < first+n; i++ {
		s.out.address(i, x)
	}
	s.out.used += n
	x.replies += n
	s.used(x)
	s.server.count.answered.Add(uint64(n))
	if r := x.at.binding.settings.Load().Responses; r > 0 && x.replies >= r*x.asked {
		s.end(x, forward.OutcomeServed)
	}
}

// flush sends what waits for clients.
func (s *shard) flush() {
	if s.out.used > 0 {
		if lost := s.out.send(s.outFD); lost > 0 {
			s.server.count.lost.Add(uint64(lost))
		}
	}
}

// sockaddr writes address into sa and returns its length.
func sockaddr(sa *unix.RawSockaddrInet6, address netip.AddrPort, dual bool) uint32 {
	*sa = unix.RawSockaddrInet6{}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], address.Port())
	if address.Addr().Is4() && !dual {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		v4.Family = unix.AF_INET
		v4.Addr = address.Addr().As4()
		return unix.SizeofSockaddrInet4
	}
	sa.Family = unix.AF_INET6
	sa.Addr = address.Addr().As16()
	return unix.SizeofSockaddrInet6
}

// addrPort reads an address that the kernel wrote, without its zone.
func addrPort(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	if sa.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port)
}
