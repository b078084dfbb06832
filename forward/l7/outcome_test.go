package l7

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"golang.org/x/net/http2"
)

// told is what the registry was told of its backends, in order.
type told struct {
	mu  sync.Mutex
	all []bool
}

func (t *told) add(ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, ok)
}

// TestOutcomes: what a request tells of its backend.
func TestOutcomes(t *testing.T) {
	answers := func(status int) func(*testing.T) netip.AddrPort {
		return func(t *testing.T) netip.AddrPort {
			return webBackend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		}
	}
	sends := func(text string) func(*testing.T) netip.AddrPort {
		return func(t *testing.T) netip.AddrPort { return says(t, text) }
	}
	for _, tt := range []struct {
		name    string
		backend func(*testing.T) netip.AddrPort
		want    []bool
	}{
		{"served", answers(200), []bool{true}},
		{"not found", answers(404), []bool{true}},
		{"error", answers(503), []bool{false}},
		{"not HTTP", sends("hello\r\n\r\n!"), []bool{false}},
		{"cut short", sends("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc!"), []bool{false}},
		{"refused", func(t *testing.T) netip.AddrPort { return nobody(t) }, []bool{false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, Options{}, tt.backend(t))
			res, err := http.Get("http://" + f.addr + "/")
			if err == nil {
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
			http.DefaultClient.CloseIdleConnections()
			f.stop()
			if !slices.Equal(f.told.all, tt.want) {
				t.Errorf("told %v, want %v", f.told.all, tt.want)
			}
		})
	}
}

// TestOutcomeOfAnIdleConnection: that a backend ends an idle connection just as it
// is used again, on which a POST cannot be sent once more, is no failure.
func TestOutcomeOfAnIdleConnection(t *testing.T) {
	addr := rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		if _, err = http.ReadRequest(r); err == nil {
			c.SetLinger(0) // the second request meets a reset
		}
	})
	f := start(t, Options{}, addr)
	client := &http.Client{Transport: &http.Transport{}}
	for i, want := range []int{200, 502} {
		res, err := client.Post("http://"+f.addr+"/", "text/plain", nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("request %d: got %d, want %d", i+1, res.StatusCode, want)
		}
	}
	client.CloseIdleConnections()
	f.stop()
	if !slices.Equal(f.told.all, []bool{true}) {
		t.Errorf("told %v, want one true", f.told.all)
	}
}

// TestOutcomeOfAnUpgrade: a backend that agrees to one has done its work.
func TestOutcomeOfAnUpgrade(t *testing.T) {
	addr := rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			c.SetLinger(0)
		}
	})
	f := start(t, Options{}, addr)
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	io.ReadAll(c) // until the tunnel has ended
	f.stop()
	if !slices.Equal(f.told.all, []bool{true}) {
		t.Errorf("told %v, want one true", f.told.all)
	}
}

// TestOutcomeOfAClientThatLeaves: a client that resets its stream says nothing about the backend, at whatever moment it does; counted
// against the backend, a stranger could have it ejected.
func TestOutcomeOfAClientThatLeaves(t *testing.T) {
	const streams = 60 // fewer than are a flood
	serve := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begun" {
			w.Write([]byte("abc"))
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	}
	for _, p := range []forward.Protocol{forward.HTTP1, forward.H2C} {
		for _, path := range []string{"/at-once", "/begun"} {
			t.Run(p.String()+path, func(t *testing.T) {
				f := startVia(t, forward.Transport{Protocol: p}, Options{}, protocolBackend(t, p, nil, serve).addr)
				c := dial2(t, f.addr)
				var both bytes.Buffer // the head and its reset come as one
				if path == "/at-once" {
					c.Framer = http2.NewFramer(&both, c)
				}
				fields := []string{":method", "GET", ":scheme", "http", ":path", path, ":authority", "a.test"}
				for id := uint32(1); id < 2*streams; id += 2 {
					c.open(id, true, fields...)
					if path == "/begun" {
						if got := c.next(); got != "200" {
							t.Fatalf("got %s, want 200", got)
						}
					}
					c.WriteRSTStream(id, http2.ErrCodeCancel)
					both.WriteTo(c)
				}
				until(t, "every outcome is told", func() bool { return concluded(f) == streams })
				o := f.registry.Snapshot()[1].Outcomes
				if o[forward.OutcomeClient] != streams {
					t.Errorf("got %v, want %d of the client", o, streams)
				}
			})
		}
	}
}

// concluded is how many outcomes there are, when nothing is under way.
func concluded(f *fixture) (n uint64) {
	s := f.registry.Snapshot()[1]
	if s.InFlight != 0 {
		return 0
	}
	for _, o := range s.Outcomes {
		n += o
	}
	return n
}

// TestRefusalsNobodyWaitsFor: clients of HTTP/1 that reset their connections while they queue are no failures of ours, are not brought before the
// backend when their turn comes, and have got no answer.
func TestRefusalsNobodyWaitsFor(t *testing.T) {
	const clients = 10
	release, asked := make(chan struct{}), make(chan struct{}, clients+1)
	backend := webBackend(t, func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-release
	})
	for _, patience := range []time.Duration{50 * time.Millisecond, time.Minute} {
		t.Run(patience.String(), func(t *testing.T) {
			f := start(t, Options{}, backend)
			f.pools.limit(forward.Limit{PerBackend: 1, Queue: clients, Wait: patience}, backend)
			const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
			first := dial(t, f.addr)
			first.send(get)
			<-asked
			for range clients {
				c := dial(t, f.addr)
				c.send(get)
				c.SetLinger(0)
				if patience > time.Second {
					until(t, "it waits", func() bool { return queue(f).Waiting > 0 })
				}
				c.Close()
			}
			until(t, "all have queued", func() bool { return queue(f).Waited == clients })
			if patience < time.Second {
				until(t, "none waits", func() bool { return queue(f).Waiting == 0 })
			}
			release <- struct{}{}
			first.read("GET")
			first.Close()
			until(t, "all have ended", func() bool { return f.Stats().Active == 0 })
			if n := len(asked); n > 0 {
				t.Errorf("the backend was asked %d times for nobody", n)
			}
			if s := f.Stats(); s.Replied != [112]uint64{} {
				t.Errorf("got %v own replies to clients that were gone", s.Replied)
			}
			if got := statusClasses(f); got[0] != clients || got[2] != 1 {
				t.Errorf("got %v by class, want %d without an answer and one of 2xx", got, clients)
			}
		})
	}
}

// TestAnswerNobodyTakes: an answer that came when its client had reset the connection is none.
func TestAnswerNobodyTakes(t *testing.T) {
	release, asked := make(chan struct{}), make(chan struct{})
	f := start(t, Options{}, webBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		io.WriteString(w, "ok")
	}))
	c := dial(t, f.addr)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-asked
	c.SetLinger(0)
	c.Close()
	close(release)
	until(t, "it has ended", func() bool { return f.Stats().Active == 0 })
	if got := statusClasses(f); got != [6]uint64{1} {
		t.Errorf("got %v by class, want one without an answer", got)
	}
}

// queue is that of service "web".
func queue(f *fixture) forward.Queue {
	for _, q := range f.registry.Queues() {
		if q.Service == "web" {
			return q
		}
	}
	return forward.Queue{}
}

// statusClasses counts requests by the first digit of their status, 0 = none.
func statusClasses(f *fixture) (n [6]uint64) {
	f.meters.mu.Lock()
	defer f.meters.mu.Unlock()
	for _, m := range f.meters.routes {
		for i := range m.classes {
			n[i] += m.classes[i].Load()
		}
	}
	return n
}
