package l7

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/prometheus/client_golang/prometheus"
)

func named(t testing.TB, name string) netip.AddrPort {
	return webBackend(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) })
}

// TestReloadUnderLoad changes routes, listeners and plans a hundred times while
// clients go on; not one request fails.
func TestReloadUnderLoad(t *testing.T) {
	a, b := named(t, "a"), named(t, "b")
	f := start(t, Options{Drain: 5 * time.Second}, a, b)
	addr := f.Addrs()[0]
	hc := client(t)
	var served atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				res, err := hc.Get("http://" + f.addr + "/x")
				if err != nil {
					t.Errorf("request failed: %v", err)
					return
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 {
					t.Errorf("got %d %q %v", res.StatusCode, body, err)
					return
				}
				served.Add(1)
			}
		})
	}
	for i := range 100 {
		listeners := []Listener{{Address: addr, Routes: []Route{{Service: "web"}, {Host: fmt.Sprintf("h%d.test", i), Service: "none"}}}}
		if i%2 == 0 {
			listeners = append(listeners, Listener{Address: netip.MustParseAddrPort("127.0.0.1:0"), Routes: anyRoute})
		}
		change, err := f.Prepare(listeners)
		if err != nil {
			t.Fatal(err)
		}
		if i%5 == 4 {
			change.Discard()
		} else {
			change.Commit()
		}
		switch i % 3 {
		case 0:
			f.pools.publish(a)
		case 1:
			f.pools.publish(b)
		case 2:
			f.pools.publish(a, b)
		}
		target := served.Load() + 10
		until(t, "requests go on", func() bool { return served.Load() >= target || t.Failed() })
	}
	close(stop)
	wg.Wait()
	if s := f.Stats(); s.Accepted > 30 {
		t.Errorf("%d connections for 8 clients: reloads have closed some", s.Accepted)
	}
}

func TestRoutesChangeOnOpenConnections(t *testing.T) {
	f := start(t, Options{}, named(t, "web"))
	addr := f.Addrs()[0]
	c := dial(t, f.addr)
	get := func() answer {
		c.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n")
		return c.read("GET")
	}
	if got := get(); got.StatusCode != 200 {
		t.Fatalf("got %d", got.StatusCode)
	}
	change, err := f.Prepare([]Listener{{Address: addr, Routes: []Route{{Host: "b.test", Service: "web"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := get(); got.StatusCode != 200 {
		t.Errorf("before Commit: got %d", got.StatusCode)
	}
	change.Commit()
	if got := get(); got.StatusCode != 404 {
		t.Errorf("after Commit: got %d", got.StatusCode)
	}
	if _, err := f.Prepare([]Listener{{Address: addr, Routes: []Route{{Host: "*", Service: "web"}}}}); err == nil {
		t.Error("a bad route was accepted")
	}
	if got := get(); got.StatusCode != 404 {
		t.Errorf("after a bad change: got %d", got.StatusCode)
	}
}

func TestRemovedListener(t *testing.T) {
	release := make(chan struct{})
	slow := webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
		fmt.Fprint(w, "ok")
	})
	f := start(t, Options{Listeners: []Listener{{Routes: anyRoute}, {Routes: anyRoute}}}, slow)
	addrs := f.Addrs()
	idle, busy := dial(t, addrs[1].String()), dial(t, addrs[1].String())
	idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	idle.read("GET")
	busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	until(t, "under way", func() bool { // the second one: the first one's lease may end late
		b := f.registry.Snapshot()[1]
		return b.Leases == 2 && b.InFlight == 1
	})

	change, err := f.Prepare([]Listener{{Address: addrs[0], Routes: anyRoute}})
	if err != nil {
		t.Fatal(err)
	}
	change.Commit()
	idle.wantEnd()
	close(release)
	if got := busy.read("GET"); got.StatusCode != 200 || !got.Close {
		t.Errorf("got %d, close %v", got.StatusCode, got.Close)
	}
	busy.CloseWrite()
	busy.wantEnd()
	until(t, "refused", func() bool {
		c, err := net.Dial("tcp", addrs[1].String())
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

func TestReloadKeepsWebSockets(t *testing.T) {
	backend := rawBackend(t, upgrader)
	f := start(t, Options{}, backend)
	c := upgrade(t, f.addr)
	change, err := f.Prepare([]Listener{{Address: netip.MustParseAddrPort("127.0.0.1:0"), Routes: []Route{{Host: "x", Service: "web"}}}})
	if err != nil {
		t.Fatal(err)
	}
	change.Commit()
	f.pools.publish() // the backend leaves the plan as well
	c.wantEcho("still here", "still here")
	change, err = f.Prepare(nil) // and the listener goes altogether
	if err != nil {
		t.Fatal(err)
	}
	change.Commit()
	c.wantEcho("and now", "and now")
}

func TestStop(t *testing.T) {
	release := make(chan struct{})
	slow := webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
		fmt.Fprint(w, "ok")
	})
	t.Run("finishes what runs", func(t *testing.T) {
		f := start(t, Options{Drain: time.Minute}, slow)
		idle, busy := dial(t, f.addr), dial(t, f.addr)
		busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		busy.r.Peek(1)
		stopped := make(chan struct{})
		go func() { f.stop(); close(stopped) }()
		idle.wantEnd()
		close(release)
		if got := busy.read("GET"); got.body != "ok" {
			t.Errorf("got %q", got.body)
		}
		<-stopped
	})
	t.Run("cuts at last", func(t *testing.T) {
		f := start(t, Options{Drain: 50 * time.Millisecond}, rawBackend(t, upgrader))
		c := upgrade(t, f.addr)
		f.stop()
		if _, err := io.ReadAll(c); err == nil {
			t.Error("got an orderly end, want to see that it was cut")
		}
	})
}

func TestMaxConns(t *testing.T) {
	f := start(t, Options{MaxConns: 1}, named(t, "web"))
	c := dial(t, f.addr)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	c.read("GET")
	other, err := net.Dial("tcp", f.addr)
	if err == nil {
		other.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = io.ReadAll(other)
		other.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
	if s := f.Stats(); s.Refused != 1 {
		t.Errorf("got %+v", s.FrontStats)
	}
}

func TestNewFails(t *testing.T) {
	registry, err := forward.New(forward.Options{Pools: &fakePools{}})
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewPedanticRegistry()
	any := netip.MustParseAddrPort("127.0.0.1:0")
	good := Options{Registry: registry, Registerer: reg, Listeners: []Listener{{Address: any, Routes: anyRoute}}}
	s, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
	busy := s.Addrs()[0]
	tests := []struct {
		name string
		opts Options
		want string
	}{
		{"no registry", Options{}, "Registry is required"},
		{"metrics twice", good, "register l7 metrics"},
		{"negative", Options{Registry: registry, BodyTimeout: -1}, "negative"},
		{"negative idle", Options{Registry: registry, Listeners: []Listener{{Address: any, Idle: -1}}}, "negative"},
		{"server name", Options{Registry: registry, ServerName: "a\nb"}, "control characters"},
		{"two routes wrong", Options{Registry: registry, Listeners: []Listener{{
			Address: any, Routes: []Route{{Host: "a b", Service: "x"}, {Path: "x", Service: "x"}},
		}}}, "route 2"},
		{"address twice", Options{Registry: registry, Listeners: []Listener{{Address: busy}, {Address: busy}}}, "named twice"},
	}
	for _, tt := range tests {
		if _, err := New(tt.opts); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}
