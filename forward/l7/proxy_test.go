package l7

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pharos-lb/pharos/forward"
)

func TestHeaders(t *testing.T) {
	var got *http.Request
	f := start(t, Options{}, webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.Header().Set("Connection", "X-Private")
		w.Header().Set("X-Private", "1")
		w.Header().Set("Keep-Alive", "timeout=1")
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
		w.Header().Set("X-Public", "2")
		fmt.Fprint(w, "body")
	}))
	c := dial(t, f.addr)
	c.send("GET /p?q=1 HTTP/1.1\r\nHost: Www.Example.com:80\r\nX-A: 1\r\nx-a: 2\r\n" +
		"Connection: keep-alive, X-Hop, Host, Content-Length\r\nX-Hop: secret\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nProxy: evil\r\n" +
		"TE: gzip\r\nUpgrade: websocket\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\r\n")
	res := c.read("GET")
	want := http.Header{
		"X-A":               {"1", "2"},
		"X-Forwarded-For":   {"1.2.3.4, 127.0.0.1"},
		"X-Forwarded-Proto": {"http"},
		"X-Forwarded-Host":  {"Www.Example.com:80"},
		"X-Forwarded-Port":  {fmt.Sprint(f.Addrs()[0].Port())},
	}
	if diff := cmp.Diff(want, got.Header); diff != "" {
		t.Errorf("request header (-want +got):\n%s", diff)
	}
	if got.Host != "Www.Example.com:80" || got.RequestURI != "/p?q=1" || got.Proto != "HTTP/1.1" {
		t.Errorf("got %s %s %s", got.Host, got.RequestURI, got.Proto)
	}
	res.Header.Del("Date")
	want = http.Header{
		"Set-Cookie": {"a=1", "b=2"}, "X-Public": {"2"},
		"Content-Length": {"4"}, "Content-Type": {"text/plain; charset=utf-8"},
	}
	if diff := cmp.Diff(want, res.Header); diff != "" {
		t.Errorf("response header (-want +got):\n%s", diff)
	}
}

func TestRequestForms(t *testing.T) {
	f := start(t, Options{}, webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.RequestURI, r.Host, r.Header.Get("TE"))
	}))
	tests := []struct{ name, send, want string }{
		{"absolute", "GET http://b.test:81/x?y HTTP/1.1\r\nHost: a.test\r\n", "GET /x?y b.test:81 "},
		{"absolute without a path", "GET HTTP://b.test HTTP/1.1\r\nHost: a.test\r\n", "GET / b.test "},
		{"absolute with a query only", "GET http://b.test?y HTTP/1.1\r\nHost: a.test\r\n", "GET /?y b.test "},
		{"TE trailers", "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: TE\r\nTE: gzip, trailers\r\n", "GET / a.test trailers"},
		{"two slashes", "GET //x//y HTTP/1.1\r\nHost: a.test\r\n", "GET //x//y a.test "},
		{"1.0 without Host", "GET / HTTP/1.0\r\n", "GET / " + f.addr + " "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, f.addr)
			c.send(tt.send + "\r\n")
			if got := c.read("GET").body; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestBodies has net/http on both sides check what arrives.
func TestBodies(t *testing.T) {
	f := start(t, Options{}, webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Length", strconv.FormatInt(r.ContentLength, 10))
		sum := sha256.New()
		w.Header().Set("Trailer", "X-Sum")
		if r.URL.Query().Has("length") {
			w.Header().Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
		}
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(io.MultiWriter(w, sum), r.Body)
		w.Header().Set("X-Sum", fmt.Sprintf("%x", sum.Sum(nil)))
		w.Header().Set("X-Req-Trailer", r.Trailer.Get("X-T"))
	}))
	hc := client(t)
	for _, size := range []int{0, 1, 1000, maxInline, maxInline + 1, 70_000, 10 << 20} {
		for _, mode := range []string{"length", "length, chunked answer", "chunked"} {
			t.Run(fmt.Sprintf("%d %s", size, mode), func(t *testing.T) {
				want := make([]byte, size)
				rand.Read(want)
				url := "http://" + f.addr + "/"
				if mode == "length" && size > 0 {
					url += "?length"
				}
				var body io.Reader = bytes.NewReader(want)
				length := int64(size)
				if mode == "chunked" {
					body, length = struct{ io.Reader }{body}, -1
				}
				req, _ := http.NewRequest("POST", url, body)
				if mode == "chunked" {
					req.Trailer = http.Header{"X-T": {"tail"}}
				}
				res, err := hc.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				got, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("got %d bytes, not the %d that were sent", len(got), size)
				}
				if l := res.Header.Get("X-Length"); l != strconv.FormatInt(length, 10) {
					t.Errorf("the backend saw length %s, want %d", l, length)
				}
				if sum := res.Trailer.Get("X-Sum"); res.ContentLength < 0 && sum != fmt.Sprintf("%x", sha256.Sum256(want)) {
					t.Errorf("trailer: got %q", sum)
				}
			})
		}
	}
}

