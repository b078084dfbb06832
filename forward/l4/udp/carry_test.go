package udp

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/internal/handover"
	"golang.org/x/sys/unix"
)

// whoAsks answers every datagram with its own word and where it came from.
func whoAsks(t *testing.T, word string) netip.AddrPort {
	t.Helper()
	address, _ := answering(t, nil, func(_ []byte, from netip.AddrPort) [][]byte { return [][]byte{[]byte(word + from.String())} })
	return address
}

// TestCarry: a session goes on in another process, with its backend and the port that this knows it by, also
// when the plan would send its client elsewhere now. If nobody takes it, it goes on here.
func TestCarry(t *testing.T) {
	a, b := whoAsks(t, "a"), whoAsks(t, "b")
	old := start(t, Listener{Responses: AnyResponses}, a)
	const clients = 8
	var conns []*net.UDPConn
	var before []string
	for range clients {
		c := dial(t, old.addr)
		conns = append(conns, c)
		before = append(before, ask(t, c, "x"))
	}
	old.pools.publish(a, b) // about half of them would go to b from now on
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	handOver := func() ([]Session, []int) {
		t.Helper()
		sessions, files := old.HandOver(ctx)
		if len(sessions) != clients || len(files) != clients {
			t.Fatalf("%d sessions with %d files, want %d", len(sessions), len(files), clients)
		}
		for _, c := range conns { // it waits in the kernel
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		return sessions, files
	}
	heard := func(who string) {
		t.Helper()
		buf := make([]byte, 100)
		for i, c := range conns {
			n, err := c.Read(buf)
			if err != nil {
				t.Fatalf("%s: client %d: %v", who, i, err)
			}
			if got := string(buf[:n]); got != before[i] {
				t.Errorf("%s: client %d is at %s, was at %s", who, i, got, before[i])
			}
		}
	}
	_, files := handOver()
	for _, fd := range files {
		unix.Close(fd)
	}
	old.TakeBack()
	heard("taken back")

	sockets, fds, err := handover.Listening()
	if err != nil {
		t.Fatal(err)
	}
	handover.Inherit(sockets, fds)
	t.Cleanup(func() { handover.CloseRest() })
	registry, err := forward.New(forward.Options{Pools: old.pools})
	if err != nil {
		t.Fatal(err)
	}
	next, err := New(Options{
		Registry: registry, Shards: 2, Drain: -1,
		Listeners: []Listener{{Address: old.addr, Service: "dns", Responses: AnyResponses}},
	})
	if err != nil {
		t.Fatal(err)
	}
	sessions, files := handOver()
	for i := range sessions {
		sessions[i].Listener = old.addr // it was asked for any port
	}
	next.Adopt(slices.Clone(sessions), files)
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- next.Run(running) }()
	heard("taken over")
	if s := next.Stats(); s.Carried != clients || s.Sessions != 0 || s.Active != clients {
		t.Errorf("got %+v", s)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, s := range registry.Snapshot() {
		if s.InFlight != 0 {
			t.Errorf("got %+v", s)
		}
	}
}
