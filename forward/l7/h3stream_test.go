package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// dial3 opens a connection of HTTP/3.
func dial3(t *testing.T, ca *certtest.CA, addr string) (*quic.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := quic.DialAddr(ctx, addr, &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test", NextProtos: []string{"h3"}}, nil)
	if err == nil {
		t.Cleanup(func() { c.CloseWithError(0x100, "") })
	}
	return c, err
}

// TestIntake3: what bounds the connections of a node bounds those of HTTP/3, too.
func TestIntake3(t *testing.T) {
	ca := certtest.New(t)
	for name, limits := range map[string][2]int{"connections": {1, 0}, "rate": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			f := start(t, Options{Listeners: listener3(ca)}, nobody(t))
			f.registry.Intake().Set(limits[0], limits[1])
			if _, err := dial3(t, ca, f.Addrs3()[0].String()); err != nil {
				t.Fatal(err)
			}
			_, err := dial3(t, ca, f.Addrs3()[0].String())
			var refused *quic.TransportError
			if !errors.As(err, &refused) || refused.ErrorCode != quic.ConnectionRefused {
				t.Errorf("the second connection got %v", err)
			}
			if s := f.Stats(); s.HTTP3 != 1 || s.Refused3 == 0 { // which counts each Initial packet of a hello that takes two
				t.Errorf("%d connections, %d refused, want one and some", s.HTTP3, s.Refused3)
			}
		})
	}
}

// TestWebSocket3 carries a WebSocket over HTTP/3. The access log says what the client was told.
func TestWebSocket3(t *testing.T) {
	ca := certtest.New(t)
	inner := websocketBackend(t, "hello ")
	file := filepath.Join(t.TempDir(), "access.log")
	l := listener3(ca)
	l[0].AccessLog = &AccessLog{File: file}
	f := start(t, Options{Listeners: l}, inner.Addrs()[0])
	conn, err := dial3(t, ca, f.Addrs3()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	tr := &http3.Transport{}
	t.Cleanup(func() { tr.Close() })
	s, err := tr.NewClientConn(conn).OpenRequestStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.SetDeadline(time.Now().Add(20 * time.Second))
	if err := s.SendRequestHeader(&http.Request{
		Method: http.MethodConnect, Proto: "websocket", Host: "a.test", URL: &url.URL{Scheme: "https", Host: "a.test", Path: "/ws"},
		Header: http.Header{"Sec-Websocket-Version": {"13"}},
	}); err != nil {
		t.Fatal(err)
	}
	res, err := s.ReadResponse()
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("got %v, %v", res, err)
	}
	s.Write([]byte("world"))
	s.Close()
	if got, err := io.ReadAll(s); string(got) != "hello world" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	f.stop()
	wantLogged(t, file, `"status":200`, `"protocol":"HTTP/3"`)
}

// wantLogged fails unless a file has one line, with all of words.
func wantLogged(t *testing.T, file string, words ...string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range words {
		if strings.Count(string(data), "\n") != 1 || !strings.Contains(string(data), word) {
			t.Errorf("%s is not in one line: %s", word, data)
		}
	}
}

// A sink is the way to a backend that does nothing but count.
type sink struct {
	upstream
	bytes, aborts int
}

func (s *sink) data(_ *pump, p []byte) { s.bytes += len(p) }
func (s *sink) end(*pump, []byte)      {}
func (s *sink) flush(*pump) trouble    { return troubleNone }
func (s *sink) Abort()                 { s.aborts++ }

// TestPump3Bound: no more of a body is passed on than was said that there is, whoever else sees to that.
func TestPump3Bound(t *testing.T) {
	for _, tt := range []struct {
		body string
		left int64
		want trouble
	}{
		{"abc", 3, troubleNone},
		{"abcd", 3, troubleBody},
		{"ab", 3, troubleClient},
	} {
		d := &stream3{link: &link3{}, rw: deaf{}, r: &http.Request{Body: io.NopCloser(strings.NewReader(tt.body))}}
		s := &sink{}
		w := &work{set: &settings{gate: newGate(Limits{})}}
		if got := d.pump(&pump{work: w, left: tt.left, up: s, since: time.Now()}); got != tt.want {
			t.Errorf("%q of %d: got %v, want %v", tt.body, tt.left, got, tt.want)
		}
		if int64(s.bytes) > tt.left {
			t.Errorf("%q of %d: %d bytes were passed on", tt.body, tt.left, s.bytes)
		}
		d.buf.Free()
	}
}

