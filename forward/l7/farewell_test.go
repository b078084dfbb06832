package l7

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward/l7/certtest"
)

// TestFarewell: a client of HTTP/1 that keeps its connection when its listener goes is told so with an answer, as long as it asks;
// one that is silent sees the end, and no reset.
func TestFarewell(t *testing.T) {
	const get = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
	ca := certtest.New(t)
	ways := []struct {
		name   string
		secure bool
		leave  func(t *testing.T, f *fixture) (done <-chan struct{})
	}{
		{"stop", false, stopping},
		{"stop over TLS", true, stopping},
		{"removed", false, removing},
		{"removed over TLS", true, removing},
	}
	for _, way := range ways {
		for _, state := range []string{"asks", "silent", "answer under way"} {
			t.Run(way.name+"/"+state, func(t *testing.T) {
				release := make(chan struct{})
				f := farewellFixture(t, ca, way.secure, release)
				c := farewellDial(t, f, way.secure)
				r := bufio.NewReader(c)
				io.WriteString(c, get)
				first, err := http.ReadResponse(r, nil)
				if err != nil || first.Close {
					t.Fatalf("got %v and %v, want an answer and a connection that goes on", first, err)
				}
				if state != "answer under way" {
					close(release)
					io.Copy(io.Discard, first.Body)
				}
				done := way.leave(t, f)
				if state == "answer under way" {
					close(release)
					io.Copy(io.Discard, first.Body)
				}
				if state != "silent" {
					io.WriteString(c, get)
					last, err := http.ReadResponse(r, nil)
					if err != nil {
						t.Fatalf("got %v, want one more answer", err)
					}
					if body, err := io.ReadAll(last.Body); string(body) != "ab" || err != nil || !last.Close {
						t.Errorf("got %q, %v, close %t, want ab and the end of the connection", body, err, last.Close)
					}
				}
				if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
					t.Errorf("got %q and %v, want the end of the connection", rest, err)
				}
				c.Close()
				<-done
			})
		}
	}
}

// farewellFixture has a backend that says half of what it has to say, and waits.
func farewellFixture(t *testing.T, ca *certtest.CA, secured bool, release <-chan struct{}) *fixture {
	l := Listener{Routes: anyRoute}
	if secured {
		l.TLS = secure(ca, "a.test")
	}
	other := Listener{Routes: anyRoute}
	return start(t, Options{Drain: time.Minute, Listeners: []Listener{l, other}}, webBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "a")
		w.(http.Flusher).Flush()
		<-release
		io.WriteString(w, "b")
	}))
}

func farewellDial(t *testing.T, f *fixture, secured bool) net.Conn {
	t.Helper()
	if !secured {
		return dial(t, f.addr).TCPConn
	}
	c, err := shake(f.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// stopping begins to stop f, and returns when it does.
func stopping(t *testing.T, f *fixture) <-chan struct{} {
	done := make(chan struct{})
	go func() { f.stop(); close(done) }()
	refuses(t, f)
	return done
}

// removing takes f's first listener away.
func removing(t *testing.T, f *fixture) <-chan struct{} {
	t.Helper()
	change, err := f.Prepare([]Listener{{Address: f.Addrs()[1], Routes: anyRoute}})
	if err != nil {
		t.Fatal(err)
	}
	change.Commit()
	refuses(t, f)
	done := make(chan struct{})
	close(done)
	return done
}

// refuses waits until nobody is taken in any more.
func refuses(t *testing.T, f *fixture) {
	t.Helper()
	until(t, "refused", func() bool {
		c, err := net.Dial("tcp", f.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

// TestFarewellIsShort: whoever has nothing to say does not keep a node from stopping for longer than that, nor for longer than the drain may take.
func TestFarewellIsShort(t *testing.T) {
	for _, drain := range []time.Duration{-1, 100 * time.Millisecond, time.Minute} {
		f := start(t, Options{Drain: drain}, says(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
		c := dial(t, f.addr)
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.read("GET")
		until(t, "it rests", func() bool { return f.registry.Snapshot()[1].InFlight == 0 })
		began := time.Now()
		f.stop()
		if d := time.Since(began); d > lastRequest+time.Second {
			t.Errorf("drain %s: stopped after %s, want %s at most", drain, d, lastRequest)
		}
		if drain > 0 {
			c.wantEnd()
		}
	}
}
