package udp

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// held runs send while the only shard is busy, so that it finds all that was sent in one batch.
func (f *fixture) held(t *testing.T, send func()) {
	t.Helper()
	until(t, "it listens", func() bool {
		n := make(chan int)
		f.shards[0].Do(func() { n <- len(f.shards[0].sockets) })
		return <-n > 0
	})
	at, release := make(chan struct{}), make(chan struct{})
	f.shards[0].Do(func() { close(at); <-release })
	<-at
	send()
	close(release)
}

// TestEndsWhileGathered: a session that ends by what has been gathered for it is not gone on with, however the
// datagrams of others lie between its own.
func TestEndsWhileGathered(t *testing.T) {
	closed := func(t *testing.T) netip.AddrPort { // nobody at its port, which is nobody else's
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		return c.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	for _, tt := range []struct {
		name      string
		responses int
		backend   func(*testing.T) netip.AddrPort
	}{
		{"refused", AnyResponses, closed},
		{"nobody answers", 0, func(t *testing.T) netip.AddrPort { return backend(t, "", 0) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fixture{pools: &fakePools{}}
			f.pools.publish(tt.backend(t))
			f.pools.pools[0].Policy.Limit.PerBackend = 1 // the first client's session is the only one
			f.serve(t, Listener{Responses: tt.responses}, 1)
			a, b := dial(t, f.addr), dial(t, f.addr)
			const rounds = 5
			f.held(t, func() {
				for range rounds {
					a.Write([]byte("a"))
					b.Write([]byte("b"))
				}
			})
			until(t, "everything is taken", func() bool { return f.Stats().Received == 2*rounds })
			f.stop()
			if s := f.Stats(); s.NoBackend != rounds || s.Active != 0 {
				t.Errorf("got %+v, want %d without a backend", s, rounds)
			}
			if s := f.registry.Snapshot()[0]; s.InFlight != 0 || s.Leases < 2 {
				t.Errorf("got %+v, want sessions that have ended", s)
			}
		})
	}
}

// TestEndsBeforeEach: the same where a message has datagrams for several backends.
func TestEndsBeforeEach(t *testing.T) {
	a, b := backend(t, "", 0), backend(t, "", 0)
	f := &fixture{pools: &fakePools{}}
	f.pools.publish(a, b)
	f.serve(t, Listener{Responses: 0, QUIC: &QUIC{Length: 8, Servers: map[string]netip.AddrPort{"a": a, "b": b}}}, 1)
	c := dial(t, f.addr)
	packet := func(id string) []byte { return append([]byte("\x40_"+id), make([]byte, 20)...) }
	f.held(t, func() {
		c.Write(packet("a"))
		segmented(t, c, append(packet("a"), packet("b")...), len(packet("a")))
	})
	until(t, "everything is taken", func() bool { return f.Stats().Received == 3 })
	f.stop()
	if s := f.Stats(); s.Sessions != 3 || s.Lost != 0 || s.Active != 0 {
		t.Errorf("got %+v, want three sessions", s)
	}
}

// TestHandOverIsFinal: what is told of a socket after it was given away stays in the kernel, for the other
// process or for TakeBack.
func TestHandOverIsFinal(t *testing.T) {
	f := &fixture{pools: &fakePools{}}
	f.pools.publish(backend(t, "", 1))
	f.serve(t, Listener{Responses: AnyResponses}, 1)
	c := dial(t, f.addr)
	ask(t, c, "x")
	s := f.shards[0]
	taken := make(chan uint64)
	s.Do(func() {
		_, files := s.giveAway(0, 10)
		for _, fd := range files {
			unix.Close(fd)
		}
		before := f.Stats().Received
		c.Write([]byte("y"))
		s.turn(s.sockets[0].fd) // an event of the same wait
		taken <- f.Stats().Received - before
	})
	if n := <-taken; n != 0 {
		t.Errorf("%d datagrams were taken of a socket that was given away", n)
	}
	f.TakeBack()
	buf := make([]byte, 10)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "y" {
		t.Errorf("taken back: got %q, %v", buf[:n], err)
	}
}

// TestHandOverTooLate: what a shard gives away after the time is over is closed.
func TestHandOverTooLate(t *testing.T) {
	f := &fixture{pools: &fakePools{}}
	f.pools.publish(backend(t, "", 1))
	f.serve(t, Listener{Responses: AnyResponses}, 1)
	c := dial(t, f.addr)
	ask(t, c, "x")
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := open()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.held(t, func() {
		if sessions, files := f.HandOver(ctx); len(sessions) != 0 || len(files) != 0 {
			t.Errorf("got %d sessions and %d files of a shard that is busy", len(sessions), len(files))
		}
	})
	f.TakeBack()
	if got := ask(t, c, "y"); got != "y" { // after which the shard has given and taken back
		t.Errorf("got %q", got)
	}
	until(t, "its files are closed", func() bool { return open() == before })
}
