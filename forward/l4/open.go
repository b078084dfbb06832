package l4

import (
	"context"
	"errors"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l4/kernel"
	"golang.org/x/sys/unix"
)

// acceptTurn is how many connections are accepted from one socket before
// anything else has its turn.
const acceptTurn = 64

// acceptBackoff is how long a listening socket rests when this machine has no
// descriptors or memory left.
const acceptBackoff = 10 * time.Millisecond

// accept takes what has connected. Where one connection at a time arrives it does
// not ask whether there is another: epoll would tell.
func (s *shard) accept(l *listening) {
	var sa rawAddr
	for n := range acceptTurn {
		fd, errno := accept(l.fd, &sa)
		switch errno {
		case 0:
			s.admit(l.binding, fd, &sa)
			if n == 0 && !l.burst && l.until == 0 {
				// The event may stand for more: the next turn asks.
				l.burst = s.server.metrics.active.Load() > 64
				return
			}
		case unix.EAGAIN:
			l.burst = n > 1
			return
		case unix.ECONNABORTED, unix.EINTR, unix.EPROTO:
		default:
			s.server.metrics.acceptErrors.Add(1)
			s.server.acceptFailed(l.binding, errno)
			time.Sleep(acceptBackoff) // out of descriptors: nobody else of this shard can do more
			return
		}
	}
	l.burst = true
}

// admit makes a flow of a connection, unless a limit says no.
func (s *shard) admit(b *binding, fd int32, sa *rawAddr) {
	set := b.settings.Load()
	m := s.server.metrics
	if !s.server.intake.Room(int(fd)) {
		m.drop(dropDescriptors)
		reset(fd)
		return
	}
	if m.active.Add(1) > s.server.maxConns() {
		m.active.Add(-1)
		m.drop(dropTooMany)
		reset(fd)
		return
	}
	if s.cutting {
		m.active.Add(-1)
		m.drop(dropCut)
		reset(fd)
		return
	}
	peer := kernel.AddrPort(sa)
	trusted := set.trusts(peer.Addr())
	why, tracked := dropNone, false
	if !s.server.intake.Take() {
		why = dropNodeRate
	} else if set.rate != nil && !set.rate.Take(s.now) {
		why = dropRate
	} else if set.Limits.Connections > 0 && b.active.Load() >= int64(set.Limits.Connections) {
		why = dropListenerFull
	} else if !trusted {
		tracked, why = set.enter(peer.Addr(), s.now)
	}
	if why != dropNone {
		m.active.Add(-1)
		m.drop(why)
		reset(fd)
		return
	}
	b.active.Add(1)
	b.begun.Add(1)
	m.accepted.Add(1)
	if s.keepTime == 0 {
		s.keepTime = s.now + int64(housekeeping)
	}
	f := s.take()
	f.binding, f.set = b, set
	f.client = end{fd: fd, writable: true}
	f.server = end{fd: -1}
	f.peer, f.local = peer, b.real
	if tracked {
		f.source = peer.Addr()
	}
	f.born, f.last, f.began = s.now, s.now, s.now
	f.trusted = trusted
	f.suspect = len(set.AcceptProxy) > 0 && !trusted
	if b.wildcard && set.needsLocal() {
		f.local = kernel.LocalAddress(fd)
	}
	if errno := s.Watch(fd, edges, f.token(false)); errno != 0 {
		s.timers.push(f, s.now)
		s.abandon(f, dropLocal)
		return
	}
	if trusted || set.routes != nil {
		f.phase = phaseGreeting
		s.timers.push(f, s.now+int64(set.Hello))
		if set.DeferAccept > 0 {
			f.client.readable = true
			s.greet(f)
		}
		return
	}
	s.timers.push(f, s.now+int64(min(set.Connect, settleAfter)))
	s.open(f, set.Service)
}

