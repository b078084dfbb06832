package l4

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/porttest"
	"github.com/prometheus/client_golang/prometheus"
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

// publish makes members the pool of service "db".
func (f *fakePools) publish(members ...netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pool := forward.ServicePool{Service: "db"}
	for _, m := range members {
		pool.Members = append(pool.Members, forward.Member{Address: m, Weight: 1, Active: true})
	}
	f.version++
	f.pools = []forward.ServicePool{pool}
}

// backend serves each connection with handle until the test ends.
func backend(t *testing.T, handle func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func echo(c *net.TCPConn) {
	io.Copy(c, c)
	c.CloseWrite()
}

// nobody returns an address at which connections are refused.
func nobody(t *testing.T) netip.AddrPort {
	t.Helper()
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(porttest.Free(t)))
}

type fixture struct {
	*Server
	pools    *fakePools
	registry *forward.Registry
	told     told
	addr     netip.AddrPort
	stop     func() // ends Run and waits for it
}

// start runs a Server with one listener for service "db".
func start(t *testing.T, opts Options, members ...netip.AddrPort) *fixture {
	t.Helper()
	f := &fixture{pools: &fakePools{}}
	f.pools.publish(members...)
	var err error
	outcome := func(_ string, _ netip.AddrPort, ok bool) { f.told.add(ok) }
	if f.registry, err = forward.New(forward.Options{Pools: f.pools, Outcome: outcome}); err != nil {
		t.Fatal(err)
	}
	opts.Registry = f.registry
	if opts.Listeners == nil {
		opts.Listeners = []Listener{{Service: "db", Idle: 10 * time.Second, Connect: time.Second}}
	}
	for i := range opts.Listeners {
		if !opts.Listeners[i].Address.IsValid() {
			opts.Listeners[i].Address = netip.MustParseAddrPort("127.0.0.1:0")
		}
	}
	if opts.Drain == 0 {
		opts.Drain = 5 * time.Second
	}
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
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

func dial(t *testing.T, addr netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c
}

// wantReset connects and fails unless the connection is reset.
func wantReset(t *testing.T, addr netip.AddrPort) {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr.String(), 20*time.Second)
	if err == nil { // otherwise the reset was faster than connect
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = io.ReadAll(c)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

// ask sends text and reads as many bytes back.
func ask(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if string(got) != text {
		t.Fatalf("got %q, want %q", got, text)
	}
}

// until waits for a fact that another goroutine brings about.
func until(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !fact(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestEcho(t *testing.T) {
	f := start(t, Options{}, backend(t, echo))
	c := dial(t, f.addr)
	ask(t, c, "hello")
	ask(t, c, strings.Repeat("x", 100000))
	c.CloseWrite()
	if rest, err := io.ReadAll(c); err != nil || len(rest) != 0 {
		t.Errorf("got %d bytes and %v, want an orderly end", len(rest), err)
	}
	f.stop()
	if s := f.Stats(); s.Up != 100005 || s.Down != 100005 || s.Accepted != 1 || s.Active != 0 {
		t.Errorf("got %+v", s)
	}
	if s := f.registry.Snapshot()[0]; s.InFlight != 0 || s.Outcomes[forward.OutcomeServed] != 1 {
		t.Errorf("got %+v", s)
	}
}

// TestBulk is large enough for splice, both ways at once.
func TestBulk(t *testing.T) {
	f := start(t, Options{}, backend(t, echo))
	c := dial(t, f.addr)
	want := make([]byte, 24<<20)
	rand.Read(want)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		c.CloseWrite()
		sent <- err
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, not the %d that were sent", len(got), len(want))
	}
}

// TestBulkThenQuiet has a flow go back from splice to buffers and end there.
func TestBulkThenQuiet(t *testing.T) {
	f := start(t, Options{}, backend(t, echo))
	c := dial(t, f.addr)
	block := strings.Repeat("b", 1<<20)
	go io.WriteString(c, block)
	if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1200 * time.Millisecond) // longer than a splice waits
	ask(t, c, "still there?")
}

func TestHalfClose(t *testing.T) {
	t.Run("client first", func(t *testing.T) {
		f := start(t, Options{}, backend(t, func(c *net.TCPConn) {
			all, _ := io.ReadAll(c)
			c.Write([]byte("got " + string(all)))
		}))
		c := dial(t, f.addr)
		io.WriteString(c, "everything")
		c.CloseWrite()
		if got, err := io.ReadAll(c); string(got) != "got everything" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("backend first", func(t *testing.T) {
		heard := make(chan string, 1)
		f := start(t, Options{}, backend(t, func(c *net.TCPConn) {
			io.WriteString(c, "bye")
			c.CloseWrite()
			all, _ := io.ReadAll(c)
			heard <- string(all)
		}))
		c := dial(t, f.addr)
		if got, err := io.ReadAll(c); string(got) != "bye" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		io.WriteString(c, "one more thing")
		c.CloseWrite()
		if got := <-heard; got != "one more thing" {
			t.Errorf("the backend heard %q", got)
		}
	})
}

func TestResetIsPassedOn(t *testing.T) {
	f := start(t, Options{}, backend(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 5))
		c.SetLinger(0)
	}))
	c := dial(t, f.addr)
	io.WriteString(c, "hello")
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
	until(t, "outcome", func() bool {
		return f.registry.Snapshot()[0].Outcomes[forward.OutcomeReset] == 1
	})
}

func TestRefusingBackendIsReplaced(t *testing.T) {
	f := start(t, Options{}, nobody(t), backend(t, echo), nobody(t))
	for range 20 {
		c := dial(t, f.addr)
		ask(t, c, "hello")
		c.Close()
	}
}

func TestNoBackend(t *testing.T) {
	tests := []struct {
		name    string
		members []netip.AddrPort
		count   func(Stats) uint64
	}{
		{"none in the plan", nil, func(s Stats) uint64 { return s.NoBackend }},
		{"all refuse", []netip.AddrPort{nobody(t), nobody(t)}, func(s Stats) uint64 { return s.ConnectFailed }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, Options{}, tt.members...)
			wantReset(t, f.addr)
			until(t, "counted", func() bool { return tt.count(f.Stats()) == 1 })
		})
	}
}

