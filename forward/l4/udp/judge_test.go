package udp

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"golang.org/x/sys/unix"
)

// crowded is a shard that nobody runs, with so many sessions of ten backends at one address.
func crowded(tb testing.TB, set Listener, sessions int, open func() int32) (*shard, *socket, *fakePools) {
	tb.Helper()
	pools := &fakePools{}
	var members []netip.AddrPort
	for i := range 10 {
		members = append(members, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, 0, byte(i)}), 9))
	}
	pools.publish(members...)
	registry, err := forward.New(forward.Options{Pools: pools})
	if err != nil {
		tb.Fatal(err)
	}
	set.Service, set.Address, set.Responses, set.Sessions = "dns", netip.MustParseAddrPort("127.0.0.1:0"), AnyResponses, sessions
	server, err := New(Options{Registry: registry, Listeners: []Listener{set}, Shards: 1})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { server.Close() })
	s, edition := server.shards[0], registry.Load()
	s.now = server.now()
	at := &socket{fd: -1, binding: server.bindings[0], sessions: make(map[key]*session, sessions), crowds: make(map[*forward.Backend]*crowd)}
	s.sockets = append(s.sockets, at)
	for i := range sessions {
		k := key{port: uint16(i)}
		binary.BigEndian.PutUint32(k.client[12:], uint32(i))
		b, err := edition.Claim("dns", forward.Flow{Client: netip.AddrPortFrom(netip.AddrFrom16(k.client), k.port), Datagram: true}, nil)
		if err != nil {
			tb.Fatal(err)
		}
		x := s.newSession()
		x.key, x.at, x.last, x.backend, x.upstream = k, at, s.now, b, &upstream{fd: open()}
		x.upstream.session = x
		at.sessions[k] = x
		at.used.push(x)
		at.gather(x)
		at.binding.active.Add(1)
		s.sessions++
	}
	return s, at, pools
}

// BenchmarkJudge is what a change of the plan that concerns none of a shard's 100,000 sessions costs it.
func BenchmarkJudge(b *testing.B) {
	s, at, pools := crowded(b, Listener{BackendGone: GoneAbort, Idle: time.Hour}, 100_000, func() int32 { return -1 })
	set := at.binding.settings.Load()
	members := pools.pools[0].Members
	for b.Loop() {
		pools.mu.Lock()
		pools.version++
		pools.pools = []forward.ServicePool{{Service: "dns", Members: members}}
		pools.mu.Unlock()
		s.judge(at, set)
	}
}

// nothing is a descriptor that nobody uses.
func nothing() int32 {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return int32(fd)
}

// fall publishes that a backend of a crowded shard is down, and returns it and how many sessions it has.
func fall(pools *fakePools, at *socket) (*forward.Backend, int) {
	pools.mu.Lock()
	defer pools.mu.Unlock()
	pools.version++
	members := slices.Clone(pools.pools[0].Members)
	members[3].Active = false
	pools.pools = []forward.ServicePool{{Service: "dns", Members: members}}
	for b, n := range backends(at) {
		if b.Address() == members[3].Address {
			return b, n
		}
	}
	return nil, 0
}

// backends counts the sessions of an address by backend.
func backends(at *socket) map[*forward.Backend]int {
	out := make(map[*forward.Backend]int)
	for _, x := range at.sessions {
		out[x.backend]++
	}
	return out
}

// TestGoneInTurns: the sessions of a backend that is gone end some at a time, without a pause, and no others do.
func TestGoneInTurns(t *testing.T) {
	for _, policy := range []Gone{GoneAbort, GoneDrain} {
		const all = 3000
		s, at, pools := crowded(t, Listener{BackendGone: policy, GoneAfter: time.Nanosecond, Idle: time.Hour}, all, nothing)
		defer s.endAll(at)
		before := backends(at)
		gone, n := fall(pools, at)
		if n < 2*endTurn {
			t.Fatalf("%d sessions of the backend, want more", n)
		}
		for left := n; left > 0; {
			s.expire()
			now := backends(at)[gone]
			if now != max(left-endTurn, 0) {
				t.Fatalf("%d of %d are left after a turn", now, left)
			}
			if left = now; left > 0 && s.nextLook != s.now {
				t.Fatalf("%d are left, and it is looked again in %s", left, time.Duration(s.nextLook-s.now))
			}
		}
		s.expire()
		delete(before, gone)
		if now := backends(at); !maps.Equal(before, now) {
			t.Errorf("others: %v before, %v after", before, now)
		}
		if s.server.count.gone.Load() != uint64(n) || len(at.crowds) != len(before) || s.nextLook > s.now+int64(housekeeping) {
			t.Errorf("%d counted of %d, %d crowds, looked again in %s", s.server.count.gone.Load(), n, len(at.crowds), time.Duration(s.nextLook-s.now))
		}
	}
}

// TestLaneGivenBack: what the kernel carries to a backend that is gone is given back by the first looks after the plan has changed, which
// are a second apart at most, not by the sweep, which has seen all of them just now.
func TestLaneGivenBack(t *testing.T) {
	s, at, pools := crowded(t, Listener{Idle: time.Hour}, 3000, nothing)
	defer s.endAll(at)
	set := *at.binding.settings.Load()
	set.Offload = true // without a lane: no program is asked
	at.binding.settings.Store(&set)
	for at.used.oldest != nil {
		x := at.used.oldest
		x.lane = &laned{checked: s.now + int64(time.Hour)}
		at.used.unlink(x)
		at.laned.push(x)
		x.crowd.move(x, &x.crowd.carried, &x.crowd.laned)
	}
	if s.expire(); at.used.oldest != nil || s.nextLook > s.now+int64(housekeeping) {
		t.Fatalf("nothing is gone: carried by sockets %v, looked again in %s", at.used.oldest != nil, time.Duration(s.nextLook-s.now))
	}
	gone, n := fall(pools, at)
	for range (n + endTurn - 1) / endTurn {
		s.expire()
	}
	for _, x := range at.sessions {
		if (x.lane == nil) != (x.backend == gone) {
			t.Fatalf("in the lane %v, its backend is gone %v", x.lane != nil, x.backend == gone)
		}
	}
	if len(at.sessions) != 3000 || n == 0 {
		t.Errorf("%d sessions, %d of the backend", len(at.sessions), n)
	}
}
