package l7

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
)

// TestDrainEndsSilentBackend: what waits for a backend ends with the drain, not with the backend.
func TestDrainEndsSilentBackend(t *testing.T) {
	const drain = 200 * time.Millisecond
	const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	tests := []struct {
		name, send string
		first      string // what the backend says to the first request; "" = nothing
		half       bool
	}{
		{"request", get, "", false},
		{"request, client has half-closed", get, "", true},
		{"body on its way", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx", "", false},
		{"middle of an answer", get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", false},
		{
			"upgraded", "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
			"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", false,
		},
		{
			"upgraded, client has half-closed", "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
			"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			heard, release := make(chan error, 2), make(chan struct{})
			f := start(t, Options{Drain: drain}, rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
				_, err := http.ReadRequest(r)
				io.WriteString(c, tt.first)
				heard <- err
				<-release
			}))
			t.Cleanup(func() { close(release) }) // before the cleanup of start and rawBackend
			c := dial(t, f.addr)
			c.send(tt.send)
			if err := <-heard; err != nil {
				t.Fatal(err)
			}
			if tt.first != "" {
				c.r.Peek(1)
			}
			if tt.half {
				c.CloseWrite()
			}
			stopsWithin(t, f, drain)
			if s := f.registry.Snapshot()[1]; s.InFlight != 0 || s.Outcomes[forward.OutcomeReset]+s.Outcomes[forward.OutcomeTimeout] != 0 {
				t.Errorf("got %+v, want nothing in flight and no word about the backend", s)
			}
		})
	}
}

// TestDrainEndsRenewedConnection has the silent connection be the one that replaced a dead one.
func TestDrainEndsRenewedConnection(t *testing.T) {
	const drain = 200 * time.Millisecond
	asked, release := make(chan struct{}, 3), make(chan struct{})
	f := start(t, Options{Drain: drain}, rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		asked <- struct{}{}
		if len(asked) > 1 {
			<-release
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		http.ReadRequest(r) // the next one meets a connection that dies
	}))
	t.Cleanup(func() { close(release) })
	c := dial(t, f.addr)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	c.read("GET")
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	until(t, "asked again", func() bool { return len(asked) == 2 })
	stopsWithin(t, f, drain)
}

func stopsWithin(t *testing.T, f *fixture, drain time.Duration) {
	t.Helper()
	began := time.Now()
	f.stop()
	if d := time.Since(began); d < drain || d > drain+time.Second {
		t.Errorf("Run returned %s after its context ended, want %s and at most a second more", d, drain)
	}
}

// TestDrainWaitsForAnswer: a request that nobody has answered yet when Run's context ends gets its answer.
func TestDrainWaitsForAnswer(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	f := start(t, Options{Drain: time.Minute}, webBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-answer
		io.WriteString(w, "ok")
	}))
	c := dial(t, f.addr)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-asked
	stopped := make(chan struct{})
	go func() { f.stop(); close(stopped) }()
	until(t, "refused", func() bool {
		c, err := net.Dial("tcp", f.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(answer)
	if got := c.read("GET"); got.body != "ok" || !got.Close {
		t.Errorf("got %q, close %t, want ok and the end of the connection", got.body, got.Close)
	}
	<-stopped
}

// TestClientGoesWhileBackendThinks: the backend sees at once that nobody waits for its answer.
func TestClientGoesWhileBackendThinks(t *testing.T) {
	tests := []struct {
		name, send string
		reset      bool
	}{
		{"end", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", false},
		{"reset", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", true},
		{"after a body", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			asked, gone := make(chan struct{}), make(chan struct{})
			f := start(t, Options{}, webBackend(t, func(_ http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				close(asked)
				<-r.Context().Done()
				close(gone)
			}))
			c := dial(t, f.addr)
			c.send(tt.send)
			<-asked
			if tt.reset {
				c.SetLinger(0)
			}
			c.Close()
			select {
			case <-gone:
			case <-time.After(5 * time.Second):
				t.Fatal("the backend still works for nobody")
			}
			until(t, "no word about the backend", func() bool {
				s := f.registry.Snapshot()[1]
				return s.InFlight == 0 && s.Outcomes[forward.OutcomeClient] == 1
			})
		})
	}
}
