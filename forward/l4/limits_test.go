package l4

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
)

// TestLimits: each limit holds, counts its drops, and gives room when a connection ends.
func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits Limits
		why    drop
		frees  bool
	}{
		{"listener", Limits{Connections: 2}, dropListenerFull, true},
		{"service", Limits{ServiceConnections: 2}, dropServiceFull, true},
		{"client", Limits{ClientConnections: 2}, dropClientFull, true},
		{"rate", Limits{Rate: 2}, dropRate, false},
		{"client rate", Limits{ClientRate: 2}, dropClientRate, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, Options{Shards: 2, Listeners: []Listener{{Service: "db", Limits: tt.limits}, {Service: "db"}}}, backend(t, echo))
			var held []*net.TCPConn
			for range 2 {
				c := dial(t, f.addr)
				ask(t, c, "held")
				held = append(held, c)
			}
			wantReset(t, f.addr)
			until(t, "counted", func() bool { s := f.Stats(); return s.Dropped()[tt.why.String()] >= 1 && s.Active == 2 })
			other := dial(t, f.Addrs()[1])
			ask(t, other, "other listeners are not limited")
			if !tt.frees {
				return
			}
			other.Close()
			until(t, "the other has ended", func() bool { return f.Stats().Active == 2 })
			held[0].Close()
			until(t, "room", func() bool { return f.Stats().Active == 1 })
			ask(t, dial(t, f.addr), "room again")
		})
	}
}

// TestServiceLimitCountsEveryListener: those too that have no such limit, and what was open before there was one.
func TestServiceLimitCountsEveryListener(t *testing.T) {
	f := start(t, Options{Shards: 2, Listeners: []Listener{{Service: "db"}, {Service: "db"}, {Service: "other"}}}, backend(t, echo))
	before := dial(t, f.Addrs()[0])
	ask(t, before, "open before")
	at := f.Addrs()
	change, err := f.Prepare([]Listener{
		{Address: at[0], Service: "db", Limits: Limits{ServiceConnections: 2}},
		{Address: at[1], Service: "db"},
		{Address: at[2], Service: "other"},
	})
	if err != nil {
		t.Fatal(err)
	}
	change.Commit()
	for _, s := range f.shards { // until each has taken it up
		done := make(chan struct{})
		s.Do(func() { close(done) })
		<-done
	}
	second := dial(t, at[1])
	ask(t, second, "through a listener without a limit")
	wantReset(t, at[0])
	if got := f.Stats(); got.Dropped()["service_connections"] != 1 {
		t.Errorf("dropped %v, want one for service_connections", got.Dropped())
	}
	third := dial(t, at[1])
	ask(t, third, "which goes on without one")
	for _, c := range []*net.TCPConn{before, second, third} {
		c.Close()
	}
	until(t, "all have ended", func() bool { return f.Stats().Active == 0 })
	ask(t, dial(t, at[0]), "room again")
	ask(t, dial(t, at[0]), "for two")
	wantReset(t, at[0])
}

// TestReloadKeepsWhatClientsHave: a change of another limit forgets neither the rate nor what clients have open.
func TestReloadKeepsWhatClientsHave(t *testing.T) {
	f := start(t, Options{Listeners: []Listener{{Service: "db", Limits: Limits{ClientConnections: 1, Rate: 1000}}}}, backend(t, echo))
	ask(t, dial(t, f.addr), "the first")
	wantReset(t, f.addr)
	for _, limits := range []Limits{{ClientConnections: 1, Rate: 2000}, {ClientConnections: 1, Connections: 50}} {
		change, err := f.Prepare([]Listener{{Address: f.addr, Service: "db", Limits: limits}})
		if err != nil {
			t.Fatal(err)
		}
		change.Commit()
		f.inside(func(*shard, []*flow) {})
		wantReset(t, f.addr)
	}
	until(t, "counted", func() bool { s := f.Stats(); return s.Dropped()["client_connections"] == 3 })
}

func TestMeter(t *testing.T) {
	m := forward.NewMeter(10)
	taken := 0
	for range 100 {
		if m.Take(1) {
			taken++
		}
	}
	if taken != 10 {
		t.Errorf("%d at once, want 10", taken)
	}
	for i := range 1000 { // ten seconds at 100 a second
		if m.Take(int64(time.Second) + int64(i)*int64(10*time.Millisecond)) {
			taken++
		}
	}
	if taken < 109 || taken > 121 {
		t.Errorf("%d in eleven seconds at 10 a second", taken)
	}
}

// TestLifetime ends what is busy.
func TestLifetime(t *testing.T) {
	f := start(t, Options{Listeners: []Listener{{Service: "db", Lifetime: 300 * time.Millisecond}}}, backend(t, echo))
	c := dial(t, f.addr)
	var err error
	for err == nil {
		if _, err = c.Write([]byte("x")); err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
	}
	until(t, "counted", func() bool { s := f.Stats(); return s.Dropped()["lifetime"] == 1 })
}

