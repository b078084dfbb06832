package h2

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"golang.org/x/net/http2"
)

// pair are the two ends of a TCP connection.
func pair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// TestGoAwayIsSaid: why a connection ends is written before it ends, also when somebody else is writing just then.
func TestGoAwayIsSaid(t *testing.T) {
	for name, busy := range map[string]bool{"nobody writes": false, "somebody writes": true} {
		t.Run(name, func(t *testing.T) {
			near, far := pair(t)
			c := New(forward.NewStream(near), nil, Options{Client: true})
			c.mu.Lock()
			c.writing = busy
			c.mu.Unlock()
			ended := make(chan error, 1)
			go func() {
				defer c.Close()
				ended <- c.fail(http2.ErrCodeProtocol, "")
			}()
			for waits := false; busy && !waits; runtime.Gosched() {
				c.mu.Lock()
				waits = c.said != nil
				c.mu.Unlock()
				if len(ended) > 0 {
					t.Fatal("it ended without waiting for who writes")
				}
			}
			c.mu.Lock()
			c.writing = false
			c.mu.Unlock()
			c.flush() // as who writes goes on
			far.SetReadDeadline(time.Now().Add(10 * time.Second))
			got, err := io.ReadAll(far)
			if err != nil {
				t.Fatal(err)
			}
			goAway := []byte{0, 0, 8, byte(http2.FrameGoAway), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(http2.ErrCodeProtocol)}
			if !bytes.HasSuffix(got, goAway) {
				t.Errorf("the peer read % x, want a GOAWAY at the end", got)
			}
			far.Close() // until then it would read on
			if err := <-ended; err != http2.ConnectionError(http2.ErrCodeProtocol) {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}

// TestStartOnTheDead: a connection on which the peer never said anything has failed, any other one just takes no more.
func TestStartOnTheDead(t *testing.T) {
	for greeted, want := range map[bool]error{false: io.ErrUnexpectedEOF, true: ErrGoAway} {
		near, _ := pair(t)
		c := New(forward.NewStream(near), nil, Options{Client: true})
		c.greeted = greeted
		c.end(io.ErrUnexpectedEOF)
		if _, err := c.Start(Message{End: true}, false, time.Second); err != want {
			t.Errorf("greeted %v: %v, want %v", greeted, err, want)
		}
	}
}
