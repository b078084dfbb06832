package l7

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"golang.org/x/net/http2"
)

// refusing serves plainly and over TLS, and takes bodies of 10 bytes at most.
func refusing(t *testing.T) (plain, secured *fixture) {
	ca := certtest.New(t)
	backend := says(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	l := Listener{Routes: anyRoute, Limits: Limits{Body: 10, Requests: 1}}
	plain = start(t, Options{Listeners: []Listener{l}}, backend)
	l.TLS = secure(ca, "a.test")
	return plain, start(t, Options{Listeners: []Listener{l}}, backend)
}

// TestLateReaders: whoever sends all of a body that is too large before it looks for the answer finds it.
func TestLateReaders(t *testing.T) {
	const size = 8 << 20
	plain, secured := refusing(t)
	dials := map[string]func() (net.Conn, error){
		"plain": func() (net.Conn, error) { return net.Dial("tcp", plain.addr) },
		"TLS": func() (net.Conn, error) {
			return tls.Dial("tcp", secured.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		},
	}
	for name, dial := range dials {
		for range 5 {
			c, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8388608\r\n\r\n")
			if _, err := c.Write(make([]byte, size)); err != nil {
				t.Errorf("%s: the body: %v", name, err)
			}
			answer, err := io.ReadAll(c)
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 413 ") || !strings.HasSuffix(string(answer), "too large\n") {
				t.Errorf("%s: got %.60q, %v", name, answer, err)
			}
			c.Close()
		}
	}
}

// TestLeavingIsNoWork: a client that goes on sending after it was refused is in nobody's way, and does not stay for ever.
func TestLeavingIsNoWork(t *testing.T) {
	f, _ := refusing(t)
	c := dial(t, f.addr)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n")
	res, err := http.ReadResponse(c.r, nil)
	if err != nil || res.StatusCode != 413 {
		t.Fatal(res, err)
	}
	var sent atomic.Int64
	block := make([]byte, 64<<10)
	ended := make(chan struct{})
	trickle := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			n := 1
			select {
			case <-trickle:
				n = len(block)
			default:
			}
			if _, err := c.Write(block[:n]); err != nil {
				return
			}
			sent.Add(1)
		}
	}()
	until(t, "nothing is in work", func() bool { return f.gates.inWork() == 0 })
	if got := f.ask(t, "GET / HTTP/1.1\nHost: a").StatusCode; got != 200 {
		t.Errorf("another client got %d", got)
	}
	now, began := sent.Load(), time.Now()
	until(t, "it goes on sending for longer than it may be silent", func() bool {
		select {
		case <-ended:
			t.Fatal("it was cut off")
		default:
		}
		return sent.Load() > now+100 && time.Since(began) > 2*forward.LingerFor
	})
	close(trickle)
	<-ended
}

// TestFloodersLeave: a client of HTTP/2 that was told that its connection ends is not listened to for long.
func TestFloodersLeave(t *testing.T) {
	f := start(t, Options{}, says(t, ""))
	c := dial2(t, f.addr)
	c.WriteRawFrame(http2.FrameData, 0, 0, []byte("x")) // of no stream
	if got := c.next(); got != "GOAWAY PROTOCOL_ERROR" {
		t.Fatalf("got %s", got)
	}
	block, sent := make([]byte, 64<<10), 0
	for sent < lingerBytes {
		n, err := c.Conn.Write(block)
		if sent += n; err != nil {
			return
		}
	}
	t.Errorf("it took %d bytes more", sent)
}
