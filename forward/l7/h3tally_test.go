package l7

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"github.com/quic-go/quic-go"
)

// TestScale3: what comes may be as much as requests are made of, twice, and a little; nothing is saved for later.
func TestScale3(t *testing.T) {
	var scale scale3
	now := time.Unix(1e9, 0)
	stats := quic.ConnectionStats{BytesReceived: 1 << 40}
	check := func(what string, over bool) {
		t.Helper()
		if got := scale.weigh(stats, now); got != over {
			t.Errorf("%s: %t, want %t", what, got, over)
		}
	}
	check("the first look", false)
	stats.BytesReceived += spareBytes3
	check("as much as is spare", false)
	stats.BytesReceived += 2000
	check("more", true)
	scale.take(1000)
	check("a body that came twice", false)
	stats.BytesReceived += spareBytes3
	check("as much again", true)
	stats.BytesSent += 4 * spareBytes3
	check("acknowledgements of what was sent", false)
	stats.BytesReceived++
	check("and one byte", true)
	now = now.Add(calm3)
	check("not yet calm", true)
	now = now.Add(time.Nanosecond)
	check("calm", false)
	scale.take(10 * spareBytes3)
	now = now.Add(calm3 + 1)
	check("long after a large body", false)
	stats.BytesReceived += spareBytes3 + 1
	check("which pays for nothing", true)
}

// TestUseless3: a client that sends what no request is made of is left, wherever it sends that.
func TestUseless3(t *testing.T) {
	ca := certtest.New(t)
	f := start(t, Options{Listeners: listener3(ca)}, webBackend(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	unknown := append([]byte{0x21, 0x44, 0}, make([]byte, 1024)...) // a frame of 1 KiB
	post := headers3([]string{":method", "POST", ":scheme", "https", ":path", "/", ":authority", "a.test"})
	request := func(c *quic.Conn) (io.Writer, error) { return c.OpenStreamSync(t.Context()) }
	side := func(c *quic.Conn) (io.Writer, error) { return c.OpenUniStream() }
	for name, tt := range map[string]struct {
		open  func(c *quic.Conn) (io.Writer, error)
		begin []byte
	}{
		"on the control stream":              {side, []byte{0, 4, 0}},
		"before a head":                      {request, nil},
		"between the parts of a body":        {request, append(post, 0, 1, 'x')},
		"a frame without end":                {side, []byte{0, 4, 0, 0x21, 0xc0, 0, 0xff, 0, 0, 0, 0, 0}},
		"a frame without end, before a head": {request, []byte{0x21, 0xc0, 0, 0xff, 0, 0, 0, 0, 0}},
	} {
		before := f.Stats().Floods3
		c, err := dial3(t, ca, f.Addrs3()[0].String())
		if err != nil {
			t.Fatal(name, err)
		}
		w, err := tt.open(c)
		if err != nil {
			t.Fatal(name, err)
		}
		w.Write(tt.begin)
		for sent := 0; sent < 40*spareBytes3 && err == nil; sent += 64 * len(unknown) {
			_, err = w.Write(bytes.Repeat(unknown, 64))
			f.fronts3.tend(time.Now())
		}
		leftAsFlood(t, name, f, before, c)
	}
}

// TestUseful3: bodies, whether they are read or not, and what is acknowledged of answers, are no flood.
func TestUseful3(t *testing.T) {
	ca := certtest.New(t)
	const large = 4 * spareBytes3
	f := start(t, Options{Listeners: []Listener{{Routes: anyRoute, TLS: secure(ca, "a.test"), HTTP3: true, Limits: Limits{Body: large}}}}, webBackend(t, func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/up":
			io.Copy(io.Discard, r.Body)
		case "/down":
			io.Copy(rw, io.LimitReader(zeros{}, large))
		}
	}))
	c, _, err := connect3(t, ca, f.fronts3.fronts[0].conn.LocalAddr())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path string, length int64) {
		t.Helper()
		defer func() { f.fronts3.tend(time.Now()) }()
		r, err := http.NewRequestWithContext(t.Context(), method, "https://a.test"+path, io.LimitReader(zeros{}, length))
		if err != nil {
			t.Fatal(err)
		}
		if r.ContentLength = length; length == 0 {
			r.Body = nil
		}
		answer, err := c.RoundTrip(r)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		defer answer.Body.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	ask("GET", "/", 0)
	ask("POST", "/up", large)
	ask("GET", "/down", 0)
	ask("POST", "/up", large+1) // which is refused
	var link *link3
	for key := range f.fronts3.fronts[0].links.Range {
		link = key.(*link3)
	}
	for _, tt := range []struct{ length, want int64 }{{0, maxHead3}, {1000, maxHead3 + 1000}, {large + 1, maxHead3 + streamWindow3/2}} {
		before := link.scale.useful.Load()
		ask("POST", "/up", tt.length)
		until(t, "it is weighed", func() bool { return link.scale.useful.Load()-before == tt.want })
	}
	if got := f.Stats().Floods3; got != 0 {
		t.Errorf("%d floods", got)
	}
}

// TestUsefulTunnel3: what comes over a WebSocket is no flood.
func TestUsefulTunnel3(t *testing.T) {
	ca := certtest.New(t)
	ends := make(chan tunnelEndSeen, 1)
	inner := websocket3Backend(t, ends)
	f := startVia(t, forward.Transport{}, Options{Listeners: listener3(ca)}, inner.Addrs()[0])
	c, _, err := connect3(t, ca, f.fronts3.fronts[0].conn.LocalAddr())
	if err != nil {
		t.Fatal(err)
	}
	f.fronts3.tend(time.Now())
	s, _ := ask3WebSocket(t, c, "websocket", "/half")
	if _, err := io.Copy(s, io.LimitReader(zeros{}, 2*spareBytes3)); err != nil {
		t.Error(err)
	}
	s.Close()
	if end := <-ends; end.n != 2*spareBytes3 || end.err != nil {
		t.Errorf("the backend got %d bytes and %v", end.n, end.err)
	}
	f.fronts3.tend(time.Now())
	if got := f.Stats().Floods3; got != 0 {
		t.Errorf("%d floods", got)
	}
}

// zeros are without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