func TestIdle(t *testing.T) {
	const idle = 200 * time.Millisecond
	f := start(t, Options{Listeners: []Listener{{Service: "db", Idle: idle, Connect: time.Second}}}, backend(t, echo))
	t.Run("silent", func(t *testing.T) {
		c := dial(t, f.addr)
		ask(t, c, "hello")
		start := time.Now()
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want a reset", err)
		}
		if d := time.Since(start); d < idle*3/4 || d > 20*idle {
			t.Errorf("ended after %v, want about %v", d, idle)
		}
		until(t, "counted", func() bool { return f.Stats().Idle == 1 })
	})
	t.Run("one direction is enough", func(t *testing.T) {
		quiet := start(t, Options{Listeners: []Listener{{Service: "db", Idle: idle, Connect: time.Second}}},
			backend(t, func(c *net.TCPConn) {
				for range 12 {
					time.Sleep(idle / 3)
					io.WriteString(c, ".")
				}
			}))
		c := dial(t, quiet.addr)
		if got, err := io.ReadAll(c); len(got) != 12 || err != nil {
			t.Errorf("got %d bytes and %v, want 12", len(got), err)
		}
	})
}

func TestMaxConns(t *testing.T) {
	f := start(t, Options{MaxConns: 2}, backend(t, echo))
	a, b := dial(t, f.addr), dial(t, f.addr)
	ask(t, a, "a")
	ask(t, b, "b")
	wantReset(t, f.addr)
	if s := f.Stats(); s.Refused != 1 || s.Active != 2 {
		t.Errorf("got %+v", s)
	}
	a.Close()
	until(t, "room again", func() bool { return f.Stats().Active == 1 })
	ask(t, dial(t, f.addr), "c")
}

