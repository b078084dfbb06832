package l4

import (
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
