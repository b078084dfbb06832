package l7

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// framedBackend speaks HTTP/2 in frames: answer is called with the framed connection, the stream and the
// path of each request, and with whatever comes of its body.
func framedBackend(t testing.TB, answer func(b *framed, id uint32, path string)) netip.AddrPort {
	t.Helper()
	return rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		if _, err := io.CopyN(io.Discard, r, int64(len(http2.ClientPreface))); err != nil {
			return
		}
		b := &framed{t: t, Conn: c, Framer: http2.NewFramer(c, r)}
		b.AllowIllegalWrites = true
		b.enc = hpack.NewEncoder(&b.block)
		b.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		b.WriteSettings()
		for {
			f, err := b.ReadFrame()
			if err != nil {
				return
			}
			if h, ok := f.(*http2.MetaHeadersFrame); ok && h.PseudoValue("method") != "" {
				answer(b, h.StreamID, h.PseudoValue("path"))
			}
		}
	})
}

// TestLyingBackends2: whatever a backend says over HTTP/2, the client gets a well-formed answer or sees that it is not
// the whole, and other requests go on.
func TestLyingBackends2(t *testing.T) {
	head := func(fields ...string) func(*framed, uint32) {
		return func(b *framed, id uint32) { b.open(id, true, fields...) }
	}
	body := func(end bool, data string, fields ...string) func(*framed, uint32) {
		return func(b *framed, id uint32) {
			b.open(id, false, fields...)
			b.WriteData(id, end, []byte(data))
		}
	}
	const cut = -1 // the end comes inside the answer
	for _, tt := range []struct {
		name string
		lie  func(b *framed, id uint32)
		want int
		body string
		fact forward.Outcome
	}{
		{"reset", func(b *framed, id uint32) { b.WriteRSTStream(id, http2.ErrCodeInternal) }, 502, "", forward.OutcomeReset},
		{"closes", func(b *framed, _ uint32) { b.Conn.Close() }, 502, "", forward.OutcomeReset},
		{"garbage", func(b *framed, _ uint32) { b.Conn.Write([]byte("HTTP/1.1 200 OK\r\n\r\n")) }, 502, "", forward.OutcomeReset},
		{"goes away", func(b *framed, id uint32) { b.WriteGoAway(id, http2.ErrCodeInternal, nil); b.Conn.Close() }, 502, "", forward.OutcomeReset},
		{"data before the head", func(b *framed, id uint32) { b.WriteData(id, true, []byte("abc")) }, 502, "", forward.OutcomeProtocol},
		{"no status", head("x", "y"), 502, "", forward.OutcomeProtocol},
		{"status of two digits", head(":status", "20"), 502, "", forward.OutcomeProtocol},
		{"status of letters", head(":status", "abc"), 502, "", forward.OutcomeProtocol},
		{"status 99", head(":status", "099"), 502, "", forward.OutcomeProtocol},
		{"status 600", head(":status", "600"), 502, "", forward.OutcomeProtocol},
		{"status twice", head(":status", "200", ":status", "200"), 502, "", forward.OutcomeProtocol},
		{"status behind a field", head("x", "y", ":status", "200"), 502, "", forward.OutcomeProtocol},
		{"a request", head(":method", "GET", ":path", "/"), 502, "", forward.OutcomeProtocol},
		{"101", head(":status", "101"), 502, "", forward.OutcomeProtocol},
		{"interim and the end", head(":status", "103"), 502, "", forward.OutcomeProtocol},
		{"connection", head(":status", "200", "connection", "close"), 502, "", forward.OutcomeProtocol},
		{"transfer-encoding", head(":status", "200", "transfer-encoding", "chunked"), 502, "", forward.OutcomeProtocol},
		{"upgrade", head(":status", "200", "upgrade", "x"), 502, "", forward.OutcomeProtocol},
		{"upper case", head(":status", "200", "X", "y"), 502, "", forward.OutcomeProtocol},
		{"space in a name", head(":status", "200", "x y", "z"), 502, "", forward.OutcomeProtocol},
		{"CRLF in a value", head(":status", "200", "x", "a\r\nset-cookie: b"), 502, "", forward.OutcomeProtocol},
		{"NUL in a value", head(":status", "200", "x", "a\x00b"), 502, "", forward.OutcomeProtocol},
		{"space before a value", head(":status", "200", "x", " a"), 502, "", forward.OutcomeProtocol},
		{"length twice", head(":status", "200", "content-length", "0", "content-length", "0"), 502, "", forward.OutcomeProtocol},
		{"length odd", head(":status", "200", "content-length", "+0"), 502, "", forward.OutcomeProtocol},
		{"length and no body", head(":status", "200", "content-length", "5"), 502, "", forward.OutcomeProtocol},
		{"too many fields", head(append([]string{":status", "200"}, strings.Split(strings.Repeat("x,y,", 200)+"x,y", ",")...)...), 502, "", forward.OutcomeProtocol},
		{"too large a head", head(append([]string{":status", "200"}, strings.Split(strings.Repeat("x,"+strings.Repeat("0", 4<<10)+",", 5)+"x,y", ",")...)...), 502, "", forward.OutcomeProtocol},
		{"a head of many frames", head(":status", "200", "x", strings.Repeat("y", 60<<10)), 502, "", forward.OutcomeProtocol},
		{"a head beyond measure", head(":status", "200", "x", strings.Repeat("y", 100<<10)), 502, "", forward.OutcomeReset},
		{"1xx storm", func(b *framed, id uint32) {
			for range 1000 {
				b.open(id, false, ":status", "103", "link", "</x>")
			}
		}, 502, "", forward.OutcomeProtocol},

		{"short body", body(true, "abc", ":status", "200", "content-length", "10"), cut, "", forward.OutcomeProtocol},
		{"long body", body(true, "abcdef", ":status", "200", "content-length", "3"), cut, "", forward.OutcomeProtocol},
		{"reset in the body", func(b *framed, id uint32) {
			b.open(id, false, ":status", "200")
			b.WriteData(id, false, []byte("abc"))
			b.WriteRSTStream(id, http2.ErrCodeCancel)
		}, cut, "", forward.OutcomeReset},
		{"closes in the body", func(b *framed, id uint32) {
			b.open(id, false, ":status", "200")
			b.WriteData(id, false, []byte("abc"))
			b.Conn.Close()
		}, cut, "", forward.OutcomeReset},
		{"status in the trailers", func(b *framed, id uint32) {
			b.open(id, false, ":status", "200")
			b.open(id, true, ":status", "500")
		}, cut, "", forward.OutcomeProtocol},
		{"trailers without the end", func(b *framed, id uint32) {
			b.open(id, false, ":status", "200")
			b.open(id, false, "x", "y")
		}, cut, "", forward.OutcomeProtocol},

		{"whole, then reset", func(b *framed, id uint32) {
			b.open(id, false, ":status", "200")
			b.WriteData(id, true, []byte("abc"))
			b.WriteRSTStream(id, http2.ErrCodeNo)
		}, 200, "abc", forward.OutcomeServed},
		{"body behind 204", body(true, "abc", ":status", "204"), 204, "", forward.OutcomeServed},
		{"trailer that frames", func(b *framed, id uint32) {
			b.open(id, false, ":status", "200")
			b.open(id, true, "content-length", "5", "x", "y")
		}, 200, "", forward.OutcomeServed},
		{"padding", func(b *framed, id uint32) {
			b.open(id, false, ":status", "200")
			b.WriteDataPadded(id, true, []byte("abc"), make([]byte, 200))
		}, 200, "abc", forward.OutcomeServed},
		{"empty frames", func(b *framed, id uint32) {
			b.open(id, false, ":status", "200")
			for range 100 {
				b.WriteData(id, false, nil)
			}
			b.WriteData(id, true, []byte("abc"))
		}, 200, "abc", forward.OutcomeServed},
		{"an error is an answer", body(true, "busy", ":status", "503"), 503, "busy", forward.OutcomeError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := startVia(t, forward.Transport{Protocol: forward.H2C}, Options{ResponseTimeout: 5 * time.Second},
				framedBackend(t, func(b *framed, id uint32, path string) {
					if path == "/lie" {
						tt.lie(b, id)
						return
					}
					b.open(id, false, ":status", "200", "content-length", "2")
					b.WriteData(id, true, []byte("ok"))
				}))
			c := dial(t, f.addr)
			for range 3 { // the same client connection, as long as it lasts
				c.send("GET /lie HTTP/1.1\r\nHost: a\r\n\r\n")
				res, err := http.ReadResponse(c.r, nil)
				for err == nil && res.StatusCode == 103 {
					res, err = http.ReadResponse(c.r, nil)
				}
				if err != nil {
					if tt.want == cut {
						break
					}
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				if tt.want == cut {
					if err == nil && res.StatusCode != 502 {
						t.Fatalf("got the whole answer %d %q, want it cut", res.StatusCode, body)
					}
					break
				}
				if err != nil || res.StatusCode != tt.want || tt.want != 502 && string(body) != tt.body {
					t.Fatalf("got %d %q %v, want %d %q", res.StatusCode, body, err, tt.want, tt.body)
				}
			}
			until(t, "outcome", func() bool { return f.registry.Snapshot()[1].Outcomes[tt.fact] > 0 })
			c = dial(t, f.addr)
			for range 3 {
				c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				if got := c.read("GET"); got.StatusCode != 200 || got.body != "ok" {
					t.Fatalf("then got %d %q", got.StatusCode, got.body)
				}
			}
		})
	}
}

