package udp

import (
	"context"
	"net/netip"
	"time"
	"unsafe"

	"github.com/pharos-lb/pharos/forward/l4/kernel"
	"golang.org/x/sys/unix"
)

// MaxCarried is how many sessions are carried over to another process. Older ones end there:
// their clients' next datagrams begin new ones.
const MaxCarried = 32768

// A Session is one that another process goes on with. Its socket to the backend goes with it.
type Session struct {
	Listener netip.AddrPort // as configured
	Shard    int
	Client   netip.AddrPort
	Name     []byte // the client's address as the kernel has it
	Source   []byte // the control message that says where answers leave from
	Bound    bool   // a connection ID bound it to its backend, not its addresses
	Service  string
	Backend  netip.AddrPort
	Silent   time.Duration
	Asked    int
	Replies  int
}

// HandOver gives away what clients are sending and what backends are answering: from its return on
// this Server touches neither its sockets nor its sessions, until TakeBack; what comes waits in
// the kernel. files[i] is a duplicate of the socket of sessions[i], which the caller closes.
func (s *Server) HandOver(ctx context.Context) (sessions []Session, files []int) {
	type share struct {
		sessions []Session
		files    []int
	}
	shares := make(chan share, len(s.shards))
	asked := 0
	for i, sh := range s.shards {
		if sh.Do(func() {
			var own share
			own.sessions, own.files = sh.giveAway(i, MaxCarried/len(s.shards))
			shares <- own
		}) {
			asked++
		}
	}
	for left := asked; left > 0; left-- {
		select {
		case own := <-shares:
			sessions = append(sessions, own.sessions...)
			files = append(files, own.files...)
		case <-ctx.Done(): // those of a shard that comes later are not given; its clients begin new ones
			go func() {
				for range left {
					for _, fd := range (<-shares).files {
						unix.Close(fd)
					}
				}
			}()
			return sessions, files
		}
	}
	return sessions, files
}

// TakeBack ends HandOver: nobody has taken what was given.
func (s *Server) TakeBack() {
	for _, sh := range s.shards {
		sh.Do(sh.takeBack)
	}
}

// Adopt has Run go on with the sessions of another process. It is called once, before Run; the
// files are the Server's from here on.
func (s *Server) Adopt(sessions []Session, files []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adopted = make([][]adopted, len(s.shards))
	for i, x := range sessions {
		if i >= len(files) {
			break
		}
		if x.Shard < 0 || x.Shard >= len(s.shards) || s.state != stateNew {
			unix.Close(files[i])
			continue
		}
		s.adopted[x.Shard] = append(s.adopted[x.Shard], adopted{x, int32(files[i])})
	}
}

type adopted struct {
	Session
	fd int32
}

// giveAway stops to touch what it has, and describes the newest sessions.
func (s *shard) giveAway(number, most int) (sessions []Session, files []int) {
	s.flush()
	s.away = true
	for _, at := range s.sockets {
		s.Forget(at.fd)
		set := at.binding.settings.Load()
		s.leaveLanes(at) // or they would go on past whoever goes on with them
		for x := at.used.newest; x != nil; x = x.older {
			s.Forget(x.upstream.fd)
			if len(sessions) >= most {
				continue
			}
			fd, err := unix.FcntlInt(uintptr(x.upstream.fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				continue
			}
			sessions = append(sessions, Session{
				Listener: at.binding.asked, Shard: number, Client: x.client(),
				Name:   append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&x.name)), x.nameLen)...),
				Source: append([]byte(nil), x.source[:x.from]...), Bound: x.key.bound != 0,
				Service: set.Service, Backend: x.backend.Address(), Silent: time.Duration(s.now - x.last),
				Asked: x.asked, Replies: x.replies,
			})
			files = append(files, fd)
		}
	}
	return sessions, files
}

// takeBack goes on with what giveAway has given.
func (s *shard) takeBack() {
	s.away = false
	for _, at := range s.sockets {
		_ = s.Watch(at.fd, unix.EPOLLIN|unix.EPOLLET, uint64(at.fd))
		for x := at.used.newest; x != nil; x = x.older {
			_ = s.Watch(x.upstream.fd, unix.EPOLLIN|unix.EPOLLET, uint64(x.upstream.fd))
		}
	}
	s.nextLook = 0
}

// adopt goes on with another process's sessions, the oldest first.
func (s *shard) adopt(all []adopted) {
	s.server.registry.Load()
	for i := len(all) - 1; i >= 0; i-- {
		if !s.adoptOne(&all[i]) {
			unix.Close(int(all[i].fd))
		}
	}
	s.nextLook = 0
}

func (s *shard) adoptOne(a *adopted) bool {
	var at *socket
	for _, x := range s.sockets {
		if x.binding.asked == a.Listener || x.binding.real == a.Listener {
			at = x
		}
	}
	if at == nil || len(a.Name) == 0 || len(a.Name) > unix.SizeofSockaddrInet6 || len(a.Source) > controlSpace {
		return false
	}
	set := at.binding.settings.Load()
	x := s.newSession()
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&x.name)), unix.SizeofSockaddrInet6), a.Name)
	x.nameLen, x.from = uint32(len(a.Name)), uint8(copy(x.source[:], a.Source))
	x.key = keyOf(&x.name, x.source[:x.from])
	if a.Bound {
		if set.QUIC == nil {
			return false
		}
		place, ok := set.QUIC.placeOf(a.Backend)
		if !ok {
			return false
		}
		x.key.bound = place + 1
	}
	if set.Service != a.Service || at.sessions[x.key] != nil || at.binding.active.Load() >= int64(set.Sessions) {
		return false
	}
	if x.backend = s.server.registry.ClaimAddress(a.Service, a.Backend); x.backend == nil {
		return false
	}
	if s.Watch(a.fd, unix.EPOLLIN|unix.EPOLLET, uint64(a.fd)) != 0 {
		x.backend.Done()
		return false
	}
	x.upstream = &upstream{fd: a.fd, address: a.Backend, opened: s.now, session: x}
	x.at, x.last, x.asked, x.replies = at, s.now-int64(a.Silent), a.Asked, a.Replies
	s.handle(a.fd).upstream = x.upstream
	at.binding.active.Add(1)
	at.sessions[x.key] = x
	at.used.push(x)
	at.gather(x)
	s.sessions++
	s.server.count.carried.Add(1)
	return true
}

// client returns the address of a session's client.
func (x *session) client() netip.AddrPort { return kernel.AddrPort(&x.name) }

// dropGiven ends what another process goes on with.
func (s *shard) dropGiven() {
	for _, at := range s.sockets {
		s.endAll(at)
	}
}