// TestBackendGone: what becomes of a connection when its backend leaves, by policy.
func TestBackendGone(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy Gone
		after  time.Duration
		cut    bool
	}{
		{"keep", GoneKeep, 0, false},
		{"abort", GoneAbort, 0, true},
		{"drain", GoneDrain, 200 * time.Millisecond, true},
		{"drain is not over", GoneDrain, time.Hour, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first, second := backend(t, echo), backend(t, echo)
			f := start(t, Options{Listeners: []Listener{{Service: "db", BackendGone: Departure{tt.policy, tt.after}}}}, first)
			c := dial(t, f.addr)
			ask(t, c, "hello")
			f.pools.publish(second)
			ask(t, dial(t, f.addr), "new ones go elsewhere")
			if !tt.cut {
				time.Sleep(2 * housekeeping)
				ask(t, c, "still there")
				return
			}
			if _, err := io.ReadAll(c); err == nil {
				t.Error("an orderly end, want a reset")
			}
			until(t, "counted", func() bool { s := f.Stats(); return s.Dropped()["backend_gone"] == 1 })
		})
	}
}

// TestSource: backends are connected to from the address that the listener names.
func TestSource(t *testing.T) {
	heard := make(chan string, 1)
	source := netip.MustParseAddr("127.0.0.77")
	f := start(t, Options{Listeners: []Listener{{Service: "db", Sources: []netip.Addr{source}}}}, backend(t, func(c *net.TCPConn) {
		heard <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().String()
		echo(c)
	}))
	ask(t, dial(t, f.addr), "hello")
	if got := <-heard; got != source.String() {
		t.Errorf("connected from %s, want %s", got, source)
	}
	bad := Listener{Address: netip.MustParseAddrPort("127.0.0.1:0"), Service: "db", Sources: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	if _, err := f.Prepare([]Listener{bad}); err == nil {
		t.Error("a source that this machine does not have: no error")
	}
}

// TestHangingBackend: one that accepts nothing is given up after Connect, and another serves.
func TestHangingBackend(t *testing.T) {
	hanging, release := hang(t)
	defer release()
	f := start(t, Options{Listeners: []Listener{{Service: "db", Connect: 100 * time.Millisecond}}}, hanging, backend(t, echo))
	for range 8 {
		ask(t, dial(t, f.addr), "hello")
	}
	for _, s := range f.registry.Snapshot() {
		if s.Address == hanging && s.Leases > 0 && s.ConnectFailures == 0 {
			t.Errorf("got %+v", s)
		}
	}
	only := start(t, Options{Listeners: []Listener{{Service: "db", Connect: 100 * time.Millisecond}}}, hanging)
	wantReset(t, only.addr)
	until(t, "counted", func() bool { return only.Stats().ConnectFailed == 1 })
}

// TestServiceRate: the new connections of a service are limited over all listeners and shards that send to it, what is open and other services
// of the same listener are not, and a reload of the listeners gives nothing back.
func TestServiceRate(t *testing.T) {
	const most, tries = 2, 20
	hello := func(name string) []byte { return clientHello(t, &tls.Config{ServerName: name}) }
	addresses := map[string]netip.AddrPort{"db": backend(t, echo), "other": backend(t, echo)}
	routed := Listener{Routes: []Route{{SNI: "db", Service: "db"}, {SNI: "other", Service: "other"}}}
	f := start(t, Options{Shards: 2, Listeners: []Listener{routed, {Service: "db"}}})
	f.pools.services(addresses)
	f.pools.mu.Lock()
	for i := range f.pools.pools {
		if f.pools.pools[i].Service == "db" {
			f.pools.pools[i].Policy.Limit.Rate = most
		}
	}
	f.pools.mu.Unlock()
	at := f.Addrs()
	// served says whether a new connection that says hello is answered.
	served := func(at netip.AddrPort, first []byte) (*net.TCPConn, bool) {
		c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
		if err != nil {
			return nil, false
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		c.Write(first)
		_, err = io.ReadFull(c, make([]byte, len(first)))
		return c, err == nil
	}
	var held []*net.TCPConn
	began := time.Now()
	reload := func() {
		listeners := []Listener{routed, {Service: "db", Idle: time.Minute}}
		for i := range listeners {
			listeners[i].Address = at[i]
		}
		change, err := f.Prepare(listeners)
		if err != nil {
			t.Fatal(err)
		}
		change.Commit()
	}
	for i := range tries {
		if i%5 == 4 {
			reload()
		}
		address, first := at[i%2], []byte("plain")
		if i%2 == 0 {
			first = hello("db")
		}
		if c, ok := served(address, first); ok {
			held = append(held, c)
		}
		if _, ok := served(at[0], hello("other")); !ok {
			t.Fatal("another service of the listener is not served")
		}
	}
	room := most + int(time.Since(began).Seconds()*most) + 1 // what the clock has given back meanwhile
	if n := len(held); n < most || n > room {
		t.Errorf("%d of %d were served, want %d … %d", n, tries, most, room)
	}
	for _, c := range held {
		ask(t, c, "what is open goes on")
	}
	want := uint64(tries - len(held))
	until(t, "counted", func() bool { s := f.Stats(); return s.Dropped()["service_rate"] == want && len(s.Dropped()) == 1 })
}