// A deaf is a http.ResponseWriter that only takes deadlines.
type deaf struct{ http.ResponseWriter }

func (deaf) SetReadDeadline(time.Time) error  { return nil }
func (deaf) SetWriteDeadline(time.Time) error { return nil }
func (deaf) FlushError() error                { return nil }

// TestRelaxLetsGo: what a request has become is not aborted by the request's deadline, even if its timer has fired already.
func TestRelaxLetsGo(t *testing.T) {
	w := &work{set: &settings{times: Times{Request: time.Hour}}, since: time.Now(), down: &stream3{}}
	w.within(t.Context())
	d, s := w.deadline, &sink{}
	w.deadline.up = s
	w.relax()
	d.expire()
	if s.aborts > 0 {
		t.Error("aborted")
	}
}

// leftAsFlood wants a connection to end because its client made work for nothing, and that to be counted once.
func leftAsFlood(t *testing.T, name string, f *fixture, before uint64, c *quic.Conn) {
	t.Helper()
	select {
	case <-c.Context().Done():
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: the connection goes on", name)
	}
	var end *quic.ApplicationError
	if err := context.Cause(c.Context()); !errors.As(err, &end) || end.ErrorCode != quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad) {
		t.Errorf("%s: it ended with %v", name, err)
	}
	if got := f.Stats().Floods3 - before; got != 1 {
		t.Errorf("%s: %d were counted, want 1", name, got)
	}
}

// TestFloods3: a client whose requests come to nothing, as fast as it can, is left; one that breaks off some now and then is not.
func TestFloods3(t *testing.T) {
	ca := certtest.New(t)
	came, left := make(chan struct{}, 1), make(chan struct{}, 1)
	f := start(t, Options{Listeners: listener3(ca)}, webBackend(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			came <- struct{}{}
			<-r.Context().Done()
			left <- struct{}{}
		}
	}))
	get := func(path string) []string {
		return []string{":method", "GET", ":scheme", "https", ":path", path, ":authority", "a.test"}
	}
	for name, flood := range map[string]struct {
		fields []string
		broken bool // off by the client
	}{"rapid reset": {get("/held"), true}, "bad requests": {append(get("/"), "x", " a"), false}} {
		t.Run(name, func(t *testing.T) {
			before := f.Stats().Floods3
			c, err := dial3(t, ca, f.Addrs3()[0].String())
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := exchange3(t, c, get("/"), func() {}); got != "200" {
				t.Fatalf("got %s", got)
			}
			for range spareResets3 + 1 {
				s, err := c.OpenStreamSync(t.Context())
				if err != nil {
					break
				}
				s.SetDeadline(time.Now().Add(10 * time.Second))
				s.Write(headers3(flood.fields))
				s.Close()
				if flood.broken {
					<-came
					s.CancelRead(0x10c)
					<-left
				} else if _, err := io.Copy(io.Discard, s); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
			}
			leftAsFlood(t, name, f, before, c)
		})
	}
}

// TestTally3: what ends in order makes up for what does not, and so does time.
func TestTally3(t *testing.T) {
	var tally tally3
	now := time.Unix(1e9, 0)
	for range 10 * spareResets3 {
		if tally.add(true, now) || tally.add(false, now) {
			t.Fatal("every second one is too many")
		}
	}
	for range 10 * spareResets3 {
		if now = now.Add(calm3 / 50); tally.add(true, now) {
			t.Fatal("five a second are too many")
		}
	}
	floods := 0
	for range 10 * spareResets3 {
		if tally.add(true, now) {
			floods++
		}
	}
	if floods != 1 {
		t.Errorf("%d floods were reported, want one", floods)
	}
}
