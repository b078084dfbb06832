package l4

import (
	"crypto/tls"
	"io"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
)

// state publishes pools of one member each, in a state of theirs, beside one that is well.
func (f *fakePools) state(well netip.AddrPort, members map[string]forward.Member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	f.pools = nil
	for name, m := range members {
		m.Weight = 1
		f.pools = append(f.pools, forward.ServicePool{Service: name, Members: []forward.Member{m, {Address: well, Weight: 1, Active: true}}})
	}
}

// keepHouse has the only shard look for backends that are gone, and end what is due.
func (f *fixture) keepHouse() {
	f.inside(func(s *shard, _ []*flow) {
		s.now = s.server.now()
		s.keepHouse()
	})
}

// TestRestingBackend: one that asks for no new work finishes what it has, whatever the policy; when it is down the policy counts.
func TestRestingBackend(t *testing.T) {
	a, b := backend(t, echo), backend(t, echo)
	f := start(t, Options{Shards: 1, Listeners: []Listener{{Service: "db", BackendGone: Departure{Policy: GoneAbort}}}}, a)
	c := dial(t, f.addr)
	ask(t, c, "x")
	f.pools.state(b, map[string]forward.Member{"db": {Address: a, Active: true, Resting: true}})
	f.keepHouse()
	f.keepHouse()
	ask(t, c, "it asks for nothing new")
	if s := f.Stats(); s.Active != 1 || len(s.Dropped()) != 0 {
		t.Errorf("got %+v, dropped %v", s, s.Dropped())
	}
	f.pools.state(b, map[string]forward.Member{"db": {Address: a, Resting: true}})
	f.keepHouse()
	if _, err := io.ReadAll(c); err == nil {
		t.Error("it is down: an orderly end, want a reset")
	}
	until(t, "counted", func() bool { s := f.Stats(); return s.Dropped()["backend_gone"] == 1 && s.Active == 0 })
}

// TestOrderedOut: a drain lets connections end whatever is done to those of a backend that is down, and has a time only where the policy says
// one; who is ordered down after it, or removed, goes by the policy.
func TestOrderedOut(t *testing.T) {
	drained, down := forward.Member{Drained: true}, forward.Member{}
	for _, tt := range []struct {
		name   string
		policy Departure
		states []*forward.Member // nil = removed
		cut    bool              // after the last; not before
	}{
		{"keep", Departure{}, []*forward.Member{&drained, &down, nil}, false},
		{"abort, drained", Departure{Policy: GoneAbort}, []*forward.Member{&drained}, false},
		{"abort, down", Departure{Policy: GoneAbort}, []*forward.Member{&down}, true},
		{"abort, removed", Departure{Policy: GoneAbort}, []*forward.Member{nil}, true},
		{"abort, drained, then ordered down", Departure{Policy: GoneAbort}, []*forward.Member{&drained, &down}, true},
		{"abort, drained, then removed", Departure{Policy: GoneAbort}, []*forward.Member{&drained, nil}, true},
		{"abort, drained, then back", Departure{Policy: GoneAbort}, []*forward.Member{&drained, {Active: true}}, false},
		{"drain, drained", Departure{GoneDrain, time.Nanosecond}, []*forward.Member{&drained}, true},
		{"drain, drained, not over", Departure{GoneDrain, time.Hour}, []*forward.Member{&drained}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := backend(t, echo), backend(t, echo)
			f := start(t, Options{Shards: 1, Listeners: []Listener{{Service: "db", BackendGone: tt.policy}}}, a)
			c := dial(t, f.addr)
			ask(t, c, "x")
			for i, state := range tt.states {
				if state == nil {
					f.pools.publish(b)
				} else {
					m := *state
					m.Address = a
					f.pools.state(b, map[string]forward.Member{"db": m})
				}
				f.keepHouse()
				f.keepHouse()
				if !tt.cut || i < len(tt.states)-1 {
					ask(t, c, "it goes on")
				}
			}
			if !tt.cut {
				if s := f.Stats(); s.Active != 1 || len(s.Dropped()) != 0 {
					t.Errorf("got %+v, dropped %v", s, s.Dropped())
				}
				return
			}
			if _, err := io.ReadAll(c); err == nil {
				t.Error("an orderly end, want a reset")
			}
			until(t, "counted", func() bool { s := f.Stats(); return s.Dropped()["backend_gone"] == 1 && s.Active == 0 })
		})
	}
}

