package l7

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

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