func TestBodilessAnswers(t *testing.T) {
	f := start(t, Options{}, webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.Header().Set("ETag", `"x"`)
			w.WriteHeader(304)
		case "/chunked":
			w.(http.Flusher).Flush()
			fmt.Fprint(w, "body")
		default:
			w.Header().Set("Content-Length", "4")
			fmt.Fprint(w, "body")
		}
	}))
	c := dial(t, f.addr) // all on one connection: a framing error breaks the next
	tests := []struct {
		method, path string
		status       int
		length       int64
		body         string
	}{
		{"HEAD", "/", 200, 4, ""},
		{"GET", "/", 200, 4, "body"},
		{"HEAD", "/chunked", 200, -1, ""},
		{"GET", "/chunked", 200, -1, "body"},
		{"GET", "/204", 204, 0, ""},
		{"GET", "/304", 304, 0, ""},
		{"HEAD", "/304", 304, 0, ""},
		{"GET", "/", 200, 4, "body"},
	}
	for _, tt := range tests {
		c.send(tt.method + " " + tt.path + " HTTP/1.1\r\nHost: a\r\n\r\n")
		got := c.read(tt.method)
		if got.StatusCode != tt.status || got.body != tt.body || got.StatusCode == 200 && got.ContentLength != tt.length {
			t.Errorf("%s %s: got %d, length %d, %q", tt.method, tt.path, got.StatusCode, got.ContentLength, got.body)
		}
	}
	if s := f.registry.Snapshot(); s[1].Connects != 1 {
		t.Errorf("%d upstream connections, want 1", s[1].Connects)
	}
}

func TestOldClients(t *testing.T) {
	f := start(t, Options{}, webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/chunked" {
			w.(http.Flusher).Flush()
		}
		fmt.Fprint(w, "body")
	}))
	t.Run("chunked becomes plain", func(t *testing.T) {
		c := dial(t, f.addr)
		c.send("GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
		got := c.read("GET")
		if len(got.TransferEncoding) != 0 || got.body != "body" || !got.Close {
			t.Errorf("got %v %q %v", got.TransferEncoding, got.body, got.Header)
		}
	})
	t.Run("kept if asked", func(t *testing.T) {
		c := dial(t, f.addr)
		for range 2 {
			c.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
			if got := c.read("GET"); got.body != "body" || got.Header.Get("Connection") != "keep-alive" {
				t.Errorf("got %q %v", got.body, got.Header)
			}
		}
	})
	t.Run("closed otherwise", func(t *testing.T) {
		c := dial(t, f.addr)
		c.send("GET / HTTP/1.0\r\n\r\n")
		c.read("GET")
		c.wantEnd()
	})
}

func TestOldBackends(t *testing.T) {
	f := start(t, Options{}, says(t, "HTTP/1.0 200 OK\r\nX: y\r\n\r\nuntil the end!"))
	c := dial(t, f.addr)
	for range 2 { // the client's connection goes on although the backend's does not
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := c.read("GET"); got.body != "until the end" || got.Close {
			t.Errorf("got %q, close %v", got.body, got.Close)
		}
	}
	c = dial(t, f.addr)
	c.send("GET / HTTP/1.0\r\n\r\n")
	if got := c.read("GET"); got.body != "until the end" || len(got.TransferEncoding) > 0 {
		t.Errorf("1.0: got %q", got.body)
	}
}