func TestReload(t *testing.T) {
	first := backend(t, echo)
	f := start(t, Options{Listeners: []Listener{{Service: "db"}, {Service: "db"}}}, first)
	kept, removed := dial(t, f.Addrs()[0]), dial(t, f.Addrs()[1])
	ask(t, kept, "kept")
	ask(t, removed, "removed")
	old := f.Addrs()

	change, err := f.Prepare([]Listener{{Address: old[0], Service: "none"}, {Address: nobody(t), Service: "db"}})
	if err != nil {
		t.Fatal(err)
	}
	ask(t, dial(t, old[1]), "nothing has changed before Commit")
	if _, err := f.Prepare(nil); !errors.Is(err, forward.ErrChangePending) {
		t.Errorf("second Prepare: got %v", err)
	}
	change.Commit()
	change.Commit()
	change.Discard()

	ask(t, kept, "open connections stay on kept sockets")
	ask(t, removed, "and on removed ones")
	ask(t, dial(t, f.Addrs()[1]), "the new address works")
	wantReset(t, old[0]) // the kept address has its new service
	until(t, "the removed address refuses", func() bool {
		c, err := net.Dial("tcp", old[1].String())
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

func TestPrepareFails(t *testing.T) {
	f := start(t, Options{}, backend(t, echo))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := taken.Addr().(*net.TCPAddr).AddrPort()
	free := nobody(t)
	tests := []struct {
		name      string
		listeners []Listener
		want      string
	}{
		{"in use", []Listener{{Address: free, Service: "db"}, {Address: busy, Service: "db"}}, "listen on " + busy.String()},
		{"twice", []Listener{{Address: free, Service: "db"}, {Address: free, Service: "db"}}, "named twice"},
		{"no service", []Listener{{Address: free}}, "service is missing"},
		{"no address", []Listener{{Service: "db"}}, "address is missing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := f.Prepare(tt.listeners); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if _, err := net.Dial("tcp", free.String()); err == nil {
				t.Error("what was bound before the error is still bound")
			}
			ask(t, dial(t, f.addr), "the old goes on")
		})
	}
	change, err := f.Prepare([]Listener{{Address: free, Service: "db"}})
	if err != nil {
		t.Fatal(err)
	}
	change.Discard()
	if _, err := net.Dial("tcp", free.String()); err == nil {
		t.Error("discarded, but still bound")
	}
	ask(t, dial(t, f.addr), "the old goes on")
}

func TestDrain(t *testing.T) {
	t.Run("ends when the connections end", func(t *testing.T) {
		f := start(t, Options{Drain: time.Minute}, backend(t, echo))
		c := dial(t, f.addr)
		ask(t, c, "before")
		stopped := make(chan struct{})
		go func() { f.stop(); close(stopped) }()
		until(t, "refused", func() bool {
			c, err := net.Dial("tcp", f.addr.String())
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		ask(t, c, "while draining")
		c.Close()
		<-stopped
	})
	t.Run("cuts at last", func(t *testing.T) {
		f := start(t, Options{Drain: 100 * time.Millisecond}, backend(t, echo))
		c := dial(t, f.addr)
		ask(t, c, "before")
		f.stop()
		if _, err := io.ReadAll(c); err == nil {
			t.Error("got an orderly end, want to see that it was cut")
		}
	})
}

func TestNewFails(t *testing.T) {
	registry, err := forward.New(forward.Options{Pools: &fakePools{}})
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	addr := netip.MustParseAddrPort("127.0.0.1:0")
	good := Options{Registry: registry, Registerer: reg, Listeners: []Listener{{Address: addr, Service: "db"}}}
	s, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
	for name, opts := range map[string]Options{
		"registry":  {Listeners: good.Listeners},
		"twice":     good, // the metrics are registered already
		"max conns": {Registry: registry, MaxConns: -1},
		"idle":      {Registry: registry, Listeners: []Listener{{Address: addr, Service: "db", Idle: -1}}},
	} {
		if _, err := New(opts); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	s.Close()
	s.Close()
	if err := s.Run(t.Context()); err == nil {
		t.Error("Run after Close: no error")
	}
}

// TestNothingLeaks opens and ends a thousand connections in every way.
func TestNothingLeaks(t *testing.T) {
	f := start(t, Options{}, backend(t, echo))
	warm := dial(t, f.addr)
	ask(t, warm, "warm")
	warm.Close()
	until(t, "quiet", func() bool { return f.Stats().Active == 0 })
	goroutines, fds := runtime.NumGoroutine(), openFiles(t)
	const batch = 100
	for round := range 10 {
		conns := make([]*net.TCPConn, batch)
		for i := range conns {
			conns[i] = dial(t, f.addr)
			io.WriteString(conns[i], "hello")
		}
		for i, c := range conns {
			switch (i + round) % 3 {
			case 0:
				io.ReadFull(c, make([]byte, 5))
			case 1:
				c.SetLinger(0)
			}
			c.Close()
		}
	}
	until(t, "all ended", func() bool { return f.Stats().Active == 0 && f.Stats().Accepted == 1+10*batch })
	// The spare pipes that the runtime keeps for splice are the only ones allowed to stay.
	until(t, "goroutines and descriptors are back", func() bool {
		return runtime.NumGoroutine() <= goroutines && openFiles(t) <= fds+8
	})
	if s := f.registry.Snapshot()[0]; s.InFlight != 0 {
		t.Errorf("%d in flight, want 0", s.InFlight)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
