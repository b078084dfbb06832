package udp

import (
	"net/netip"
	"time"
	"unsafe"

	"github.com/pharos-lb/pharos/forward/l4/kernel"
	"golang.org/x/sys/unix"
)

const (
	// restAtLeast is how long a socket rests before another session has it, so that
	// a copy of an answer that is still under way finds nobody.
	restAtLeast = 100 * time.Millisecond
	// restAtMost is how long one is kept for another session, and maxAge how old it gets: its
	// port is not to be the same for ever.
	restAtMost = 30 * time.Second
	maxAge     = 5 * time.Minute
	// maxResting is how many rest in a shard; more are closed.
	maxResting = 4096
)

// An upstream is a socket that is connected to a backend. It has one session at a time:
// whatever comes from the backend is for that one's client.
type upstream struct {
	fd      int32
	address netip.AddrPort
	opened  int64
	session *session // nil = it rests
	bulky   bool     // the kernel joins its datagrams

	rested int64
	next   *upstream // that has rested for a shorter time
}

// rests are the sockets of a shard that have no session: those of protocols with a known number of
// answers, which have all come. To open and close one costs as much as to carry a datagram and its answer.
type rests struct {
	queues map[netip.AddrPort]*restQueue
	count  int
}

// A restQueue is those of one backend. The first has rested longest.
type restQueue struct{ first, last *upstream }

// put has a socket rest. It reports false if it has to be closed.
func (r *rests) put(u *upstream, now int64) bool {
	if r.count >= maxResting || now-u.opened > int64(maxAge) {
		return false
	}
	q := r.queues[u.address]
	if q == nil {
		q = new(restQueue)
		r.queues[u.address] = q
	}
	u.rested, u.next = now, nil
	if q.last == nil {
		q.first = u
	} else {
		q.last.next = u
	}
	q.last = u
	r.count++
	return true
}

// take returns a socket to a backend that has rested for long enough, nil if there is none.
func (r *rests) take(address netip.AddrPort, now int64) *upstream {
	q := r.queues[address]
	if q == nil || q.first == nil || now-q.first.rested < int64(restAtLeast) {
		return nil
	}
	return r.pop(q)
}

func (r *rests) pop(q *restQueue) *upstream {
	u := q.first
	if q.first = u.next; q.first == nil {
		q.last = nil
	}
	u.next = nil
	r.count--
	return u
}

// expire closes what has rested since before a time.
func (r *rests) expire(before int64, hangUp func(*upstream)) {
	for address, q := range r.queues {
		for q.first != nil && q.first.rested < before {
			hangUp(r.pop(q))
		}
		if q.first == nil {
			delete(r.queues, address)
		}
	}
}

// connect gives a session a socket.
func (s *shard) connect(x *session) error {
	address := x.backend.Address()
	if u := s.rests.take(address, s.now); u != nil {
		s.server.count.reused.Add(1)
		x.upstream, u.session = u, x
		return nil
	}
	family := unix.AF_INET6
	if address.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errno != 0 {
		return errno
	}
	if !s.server.registry.Intake().Room(int(fd)) {
		unix.Close(int(fd))
		return unix.EMFILE
	}
	var sa kernel.RawAddr
	size := kernel.Sockaddr(&sa, address, false)
	if _, _, errno = unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&sa)), uintptr(size)); errno == 0 {
		errno = s.Watch(int32(fd), unix.EPOLLIN|unix.EPOLLET, uint64(fd))
	}
	if errno != 0 {
		unix.Close(int(fd))
		return errno
	}
	s.server.count.opened.Add(1)
	u := &upstream{fd: int32(fd), address: address, opened: s.now, session: x}
	x.upstream = u
	s.handle(u.fd).upstream = u
	return nil
}

// hangUp closes a socket that has no session.
func (s *shard) hangUp(u *upstream) {
	s.handle(u.fd).upstream = nil
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(u.fd), 0, 0)
}

// bulk has the kernel join datagrams that a backend sends in a row.
func (u *upstream) bulk() {
	u.bulky = true
	_ = unix.SetsockoptInt(int(u.fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1) // without it they come one by one
}