func TestContinue(t *testing.T) {
	f := start(t, Options{}, webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(403)
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	}))
	t.Run("asked for", func(t *testing.T) {
		c := dial(t, f.addr)
		c.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		if got := c.read("POST"); got.StatusCode != 100 {
			t.Fatalf("got %d, want 100", got.StatusCode)
		}
		c.send("hello")
		if got := c.read("POST"); got.StatusCode != 200 || got.body != "hello" {
			t.Errorf("got %d %q", got.StatusCode, got.body)
		}
	})
	t.Run("refused", func(t *testing.T) {
		c := dial(t, f.addr)
		c.send("POST /no HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		got := c.read("POST")
		if got.StatusCode != 403 || !got.Close {
			t.Errorf("got %d, close %v; where the next request starts is not known", got.StatusCode, got.Close)
		}
	})
	t.Run("other interim answers", func(t *testing.T) {
		f := start(t, Options{}, says(t, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
		req, _ := http.NewRequest("GET", "http://"+f.addr, nil)
		var hints []int
		req = req.WithContext(httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { hints = append(hints, code); return nil },
		}))
		res, err := client(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 || len(hints) != 1 || hints[0] != 103 {
			t.Errorf("got %d after %v, want 200 after 103; 100 was not asked for", res.StatusCode, hints)
		}
		old := dial(t, f.addr)
		old.send("GET / HTTP/1.0\r\n\r\n")
		if got := old.read("GET"); got.StatusCode != 200 {
			t.Errorf("a 1.0 client got %d", got.StatusCode)
		}
	})
}

func TestEarlyAnswer(t *testing.T) {
	f := start(t, Options{}, rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
		c.CloseWrite()
		io.Copy(io.Discard, r)
	}))
	for _, head := range []string{"Content-Length: 100000000", "Transfer-Encoding: chunked"} {
		c := dial(t, f.addr)
		c.send("POST / HTTP/1.1\r\nHost: a\r\n" + head + "\r\n\r\n5\r\nhello\r\n")
		got := c.read("POST")
		if got.StatusCode != 413 || got.body != "big" || !got.Close {
			t.Errorf("%s: got %d %q, close %v", head, got.StatusCode, got.body, got.Close)
		}
	}
}

func TestPipelining(t *testing.T) {
	f := start(t, Options{}, webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/0" {
			time.Sleep(50 * time.Millisecond) // the first is the slowest
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.URL.Path, body)
	}))
	c := dial(t, f.addr)
	var all strings.Builder
	const n = 300
	for i := range n {
		switch i % 3 {
		case 0:
			fmt.Fprintf(&all, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
		case 1:
			fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", i)
		case 2:
			fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", i)
		}
	}
	go io.WriteString(c, all.String())
	for i := range n {
		want := fmt.Sprintf("/%d ", i)
		if i%3 > 0 {
			want += "abc"
		}
		if got := c.read("GET"); got.body != want {
			t.Fatalf("answer %d: got %q, want %q", i, got.body, want)
		}
	}
}

// upgrader answers every upgrade to "echo" and echoes.
func upgrader(c *net.TCPConn, r *bufio.Reader) {
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	if req.Header.Get("Upgrade") != "echo" {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nplain")
		return
	}
	io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: Echo\r\nX-A: b\r\n\r\nwelcome")
	io.Copy(c, r)
}

func upgrade(t *testing.T, addr string) *wire {
	t.Helper()
	c := dial(t, addr)
	c.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly")
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 101 || res.Header.Get("Upgrade") != "Echo" || res.Header.Get("X-A") != "b" {
		t.Fatalf("got %d %v", res.StatusCode, res.Header)
	}
	c.wantEcho("welcomeearly", "")
	return c
}

func (w *wire) wantEcho(want, send string) {
	w.t.Helper()
	w.send(send)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(w.r, got); err != nil || string(got) != want {
		w.t.Fatalf("got %q and %v, want %q", got, err, want)
	}
}