// take returns a flow with a slot.
func (s *shard) take() *flow {
	var f *flow
	if n := len(s.spare); n > 0 {
		f = s.spare[n-1]
		s.spare = s.spare[:n-1]
	} else {
		f = new(flow)
	}
	var slot uint32
	if n := len(s.freeSlots); n > 0 {
		slot = s.freeSlots[n-1]
		s.freeSlots = s.freeSlots[:n-1]
	} else {
		slot = uint32(len(s.flows))
		if s.unjudged == len(s.flows) {
			s.unjudged++
		}
		s.flows = append(s.flows, nil)
		s.rounds = append(s.rounds, 0)
	}
	*f = flow{slot: slot, round: s.rounds[slot], index: -1}
	s.flows[slot] = f
	return f
}

// open starts to connect a flow to a backend of service.
func (s *shard) open(f *flow, service string) {
	if s.server.services.on.Load() && !f.counted {
		if !s.server.services.enter(service, f.set.Limits.ServiceConnections) {
			s.abandon(f, dropServiceFull)
			return
		}
		f.counted = true
	}
	if !s.server.registry.Load().Admit(service) {
		s.abandon(f, dropServiceRate)
		return
	}
	if f.hello == nil && service != f.set.Service {
		f.hello = new(greeting)
	}
	if f.hello != nil {
		f.hello.service = service
	}
	f.phase, f.began = phaseConnecting, s.now
	s.dial(f)
}

// service is where a flow goes.
func (f *flow) service() string {
	if f.hello != nil && f.hello.service != "" {
		return f.hello.service
	}
	return f.set.Service
}

// dial connects to a backend that has not been tried yet.
func (s *shard) dial(f *flow) {
	service := f.service()
	for {
		edition := s.server.registry.Load()
		asked := forward.Flow{Client: f.peer, Server: f.local, From: f.from}
		if f.set.Overflow {
			asked.Overflow = f.binding.real.Port()
		}
		b, err := edition.Claim(service, asked, f.tried)
		switch {
		case errors.Is(err, forward.ErrFull):
			s.queue(f, edition, edition.Terms(service, asked))
			return
		case err != nil && len(f.tried) == 0:
			s.abandon(f, dropNoBackend)
			return
		case err != nil || b == nil:
			s.abandon(f, dropConnectFailed)
			return
		}
		f.backend = b
		if s.begin(f) {
			return
		}
	}
}

// begin starts to connect to f.backend. It reports false when that failed at once
// and another may be tried.
func (s *shard) begin(f *flow) bool {
	f.phase, f.began = phaseConnecting, s.now
	fd, errno := s.connect(f)
	f.server = end{fd: fd}
	switch errno {
	case 0:
		s.connected(f)
		return true
	case unix.EINPROGRESS:
		s.sooner(f, s.now+int64(f.set.Connect))
		return true
	case unix.EMFILE: // no backend's fault, and the same with the next
		s.abandon(f, dropDescriptors)
		return true
	}
	s.failed(f, errno)
	return false
}

// queue waits for a backend while all of them have as much as they may. Who waits
// in line is bounded by the service; each has a goroutine meanwhile.
func (s *shard) queue(f *flow, edition *forward.Edition, terms forward.Terms) {
	ctx, cancel := context.WithCancel(context.Background())
	f.phase, f.began, f.cancel = phaseQueued, s.now, cancel
	service, slot, round := f.service(), f.slot, f.round
	s.server.waiting.Go(func() {
		defer cancel()
		b, err := edition.Await(ctx, service, terms)
		done := s.Do(func() {
			if s.flows[slot] != f || f.round != round {
				if err == nil {
					b.Done()
				}
				return
			}
			s.dequeue(f, b, err)
		})
		if !done && err == nil {
			b.Done()
		}
	})
}

// dequeue goes on with a flow that has waited.
func (s *shard) dequeue(f *flow, b *forward.Backend, err error) {
	f.cancel = nil
	if err != nil {
		s.abandon(f, dropQueue)
		return
	}
	f.backend = b
	if !s.begin(f) {
		s.dial(f)
	}
}