// TestServiceGone: connections of one listener to several services go by the policy of theirs, where that has one.
func TestServiceGone(t *testing.T) {
	hello := func(name string) []byte { return clientHello(t, &tls.Config{ServerName: name}) }
	well := backend(t, echo)
	services := []string{"cut", "kept", "rest"}
	addresses, down := make(map[string]netip.AddrPort), make(map[string]forward.Member)
	l := Listener{
		Service: "rest", BackendGone: Departure{Policy: GoneAbort},
		ServiceGone: map[string]Departure{"cut": {GoneDrain, time.Nanosecond}, "kept": {Policy: GoneKeep}},
	}
	for _, name := range services {
		addresses[name] = backend(t, saying(name, len(hello(name))))
		down[name] = forward.Member{Address: addresses[name]}
		l.Routes = append(l.Routes, Route{SNI: name, Service: name})
	}
	f := start(t, Options{Shards: 1, Listeners: []Listener{l}})
	f.pools.services(addresses)
	for _, name := range services {
		c := dial(t, f.addr)
		c.Write(hello(name))
		if _, err := io.ReadFull(c, make([]byte, len(name)+1+len(hello(name)))); err != nil {
			t.Fatal(name, err)
		}
	}
	f.pools.state(well, down)
	f.keepHouse()
	until(t, "two end", func() bool { s := f.Stats(); return s.Dropped()["backend_gone"] == 2 && s.Active == 1 })
	f.inside(func(_ *shard, flows []*flow) {
		if len(flows) != 1 || flows[0].service() != "kept" || flows[0].goneAt != 0 {
			t.Errorf("%d flows are left, want that of the service that keeps its own", len(flows))
		}
	})
}

// crowded is a shard that nobody runs, with so many connections to ten backends.
func crowded(tb testing.TB, connections int, policy Gone) (*shard, *fakePools) {
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
	listener := Listener{Address: netip.MustParseAddrPort("127.0.0.1:0"), Service: "db", Idle: time.Hour, BackendGone: Departure{Policy: policy}}
	server, err := New(Options{Registry: registry, Shards: 1, Listeners: []Listener{listener}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { server.Close() })
	s, edition := server.shards[0], registry.Load()
	s.now = server.now()
	for range connections {
		f := s.take()
		f.binding, f.set = server.bindings[0], server.bindings[0].settings.Load()
		f.client.fd, f.server.fd = -1, -1
		if f.backend, err = edition.Claim("db", forward.Flow{}, nil); err != nil {
			tb.Fatal(err)
		}
		f.phase, f.born, f.last, f.settled = phaseRelaying, s.now, s.now, true
		s.timers.push(f, s.now+int64(time.Hour))
	}
	return s, pools
}

// BenchmarkKeepHouse is what a change of the plan that concerns none of a shard's 100,000 connections costs it, in all its turns.
func BenchmarkKeepHouse(b *testing.B) {
	s, pools := crowded(b, 100_000, GoneAbort)
	members := pools.pools[0].Members
	for b.Loop() {
		pools.mu.Lock()
		pools.version++
		pools.pools = []forward.ServicePool{{Service: "db", Members: members}}
		pools.mu.Unlock()
		for s.keepHouse(); s.unjudged < len(s.flows); {
			s.judge()
		}
	}
}

// TestGoneInTurns: the connections of a backend that is gone end some at a time, without a pause, and no others do; so does one that was
// opened to it while it went.
func TestGoneInTurns(t *testing.T) {
	const all = 3000
	s, pools := crowded(t, all, GoneAbort)
	count := func() map[*forward.Backend]int {
		out := make(map[*forward.Backend]int)
		for _, f := range s.flows {
			if f != nil {
				out[f.backend]++
			}
		}
		return out
	}
	late := s.flows[0]
	late.phase = phaseConnecting // the walk passes it over
	gone, before := late.backend, count()
	pools.mu.Lock()
	pools.version++
	members := slices.Clone(pools.pools[0].Members)
	members[slices.IndexFunc(members, func(m forward.Member) bool { return m.Address == gone.Address() })].Active = false
	pools.pools = []forward.ServicePool{{Service: "db", Members: members}}
	pools.mu.Unlock()
	turns := 0
	for s.keepHouse(); ; turns++ {
		was, judged := count()[gone], s.unjudged
		s.expire()
		if ended := was - count()[gone]; ended > endTurn || s.unjudged-judged > judgeTurn {
			t.Fatalf("%d ended and %d were judged in one turn", ended, s.unjudged-judged)
		}
		if count()[gone] == 1 && s.unjudged == len(s.flows) {
			break
		}
		if s.patience() != 0 {
			t.Fatalf("%d are left and %d judged, and the next turn is in %s", count()[gone], s.unjudged, s.patience())
		}
	}
	if turns < before[gone]/endTurn {
		t.Errorf("%d turns for %d", turns, before[gone])
	}
	late.client.readable = false
	s.connected(late)
	s.expire()
	delete(before, gone)
	if now := count(); !maps.Equal(before, now) {
		t.Errorf("others: %v before, %v after", before, now)
	}
}