func TestUpgrade(t *testing.T) {
	f := start(t, Options{}, rawBackend(t, upgrader))
	c := upgrade(t, f.addr)
	c.wantEcho("ping", "ping")
	c.CloseWrite()
	c.wantEnd()
	until(t, "released", func() bool { return f.registry.Snapshot()[1].InFlight == 0 })

	for _, refused := range []string{"h2c", "HTTP/3", "TLS/1.2", "echo, other"} {
		c := dial(t, f.addr)
		c.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: " + refused + "\r\n\r\n")
		if got := c.read("GET"); got.StatusCode != 200 {
			t.Errorf("%s: got %d, want the upgrade not to be passed on", refused, got.StatusCode)
		}
	}
}

func TestReuseIsCounted(t *testing.T) {
	f := start(t, Options{}, webBackend(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok") }))
	hc := client(t)
	const n = 50
	for range n {
		res, err := hc.Get("http://" + f.addr)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	until(t, "all released", func() bool { return f.registry.Snapshot()[1].InFlight == 0 })
	s := f.registry.Snapshot()[1]
	if s.Connects != 1 || s.Reuses != n-1 || s.Leases != n || s.Idle != 1 || s.Outcomes[forward.OutcomeServed] != n {
		t.Errorf("got %+v", s)
	}
	if st := f.Stats(); st.Accepted != 1 || st.Answered[2] != n {
		t.Errorf("got %+v", st.FrontStats)
	}
}

// TestStaleConnection has the backend close a connection at the moment at which
// the next request arrives on it.
func TestStaleConnection(t *testing.T) {
	var conns atomic.Int32
	addr := rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		once := conns.Add(1) == 1
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			if once && req.URL.Path == "/second" {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	tests := []struct {
		name, second string
		want         int
	}{
		{"GET", "GET /second HTTP/1.1\r\nHost: a\r\n\r\n", 200},
		{"PUT at hand", "PUT /second HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 200},
		{"POST", "POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 502},
		{"PUT not at hand", "PUT /second HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 502},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conns.Store(0)
			f := start(t, Options{}, addr)
			c := dial(t, f.addr)
			c.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n")
			c.read("GET")
			c.send(tt.second)
			if got := c.read("GET"); got.StatusCode != tt.want {
				t.Errorf("got %d %q, want %d", got.StatusCode, got.body, tt.want)
			}
			if got, want := f.Stats().Retries, uint64(0); tt.want == 200 && got != 1 || tt.want != 200 && got != want {
				t.Errorf("%d retries", got)
			}
		})
	}
}

func TestUnavailable(t *testing.T) {
	routes := []Route{{Host: "down.test", Service: "down"}, {Host: "none.test", Service: "none"}, {Host: "web.test", Service: "web"}}
	f := start(t, Options{Listeners: []Listener{{Routes: routes}}}, nobody(t))
	c := dial(t, f.addr)
	tests := []struct {
		host   string
		status int
		body   string
	}{
		{"down.test", 503, "no healthy backend for service \"down\"\n"},
		{"none.test", 503, "no backends for service \"none\" at this site\n"},
		{"web.test", 502, "no backend of service \"web\" could be connected to\n"},
		{"other.test", 404, "no route for this request\n"},
	}
	for _, tt := range tests {
		c.send("GET / HTTP/1.1\r\nHost: " + tt.host + "\r\n\r\n")
		got := c.read("GET")
		if got.StatusCode != tt.status || got.body != tt.body || got.Close {
			t.Errorf("%s: got %d %q, close %v", tt.host, got.StatusCode, got.body, got.Close)
		}
		c.send("HEAD / HTTP/1.1\r\nHost: " + tt.host + "\r\n\r\n")
		if got := c.read("HEAD"); got.StatusCode != tt.status {
			t.Errorf("HEAD %s: got %d", tt.host, got.StatusCode)
		}
	}
}

func TestRefusingBackendIsReplaced(t *testing.T) {
	f := start(t, Options{}, nobody(t), webBackend(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok") }), nobody(t))
	c := dial(t, f.addr)
	for range 20 {
		c.send("POST / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc")
		if got := c.read("POST"); got.StatusCode != 200 {
			t.Fatalf("got %d %q", got.StatusCode, got.body)
		}
	}
}
