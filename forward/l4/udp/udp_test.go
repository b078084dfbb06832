package udp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fakePools struct {
	mu      sync.Mutex
	version uint64
	pools   []forward.ServicePool
}

func (f *fakePools) Version() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.version
}

func (f *fakePools) Edition() (uint64, []forward.ServicePool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.version, f.pools
}

func (f *fakePools) publish(members ...netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pool := forward.ServicePool{Service: "dns"}
	for _, m := range members {
		pool.Members = append(pool.Members, forward.Member{Address: m, Weight: 1, Active: true})
	}
	f.version++
	f.pools = []forward.ServicePool{pool}
}

// answering is a backend at an address: for every datagram it sends what answer makes of it, each of them; nil = at a free port of 127.0.0.1.
func answering(t *testing.T, at *net.UDPAddr, answer func(data []byte, from netip.AddrPort) [][]byte) (address netip.AddrPort, stop func()) {
	t.Helper()
	if at == nil {
		at = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	}
	c, err := net.ListenUDP("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			for _, b := range answer(buf[:n], from) {
				c.WriteToUDPAddrPort(b, from)
			}
		}
	})
	stop = sync.OnceFunc(func() { c.Close(); wg.Wait() })
	t.Cleanup(stop)
	return unmapped(c.LocalAddr().(*net.UDPAddr).AddrPort()), stop
}

// backend answers every datagram with a word and what it was, copies times.
func backend(t *testing.T, word string, copies int) netip.AddrPort {
	t.Helper()
	address, _ := answering(t, nil, func(data []byte, _ netip.AddrPort) [][]byte {
		return slices.Repeat([][]byte{append([]byte(word), data...)}, copies)
	})
	return address
}

type fixture struct {
	*Server
	pools    *fakePools
	registry *forward.Registry
	addr     netip.AddrPort
	stop     func()
	seen     map[*net.UDPConn]uint64 // how often the lane had been emptied when it was seen to carry a client's datagrams
}

func start(t *testing.T, l Listener, members ...netip.AddrPort) *fixture {
	t.Helper()
	f := &fixture{pools: &fakePools{}}
	f.pools.publish(members...)
	return f.serve(t, l, 2)
}

// serve runs a Server with so many shards.
func (f *fixture) serve(t *testing.T, l Listener, shards int) *fixture {
	t.Helper()
	return f.run(t, Options{Listeners: []Listener{l}, Shards: shards})
}

// startWith is start with more to say.
func startWith(t *testing.T, opts Options, members ...netip.AddrPort) *fixture {
	t.Helper()
	f := &fixture{pools: &fakePools{}}
	f.pools.publish(members...)
	return f.run(t, opts)
}

