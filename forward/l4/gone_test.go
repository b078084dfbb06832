package l4

import (
	"crypto/tls"
	"io"
	"net/netip"
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