// TestMoreThanTheWindow: a backend that sends what nobody asked for is cut off, however slowly its client reads.
func TestMoreThanTheWindow(t *testing.T) {
	f := startVia(t, forward.Transport{Protocol: forward.H2C}, Options{ResponseTimeout: 5 * time.Second},
		framedBackend(t, func(b *framed, id uint32, _ string) {
			b.open(id, false, ":status", "200")
			for b.WriteData(id, false, make([]byte, 16<<10)) == nil { // until it is cut off
			}
		}))
	c := dial(t, f.addr)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n") // and reads nothing: what it took would open the window again
	until(t, "outcome", func() bool { return f.registry.Snapshot()[1].Outcomes[forward.OutcomeProtocol] > 0 })
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Fatal("the answer looks whole")
	}
}

// TestSafeRepeats: what a backend says that it did not do is done once more, whatever it is; what it may have done is not.
func TestSafeRepeats(t *testing.T) {
	for _, tt := range []struct {
		name, method, body string
		lie                func(b *framed, id uint32)
		want               int
		times              int
	}{
		{"refused", "POST", "abc", func(b *framed, id uint32) { b.WriteRSTStream(id, http2.ErrCodeRefusedStream) }, 200, 2},
		{"goes away before it", "POST", "abc", func(b *framed, id uint32) { b.WriteGoAway(id-2, http2.ErrCodeNo, nil) }, 200, 2},
		{"goes away after it, and closes", "POST", "abc", func(b *framed, id uint32) { b.WriteGoAway(id, http2.ErrCodeNo, nil); b.Conn.Close() }, 502, 1},
		{"closes", "POST", "abc", func(b *framed, _ uint32) { b.Conn.Close() }, 502, 1},
		{"closes on what can be done twice", "PUT", "abc", func(b *framed, _ uint32) { b.Conn.Close() }, 200, 2},
		{"reset", "GET", "", func(b *framed, id uint32) { b.WriteRSTStream(id, http2.ErrCodeInternal) }, 502, 1},
		{"hints and closes", "GET", "", func(b *framed, id uint32) { b.open(id, false, ":status", "103", "x", "y"); b.Conn.Close() }, 502, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var mu sync.Mutex
			times := 0
			f := startVia(t, forward.Transport{Protocol: forward.H2C}, Options{}, framedBackend(t, func(b *framed, id uint32, path string) {
				mu.Lock()
				defer mu.Unlock()
				if path == "/once" {
					if times++; times == 1 {
						tt.lie(b, id)
						return
					}
				}
				b.open(id, true, ":status", "200")
			}))
			c := dial(t, f.addr)
			c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n") // there is a connection then
			c.read("GET")
			c.send(fmt.Sprintf("%s /once HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", tt.method, len(tt.body), tt.body))
			got := c.read(tt.method)
			for got.StatusCode == 103 {
				got = c.read(tt.method)
			}
			if got.StatusCode != tt.want {
				t.Errorf("got %d %q, want %d", got.StatusCode, got.body, tt.want)
			}
			mu.Lock()
			defer mu.Unlock()
			if times != tt.times {
				t.Errorf("the backend got it %d times, want %d", times, tt.times)
			}
		})
	}
}

// TestSilentPeer: a connection that carries requests and gives no sign of life is given up, for all of them.
func TestSilentPeer(t *testing.T) {
	held := make(chan struct{})
	f := startVia(t, forward.Transport{Protocol: forward.H2C}, Options{ResponseTimeout: time.Minute, peerSilence: 100 * time.Millisecond},
		rawBackend(t, func(c *net.TCPConn, _ *bufio.Reader) { <-held }))
	defer close(held)
	began := time.Now()
	res, err := client(t).Get("http://" + f.addr + "/")
	if got := slurp(t, res, err); res.StatusCode != 502 {
		t.Errorf("got %d %q", res.StatusCode, got)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}