func (f *fixture) run(t *testing.T, opts Options) *fixture {
	t.Helper()
	var err error
	if f.registry, err = forward.New(forward.Options{Pools: f.pools}); err != nil {
		t.Fatal(err)
	}
	l := &opts.Listeners[0]
	l.Service = "dns"
	if !l.Address.IsValid() {
		l.Address = netip.MustParseAddrPort("127.0.0.1:0")
	}
	opts.Registry, opts.Drain = f.registry, -1
	if f.Server, err = New(opts); err != nil {
		t.Fatal(err)
	}
	f.addr = f.Addrs()[0]
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

func dial(t *testing.T, addr netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c
}

func ask(t *testing.T, c *net.UDPConn, text string) string {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65536)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func until(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !fact(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestSession: datagrams of one client stay with one backend, of any size.
func TestSession(t *testing.T) {
	f := start(t, Listener{Responses: AnyResponses}, backend(t, "a:", 1), backend(t, "b:", 1))
	seen := make(map[string]bool)
	for range 40 {
		c := dial(t, f.addr)
		first := ask(t, c, "x")
		seen[first] = true
		for range 5 {
			if got := ask(t, c, "x"); got != first {
				t.Fatalf("got %q after %q", got, first)
			}
		}
	}
	if len(seen) != 2 {
		t.Errorf("40 clients have seen %v, want both", seen)
	}
	large := string(make([]byte, 40000))
	if got := ask(t, dial(t, f.addr), large); len(got) != len(large)+2 {
		t.Errorf("%d bytes of %d", len(got), len(large)+2)
	}
	if s := f.Stats(); s.Active != 41 || s.Sessions != 41 || s.Received != 241 || s.Answered != 241 {
		t.Errorf("got %+v", s)
	}
	f.stop()
	for _, s := range f.registry.Snapshot() {
		if s.InFlight != 0 {
			t.Errorf("got %+v", s)
		}
	}
}

// TestEnds: what ends a session.
func TestEnds(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		f := start(t, Listener{Idle: 50 * time.Millisecond, Responses: AnyResponses}, backend(t, "", 1))
		ask(t, dial(t, f.addr), "x")
		until(t, "ended", func() bool { return f.Stats().Active == 0 })
	})
	t.Run("answered", func(t *testing.T) {
		f := start(t, Listener{Responses: 2}, backend(t, "", 2))
		c := dial(t, f.addr)
		ask(t, c, "x")
		if _, err := c.Read(make([]byte, 10)); err != nil {
			t.Fatal("the second answer:", err)
		}
		until(t, "ended", func() bool { return f.Stats().Active == 0 })
	})
	t.Run("nobody answers", func(t *testing.T) {
		f := start(t, Listener{Responses: 0}, backend(t, "", 0))
		for range 10 {
			dial(t, f.addr).Write([]byte("<1>log"))
		}
		until(t, "ended", func() bool { s := f.Stats(); return s.Received == 10 && s.Active == 0 })
	})
	t.Run("too many", func(t *testing.T) {
		f := start(t, Listener{Responses: AnyResponses, Sessions: 3}, backend(t, "", 1))
		for range 30 {
			ask(t, dial(t, f.addr), "x")
		}
		if s := f.Stats(); s.Active > 3+1 || s.Evicted < 20 {
			t.Errorf("got %+v", s)
		}
	})
	t.Run("refused", func(t *testing.T) {
		gone := netip.MustParseAddrPort("127.0.0.1:1")
		f := start(t, Listener{Responses: AnyResponses}, gone, backend(t, "", 1))
		c := dial(t, f.addr)
		buf := make([]byte, 10)
		for range 100 { // its backend is passed over once it has refused
			c.Write([]byte("x"))
			c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if _, err := c.Read(buf); err == nil {
				return
			} else if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
		}
		t.Error("never answered")
	})
}

// TestNoBackend: dropped and counted.
func TestNoBackend(t *testing.T) {
	f := start(t, Listener{})
	dial(t, f.addr).Write([]byte("x"))
	until(t, "counted", func() bool { s := f.Stats(); return s.NoBackend == 1 && s.Active == 0 })
}

// TestWildcard: answers leave from the address that was asked, in both families.
func TestWildcard(t *testing.T) {
	for _, wild := range []string{"0.0.0.0:0", "[::]:0"} {
		f := start(t, Listener{Address: netip.MustParseAddrPort(wild), Responses: AnyResponses}, backend(t, "", 1))
		for _, at := range []string{"127.0.0.1", "127.0.0.77", "::1"} {
			addr := netip.MustParseAddr(at)
			if addr.Is6() && wild == "0.0.0.0:0" {
				continue
			}
			// A connected socket takes answers from nowhere else.
			if got := ask(t, dial(t, netip.AddrPortFrom(addr, f.addr.Port())), "x"); got != "x" {
				t.Errorf("%s at %s: %q", at, wild, got)
			}
		}
	}
}

// TestReload: kept addresses keep their sessions, new ones work, removed ones end.
func TestReload(t *testing.T) {
	f := start(t, Listener{Responses: AnyResponses}, backend(t, "", 1))
	c := dial(t, f.addr)
	ask(t, c, "x")
	other := netip.MustParseAddrPort("127.0.0.2:0")
	change, err := f.Prepare([]Listener{{Address: f.addr, Service: "dns", Responses: AnyResponses}, {Address: other, Service: "dns", Responses: AnyResponses}})
	if err != nil {
		t.Fatal(err)
	}
	change.Commit()
	ask(t, c, "x")
	ask(t, dial(t, f.Addrs()[1]), "x")
	if s := f.Stats(); s.Sessions != 2 {
		t.Errorf("got %+v", s)
	}
	if _, err := f.Prepare([]Listener{{Address: netip.MustParseAddrPort("192.0.2.1:53"), Service: "dns"}}); err == nil {
		t.Error("an address that is not here: no error")
	}
	change, err = f.Prepare(nil)
	if err != nil {
		t.Fatal(err)
	}
	change.Commit()
	until(t, "sessions of removed addresses end", func() bool { return f.registry.Snapshot()[0].InFlight == 0 })
}