// connect opens a connection to f.backend and watches it.
func (s *shard) connect(f *flow) (int32, unix.Errno) {
	address := f.backend.Address()
	family := unix.AF_INET6
	if address.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, errno := socket(family, unix.SOCK_STREAM)
	if errno != 0 {
		return -1, errno
	}
	if !s.server.intake.Room(int(fd)) {
		closeFD(fd)
		return -1, unix.EMFILE
	}
	if f.set.fromElsewhere() && !f.backend.Elsewhere() {
		if errno := f.set.bindSource(fd, f.peer, address.Addr()); errno != 0 {
			return fd, errno
		}
	}
	if t := f.set.UserTimeout; t > 0 {
		setOption(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(t.Milliseconds()))
	}
	if f.set.FastOpen {
		setOption(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
	}
	var sa rawAddr
	size := kernel.Sockaddr(&sa, address, false)
	state := connect(fd, &sa, size)
	if state != 0 && state != unix.EINPROGRESS {
		return fd, state
	}
	if errno := s.Watch(fd, edges, f.token(true)); errno != 0 {
		return fd, errno
	}
	return fd, state
}

// failed notes that a backend could not be connected to and lets go of it.
func (s *shard) failed(f *flow, errno unix.Errno) {
	if errno == 0 {
		errno = unix.ETIMEDOUT
	}
	if f.server.fd >= 0 {
		closeFD(f.server.fd)
		f.server.fd = -1
		s.renew(f)
	}
	b := f.backend
	f.backend = nil
	b.Failed(errno)
	b.Done()
	if f.tried == nil {
		f.tried = make([]*forward.Backend, 0, forward.MaxAttempts)
	}
	f.tried = append(f.tried, b)
}

// renew gives a flow a new round: events of its former backend are nobody's. The
// client's connection is watched under the new one.
func (s *shard) renew(f *flow) {
	s.rounds[f.slot]++
	f.round = s.rounds[f.slot]
	if errno := s.Rename(f.client.fd, edges, f.token(false)); errno != 0 && errno != unix.ENOENT {
		s.server.log.Error("a connection cannot be watched", "error", errno)
	}
}

// connectFailed tries another backend.
func (s *shard) connectFailed(f *flow, errno unix.Errno) {
	s.failed(f, errno)
	s.dial(f)
}

// connected begins to relay.
func (s *shard) connected(f *flow) {
	f.backend.Opened()
	if f.backend.Timed() {
		f.backend.Observe(time.Duration(s.now - f.began))
	}
	f.backend.Tell(true) // it has accepted; how the connection ends may be anybody's doing
	f.phase, f.began, f.last = phaseRelaying, s.now, s.now
	f.tried = nil
	f.server.writable = true
	if f.backend.Gone() { // while it was waited for
		s.judgeBackend(f)
	}
	if version := f.proxyVersion(); version != ProxyNone {
		f.server.out = s.proxyHeader(f, version)
	}
	if f.hello != nil {
		f.hello.tlvs = nil
		f.hello.name, f.hello.protocols = "", nil
	}
	if f.client.readable || f.server.readable || f.server.out != nil {
		s.relay(f)
	}
}

// proxyVersion is what the connection to the backend begins with. Another site takes a
// header from those alone whom this listener takes one from: it is the same there.
func (f *flow) proxyVersion() ProxyVersion {
	if !f.backend.Elsewhere() {
		return f.set.SendProxy
	}
	if len(f.set.AcceptProxy) > 0 && f.set.trusts(kernel.LocalAddress(f.server.fd).Addr()) {
		return Proxy2
	}
	return ProxyNone
}

// sooner makes the timer look at f at t at the latest.
func (s *shard) sooner(f *flow, t int64) {
	if t < f.when {
		s.timers.set(f, t)
	}
}
