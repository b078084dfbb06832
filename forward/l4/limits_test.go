package l4

import (
	"io"
	"net"
	"net/netip"
	"sync/atomic"
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
			ask(t, dial(t, f.Addrs()[1]), "other listeners are not limited")
			if !tt.frees {
				return
			}
			held[0].Close()
			until(t, "room", func() bool { return f.Stats().Active == 2 })
			ask(t, dial(t, f.addr), "room again")
		})
	}
}

// TestClientTable: prefixes, room, and eviction of what counts nothing.
func TestClientTable(t *testing.T) {
	var missed atomic.Uint64
	table := newClientTable(Limits{ClientConnections: 1, ClientBits4: 24, ClientBits6: 48, Table: stripes}, &missed)
	at := netip.MustParseAddr
	if _, why := table.enter(at("192.0.2.1"), 1); why != dropNone {
		t.Fatal(why)
	}
	if _, why := table.enter(at("192.0.2.200"), 1); why != dropClientFull {
		t.Errorf("the same /24: %v", why)
	}
	table.enter(at("2001:db8:1::1"), 1)
	if _, why := table.enter(at("2001:db8:1:ffff::1"), 1); why != dropClientFull {
		t.Errorf("the same /48: %v", why)
	}
	table.leave(at("192.0.2.77"))
	if _, why := table.enter(at("192.0.2.5"), 1); why != dropNone {
		t.Errorf("after it has left: %v", why)
	}
	// A table that is full serves whom it cannot count, and stays as large as it is.
	for i := range 100_000 {
		if _, why := table.enter(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1); why != dropNone && why != dropClientFull {
			t.Fatal(why)
		}
	}
	for i := range table.parts {
		if n := len(table.parts[i].entries); n > table.room {
			t.Fatalf("%d entries, room for %d", n, table.room)
		}
	}
	if missed.Load() == 0 {
		t.Error("nothing counted as missed")
	}
	// Rates: an entry whose allowance is whole again gives its place.
	rates := newClientTable(Limits{ClientRate: 10, Table: stripes}, &missed)
	missed.Store(0)
	for i := range 10_000 {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		if tracked, _ := rates.enter(a, int64(i)*int64(time.Second)); tracked {
			rates.leave(a)
		}
	}
	if missed.Load() != 0 {
		t.Errorf("%d missed where every entry was old", missed.Load())
	}
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
			f := start(t, Options{Listeners: []Listener{{Service: "db", BackendGone: tt.policy, GoneAfter: tt.after}}}, first)
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
