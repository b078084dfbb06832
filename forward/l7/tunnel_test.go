package l7

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/forward"
	"golang.org/x/net/http2"
)

// websocketBackend accepts WebSockets over HTTP/1 and echoes what comes.
func websocketBackend(t *testing.T, greeting string) *fixture {
	t.Helper()
	return start(t, Options{}, rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		accept := websocketAccept([]byte(req.Header.Get("Sec-Websocket-Key")))
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n%s", accept, greeting)
		io.Copy(c, r)
	}))
}

// TestWebSocketUpstream2: a WebSocket to a backend that speaks HTTP/2 (RFC 8441), for a client of either. The backend is
// this engine itself, with one of HTTP/1 behind.
func TestWebSocketUpstream2(t *testing.T) {
	inner := websocketBackend(t, "hello ")
	f := startVia(t, forward.Transport{Protocol: forward.H2C}, Options{}, inner.Addrs()[0])
	t.Run("h1", func(t *testing.T) {
		c := dial(t, f.addr)
		c.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\nearly ")
		res, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 101 || res.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || res.Header.Get("Upgrade") != "websocket" {
			t.Fatalf("got %d %v", res.StatusCode, res.Header)
		}
		c.wantEcho("hello early one", "one")
		c.wantEcho("two", "two")
		c.CloseWrite()
		c.wantEnd()
	})
	t.Run("h2", func(t *testing.T) {
		w := dial2(t, f.addr)
		w.open(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/ws", ":authority", "a.test", "sec-websocket-version", "13")
		if got := w.next(); got != "200" {
			t.Fatalf("got %s", got)
		}
		w.WriteData(1, false, []byte("wor"))
		w.WriteData(1, true, []byte("ld"))
		var got []byte
		for {
			frame, err := w.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if d, ok := frame.(*http2.DataFrame); ok {
				if got = append(got, d.Data()...); d.StreamEnded() {
					break
				}
			}
		}
		if string(got) != "hello world" {
			t.Errorf("got %q", got)
		}
	})
	until(t, "no tunnel is left", func() bool { return f.registry.Snapshot()[1].InFlight == 0 })
}

// TestWebSocketNoExtended: a backend of HTTP/2 that takes no CONNECT with a protocol gets none.
func TestWebSocketNoExtended(t *testing.T) {
	backend := protocolBackend(t, forward.H2C, nil, func(http.ResponseWriter, *http.Request) { t.Error("it got a request") })
	f := startVia(t, forward.Transport{Protocol: forward.H2C}, Options{}, backend.addr)
	c := dial(t, f.addr)
	c.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if got := c.read("GET"); got.StatusCode != 501 {
		t.Errorf("got %d %q", got.StatusCode, got.body)
	}
}

// TestTunnelLog: what the access log says of an upgraded connection is of its request, not of the bytes that
// take its place while the tunnel is open: those of anybody.
func TestTunnelLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	inner := websocketBackend(t, "")
	f := start(t, Options{Listeners: []Listener{{Routes: anyRoute, AccessLog: &AccessLog{File: file}}}}, inner.Addrs()[0])
	const tunnels = 20
	for i := range tunnels {
		c := dial(t, f.addr)
		c.send(fmt.Sprintf("GET /tunnel/%d HTTP/1.1\r\nHost: a\r\nUser-Agent: me\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", i))
		if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != 101 {
			t.Fatal(res, err)
		}
		secret := strings.Repeat("secret ", 100)
		c.wantEcho(secret, secret)
		c.CloseWrite()
		c.wantEnd()
	}
	f.stop()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range tunnels {
		if want := fmt.Sprintf(`"method":"GET","host":"a","path":"/tunnel/%d",`, i); !strings.Contains(string(data), want) {
			t.Errorf("no line has %s", want)
		}
	}
	if n := strings.Count(string(data), `"user_agent":"me"`); n != tunnels || strings.Contains(string(data), "secret") {
		t.Errorf("%d lines name the user agent, want %d:\n%s", n, tunnels, data)
	}
}

// TestOneProof: what a backend says over HTTP/2 of a key that it made itself is no answer to the client's.
func TestOneProof(t *testing.T) {
	key := []byte("dGhlIHNhbXBsZSBub25jZQ==")
	w := &work{upgrade: []byte("websocket")}
	w.req.fields = []field{{name: []byte("sec-websocket-key"), value: key}}
	r := &response{status: 200}
	r.fields = []field{{name: []byte("sec-websocket-accept"), value: []byte("of another key")}, {name: []byte("x"), value: []byte("y")}}
	r.asUpgrade(w)
	if len(r.fields) != 2 || !r.proves(key) {
		t.Errorf("got %d fields, want x and one proof for the client's key", len(r.fields))
	}
}
