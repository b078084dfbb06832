package l7

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"golang.org/x/net/http2"
)

// TestHeads2: the head of a request of HTTP/2, and the preface, have to be there in time; a body, and a connection, may take longer.
func TestHeads2(t *testing.T) {
	const short = 300 * time.Millisecond
	f := start(t, Options{Listeners: []Listener{{Routes: anyRoute, Times: Times{Header: short}}}},
		webBackend(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	slow := dial2(t, f.addr)
	slow.open(1, false, append([]string{":method", "POST"}, get2[2:]...)...)
	for i, tt := range []struct{ name, send string }{
		{"half a preface", http2.ClientPreface[:20]},
		{"a frame that ends after its head", http2.ClientPreface + settings + "\x00\x00\x20\x01\x05\x00\x00\x00\x01"},
		{"half a HEADERS frame", http2.ClientPreface + settings + "\x00\x00\x20\x01\x05\x00\x00\x00\x01\x82\x86"},
		{"no CONTINUATION", http2.ClientPreface + settings + "\x00\x00\x02\x01\x01\x00\x00\x00\x01\x82\x86"},
		{"half a CONTINUATION", http2.ClientPreface + settings + "\x00\x00\x02\x01\x01\x00\x00\x00\x01\x82\x86" + "\x00\x00\x09\x09\x04\x00\x00\x00\x01\x84"},
	} {
		c := dial(t, f.addr)
		c.send(tt.send)
		all, err := io.ReadAll(c.r)
		if !strings.HasSuffix(string(all), "\x00\x00\x00\x0b") || err != nil { // ENHANCE_YOUR_CALM
			t.Errorf("%s: it ends with %q, %v", tt.name, all, err)
		}
		until(t, tt.name+" is counted", func() bool { return f.Stats().Refusals["header_time"] == uint64(i+1) })
	}
	if n := f.Stats().Floods2; n != 0 {
		t.Errorf("%d floods", n)
	}
	slow.WriteData(1, true, []byte("body"))
	if got := slow.next(); got != "200" {
		t.Errorf("a slow body: got %s", got)
	}
	if got := fmt.Sprint(f.Stats().HTTP2); got != "6" {
		t.Errorf("%s connections of HTTP/2, want 6", got)
	}
}

// TestLargeHeadsAlone: a head that is too large costs nobody else on its connection anything, whoever has sent it, and is counted.
func TestLargeHeadsAlone(t *testing.T) {
	large := strings.Repeat("y", 40<<10)
	var waiting atomic.Uint32
	f := startVia(t, forward.Transport{Protocol: forward.H2C}, Options{ResponseTimeout: 20 * time.Second},
		framedBackend(t, func(b *framed, id uint32, path string) {
			switch path {
			case "/waits":
				waiting.Store(id)
				return
			case "/large":
				b.open(id, true, ":status", "200", "x", large)
				return
			}
			b.open(id, true, ":status", "204")
			b.open(waiting.Load(), true, ":status", "200")
		}))
	c := dial2(t, f.addr)
	to := func(path string, more ...string) []string {
		return append([]string{":method", "GET", ":scheme", "http", ":path", path, ":authority", "a.test"}, more...)
	}
	c.open(1, true, to("/waits")...)
	until(t, "a request waits", func() bool { return waiting.Load() != 0 })
	c.open(3, true, to("/", "x", large)...)
	if got := c.next(); got != "431" {
		t.Errorf("a large head got %s", got)
	}
	c.open(5, true, to("/large")...)
	if got := c.next(); got != "502" {
		t.Errorf("a large head of a backend made %s", got)
	}
	c.open(7, true, to("/end")...)
	if got := []string{c.next(), c.next()}; !slices.Contains(got, "200") || !slices.Contains(got, "204") {
		t.Errorf("the request that waited, and the next one, got %s", got)
	}
	if n := f.Stats().Refusals["header"]; n != 1 {
		t.Errorf("%d were counted", n)
	}
	if got := f.registry.Snapshot()[1].Outcomes; got[forward.OutcomeProtocol] != 1 || got[forward.OutcomeReset] != 0 {
		t.Errorf("outcomes are %v", got)
	}
}

// TestLargestHeads: what breaks a limit that no listener has set is counted like what breaks one of its own.
func TestLargestHeads(t *testing.T) {
	f := start(t, Options{}, echoHead(t))
	count := func() uint64 { s := f.Stats().Refusals; return s["uri"]<<32 + s["header"] }
	const uri, header = uint64(1) << 32, uint64(1)
	var before uint64
	for _, tt := range []struct {
		name, head string
		status     int
		counted    uint64
	}{
		{"target", "GET /" + strings.Repeat("x", 9000) + " HTTP/1.1\nHost: a", 414, uri},
		{"request line", "GET /" + strings.Repeat("x", 17_000) + " HTTP/1.1\nHost: a", 414, uri},
		{"fields", "GET / HTTP/1.1\nHost: a" + strings.Repeat("\nA: 1", 130), 431, header},
		{"bytes", "GET / HTTP/1.1\nHost: a\nA: " + strings.Repeat("x", 17_000), 431, header},
	} {
		if got := f.ask(t, tt.head).StatusCode; got != tt.status || count() != before+tt.counted {
			t.Errorf("%s: got %d, want %d; counted %#x", tt.name, got, tt.status, count()-before)
		}
		before = count()
	}
	c := dial2(t, f.addr)
	for i, tt := range []struct {
		name, path string
		more       int
		status     string
		counted    uint64
	}{
		{"target", "/" + strings.Repeat("x", 9000), 0, "414", uri},
		{"fields", "/", 130, "431", header},
	} {
		fields := []string{":method", "GET", ":scheme", "http", ":path", tt.path, ":authority", "a.test"}
		for range tt.more {
			fields = append(fields, "a", "b")
		}
		c.open(uint32(2*i+1), true, fields...)
		if got := c.next(); got != tt.status || count() != before+tt.counted {
			t.Errorf("%s over HTTP/2: got %s, want %s; counted %#x", tt.name, got, tt.status, count()-before)
		}
		before = count()
	}
}
