package l7

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// client2 speaks HTTP/2 by prior knowledge.
func client2(t testing.TB) *http.Client {
	t.Helper()
	tr := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

func slurp(t testing.TB, res *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestHTTP2 asks the same of TLS with h2 and of h2c, many at a time.
func TestHTTP2(t *testing.T) {
	ca := certtest.New(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	backend := webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/big":
			w.Header().Set("Content-Length", fmt.Sprint(len(big)))
			w.Write(big)
		case "/stream": // of unknown length
			for i := 0; i < len(big); i += 1000 {
				w.Write(big[i:min(i+1000, len(big))])
			}
		case "/echo":
			b, _ := io.ReadAll(r.Body)
			w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
			w.Header().Set("Trailer", "X-Sum")
			w.Write(b)
			w.Header().Set("X-Sum", r.Trailer.Get("X-Sum"))
		case "/early":
			w.Header().Set("Link", "</style.css>")
			w.WriteHeader(103)
			w.Header().Del("Link")
			fmt.Fprint(w, "late")
		case "/empty":
			w.WriteHeader(204)
		default:
			w.Header().Set("X-Proto", r.Header.Get("X-Forwarded-Proto"))
			fmt.Fprint(w, r.Proto, " ", r.Host, " ", strings.Join(r.Header["Cookie"], "|"), " ", r.Header.Get("Te"))
		}
	})
	f := start(t, Options{Listeners: []Listener{{Routes: anyRoute}, {Routes: anyRoute, TLS: secure(ca, "a.test")}}}, backend)
	tlsClient := client(t)
	tr := tlsClient.Transport.(*http.Transport)
	tr.TLSClientConfig, tr.ForceAttemptHTTP2 = &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test"}, true
	for name, c := range map[string]struct {
		client *http.Client
		url    string
		proto  string
	}{
		"h2c": {client2(t), "http://" + f.addr, "http"}, "h2": {tlsClient, "https://" + f.Addrs()[1].String(), "https"},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := c.client.Get(c.url + "/") // one connection for what follows
			slurp(t, res, err)
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					req, _ := http.NewRequest("GET", c.url+"/", nil)
					req.Header["Cookie"] = []string{"a=1; b=2", "c=3"}
					req.Header.Set("Te", "trailers")
					res, err := c.client.Do(req)
					if got, want := slurp(t, res, err), "HTTP/1.1 "+req.Host+" a=1; b=2; c=3 trailers"; got != want || res.ProtoMajor != 2 {
						t.Errorf("got %q over %s, want %q", got, res.Proto, want)
					}
					if got := res.Header.Get("X-Proto"); got != c.proto {
						t.Errorf("X-Forwarded-Proto is %q", got)
					}
					for _, path := range []string{"/big", "/stream"} {
						res, err := c.client.Get(c.url + path)
						if got := slurp(t, res, err); got != string(big) {
							t.Errorf("%s has %d bytes and differs", path, len(got))
						}
					}
					for _, n := range []int{0, 1, 16 << 10, 16<<10 + 1, len(big)} {
						res, err := c.client.Post(c.url+"/echo", "text/plain", bytes.NewReader(big[:n]))
						if got := slurp(t, res, err); got != string(big[:n]) || res.Header.Get("X-Length") != fmt.Sprint(n) {
							t.Errorf("echo of %d bytes gave %d, of length %s", n, len(got), res.Header.Get("X-Length"))
						}
						req, _ := http.NewRequest("POST", c.url+"/echo", io.MultiReader(bytes.NewReader(big[:n])))
						req.Trailer = http.Header{"X-Sum": {fmt.Sprint("sum", n)}}
						res, err = c.client.Do(req)
						if got := slurp(t, res, err); got != string(big[:n]) || res.Trailer.Get("X-Sum") != fmt.Sprint("sum", n) {
							t.Errorf("echo of %d bytes of unknown length gave %d with trailer %q", n, len(got), res.Trailer)
						}
					}
					res, err = c.client.Get(c.url + "/early")
					if got := slurp(t, res, err); got != "late" || res.StatusCode != 200 {
						t.Errorf("after early hints: %d %q", res.StatusCode, got)
					}
					res, err = c.client.Get(c.url + "/empty")
					if got := slurp(t, res, err); got != "" || res.StatusCode != 204 {
						t.Errorf("got %d %q", res.StatusCode, got)
					}
					res, err = c.client.Head(c.url + "/big")
					if slurp(t, res, err); res.ContentLength != int64(len(big)) {
						t.Errorf("HEAD says %d bytes", res.ContentLength)
					}
				})
			}
			wg.Wait()
		})
	}
	if n := f.Stats().HTTP2; n != 2 {
		t.Errorf("%d connections spoke HTTP/2, want 2", n)
	}
}

// A framed is an HTTP/2 connection spoken to in frames.
type framed struct {
	t testing.TB
	net.Conn
	*http2.Framer
	enc   *hpack.Encoder
	block bytes.Buffer
}

func dial2(t testing.TB, addr string, settings ...http2.Setting) *framed {
	t.Helper()
	c := dial(t, addr)
	f := &framed{t: t, Conn: c.TCPConn, Framer: http2.NewFramer(c, c)}
	f.enc = hpack.NewEncoder(&f.block)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	io.WriteString(c, http2.ClientPreface)
	f.WriteSettings(settings...)
	return f
}

// open sends a request of name, value, name, value …
func (f *framed) open(id uint32, end bool, fields ...string) {
	f.t.Helper()
	f.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	const most = 16 << 10 // of a frame
	first := f.block.Next(most)
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: f.block.Len() == 0})
	for f.block.Len() > 0 {
		part := f.block.Next(most)
		f.WriteContinuation(id, f.block.Len() == 0, part)
	}
}

var get2 = []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a.test"}

// next reads frames until one that says something about a stream or the end: it
// returns the status, "RST code", "GOAWAY code", or "closed".
func (f *framed) next() string {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return "RST " + frame.ErrCode.String()
		case *http2.GoAwayFrame:
			return "GOAWAY " + frame.ErrCode.String()
		}
	}
}

// TestDowngrade: what HTTP/2 can carry and HTTP/1 would read as something else never
// reaches a backend.
func TestDowngrade(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	backend := rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			b, _ := io.ReadAll(req.Body)
			mu.Lock()
			seen = append(seen, req.Method+" "+req.RequestURI+" "+string(b))
			mu.Unlock()
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	f := start(t, Options{}, backend)
	with := func(fields ...string) []string { return append(append([]string(nil), get2...), fields...) }
	change := func(name, value string) []string {
		out := append([]string(nil), get2...)
		for i := 0; i < len(out); i += 2 {
			if out[i] == name {
				out[i+1] = value
			}
		}
		return out
	}
	const bad = "RST PROTOCOL_ERROR"
	sized := func(length, body string) []string { // the body is no field, and goes behind
		return append(change(":method", "POST"), "content-length", length, "", body)
	}
	for name, c := range map[string]struct {
		fields []string
		want   string
	}{
		"plain":                               {get2, "200"},
		"body":                                {sized("3", "abc"), "200"},
		"body longer than its length":         {sized("3", "abcGET /evil"), bad},
		"body shorter than its length":        {sized("30", "abc"), bad},
		"transfer-encoding and length":        {with("transfer-encoding", "chunked", "content-length", "0"), bad},
		"transfer-encoding identity":          {with("transfer-encoding", "identity"), bad},
		"CR in a value":                       {with("x", "a\rb"), bad},
		"NUL in a name":                       {with("x\x00y", "a"), bad},
		"bad UTF-8 in a name":                 {with("x\xff", "a"), bad},
		"bad UTF-8 in a value":                {with("x", "\xff\xfe"), "200"},
		"LF in the path":                      {change(":path", "/\n"), "400|" + bad},
		"NUL in the path":                     {change(":path", "/\x00"), "400|" + bad},
		"escaped NUL":                         {change(":path", "/%00"), "400"},
		"double encoding":                     {change(":path", "/%252e%252e/"), "200"},
		"dot segment between escaped slashes": {change(":path", "/a%2f..%2fb"), "400"},
		"dot segment between backslashes":     {change(":path", "/a\\..\\b"), "400"},
		"head too large":                      {with(strings.Split(strings.Repeat("x,"+strings.Repeat("a", 4<<10)+",", 4)+"x,y", ",")...), "431"},
		// That it is refused costs nobody else on the connection anything, unless it is beyond all measure.
		"field too large":           {with("x", strings.Repeat("a", 20_000)), "431"},
		"field of many frames":      {with("x", strings.Repeat("a", 60_000)), "431"},
		"path of 20 KB":             {change(":path", "/"+strings.Repeat("a", 20_000)), "431"},
		"40 fields of 1 KB":         {with(strings.Split(strings.Repeat("x,"+strings.Repeat("~", 1000)+",", 39)+"x,y", ",")...), "431"},
		"field beyond measure":      {with("x", strings.Repeat("a", 70_000)), "GOAWAY COMPRESSION_ERROR"},
		"too many fields":           {with(strings.Split(strings.Repeat("a,b,", 128)+"a,b", ",")...), "431"},
		"transfer-encoding":         {with("transfer-encoding", "chunked"), bad},
		"connection":                {with("connection", "close"), bad},
		"upgrade":                   {with("upgrade", "websocket"), bad},
		"keep-alive":                {with("keep-alive", "1"), bad},
		"proxy-connection":          {with("proxy-connection", "close"), bad},
		"te":                        {with("te", "gzip"), bad},
		"CRLF in a value":           {with("x", "a\r\ntransfer-encoding: chunked"), bad},
		"LF in a value":             {with("x", "a\nb"), bad},
		"NUL in a value":            {with("x", "a\x00b"), bad},
		"space before a value":      {with("x", " a"), bad},
		"colon in a name":           {with("x:y", "a"), bad},
		"space in a name":           {with("x y", "a"), bad},
		"CRLF in a name":            {with("x\r\ny", "a"), bad},
		"upper case in a name":      {with("X", "a"), bad},
		"empty name":                {with("", "a"), bad},
		"CRLF in the path":          {change(":path", "/ HTTP/1.1\r\nHost: b\r\n\r\n"), "400|" + bad},
		"space in the path":         {change(":path", "/a b"), "400"},
		"absolute path":             {change(":path", "http://b.test/"), "400"},
		"empty path":                {change(":path", ""), bad},
		"dot segment":               {change(":path", "/a/../b"), "400"},
		"escaped dot segment":       {change(":path", "/a/%2e%2e/b"), "400"},
		"bad UTF-8 in the path":     {change(":path", "/\xff"), "400"},
		"space in the method":       {change(":method", "GET /x"), bad},
		"CRLF in the method":        {change(":method", "GET / HTTP/1.1\r\n\r\n"), bad},
		"empty method":              {change(":method", ""), bad},
		"CONNECT":                   {change(":method", "CONNECT"), "405"},
		"TRACE":                     {change(":method", "TRACE"), "405"},
		"CRLF in the authority":     {change(":authority", "a\r\nb"), "400|" + bad},
		"userinfo in the authority": {change(":authority", "u@a.test"), "400"},
		"two hosts":                 {with("host", "b.test"), "400"},
		"the same host twice":       {with("host", "A.test"), "200"},
		"length without a body":     {with("content-length", "5"), bad},
		"two lengths":               {with("content-length", "0", "content-length", "0"), bad},
		"odd length":                {with("content-length", "+0"), bad},
		"unknown pseudo field":      {with(":x", "a"), bad},
		"pseudo field twice":        {with(":method", "GET"), bad},
		"extended, not WebSocket":   {append(change(":method", "CONNECT"), ":protocol", "tcp"), "501"},
		"protocol without CONNECT":  {with(":protocol", "websocket"), bad},
	} {
		t.Run(name, func(t *testing.T) {
			mu.Lock()
			seen = nil
			mu.Unlock()
			// The framer of the client refuses to write some of these: HPACK by itself does not.
			w := dial2(t, f.addr)
			fields, body := c.fields, ""
			if n := len(fields); fields[n-2] == "" && fields[n-1] != "a" {
				fields, body = fields[:n-2], fields[n-1]
			}
			for i := 0; i < len(fields); i += 2 { // pseudo fields first
				if i > 0 && strings.HasPrefix(fields[i], ":") && !strings.HasPrefix(fields[i-2], ":") {
					t.Fatal("pseudo field behind others")
				}
			}
			if w.open(1, body == "", fields...); body != "" {
				w.WriteData(1, true, []byte(body))
			}
			got := w.next()
			if !strings.Contains("|"+c.want+"|", "|"+got+"|") {
				t.Errorf("got %s, want %s", got, c.want)
			}
			want := []string{"GET / "}
			if w.open(3, true, get2...); strings.HasPrefix(c.want, "GOAWAY") {
				want = nil
			} else if got := w.next(); got != "200" {
				t.Errorf("the next request got %s", got)
			}
			if c.want == "200" {
				want = []string{fields[1] + " " + fields[5] + " " + body, want[0]}
			}
			mu.Lock()
			defer mu.Unlock()
			if fmt.Sprint(seen) != fmt.Sprint(want) {
				t.Errorf("the backend saw %q", seen)
			}
		})
	}
}

// TestFloods: whoever makes work for nothing is left.
func TestFloods(t *testing.T) {
	block := make(chan struct{})
	backend := webBackend(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-block:
		case <-r.Context().Done():
		}
	})
	f := start(t, Options{}, backend)
	t.Cleanup(func() { close(block) })
	floods := uint64(0)
	for name, flood := range map[string]func(w *framed, i uint32) error{
		"rapid reset": func(w *framed, i uint32) error {
			w.open(2*i+1, true, get2...)
			return w.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
		},
		"bad streams": func(w *framed, i uint32) error {
			w.open(2*i+1, true, ":method", "GET")
			return nil
		},
		"settings": func(w *framed, _ uint32) error { return w.WriteSettings() },
		"ping":     func(w *framed, _ uint32) error { return w.WritePing(false, [8]byte{}) },
		"priority": func(w *framed, _ uint32) error { return w.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
		"windows":  func(w *framed, _ uint32) error { return w.WriteWindowUpdate(0, 1) },
		"empty data": func(w *framed, i uint32) error {
			if i == 0 {
				w.open(1, false, ":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a.test")
			}
			return w.WriteData(1, false, nil)
		},
		"continuation": func(w *framed, i uint32) error {
			if i == 0 {
				return w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1})
			}
			// Without indexing: a name and a value.
			return w.WriteContinuation(1, false, append([]byte{0, 1, 'x', 100}, bytes.Repeat([]byte("y"), 100)...))
		},
		"empty continuation": func(w *framed, i uint32) error {
			if i == 0 {
				return w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1})
			}
			return w.WriteContinuation(1, false, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := dial2(t, f.addr)
			w.AllowIllegalWrites = true
			go func() {
				for i := range uint32(10_000) {
					if flood(w, i) != nil {
						return
					}
				}
			}()
			got := ""
			for got = w.next(); strings.HasPrefix(got, "RST") || len(got) == 3; got = w.next() {
			}
			if got != "GOAWAY ENHANCE_YOUR_CALM" && got != "GOAWAY PROTOCOL_ERROR" && got != "closed" {
				t.Errorf("got %s", got)
			}
			if name != "continuation" { // which is against the protocol
				floods++
			}
			until(t, "the flood is counted", func() bool { return f.Stats().Floods2 == floods })
		})
	}
	until(t, "the backend is left alone", func() bool {
		for _, s := range f.registry.Snapshot() {
			if s.InFlight > 0 {
				return false
			}
		}
		return true
	})
}

// TestBackpressure: a client that takes nothing holds up nobody but itself, and the
// backend of its answer.
func TestBackpressure(t *testing.T) {
	var sent sync.Map
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	backend := webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/endless" {
			return
		}
		for n := 0; ; n += len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
			sent.Store("n", n)
		}
	})
	f := start(t, Options{}, backend)
	w := dial2(t, f.addr)
	w.open(1, true, ":method", "GET", ":scheme", "http", ":path", "/endless", ":authority", "a.test")
	if got := w.next(); got != "200" {
		t.Fatal(got)
	}
	w.open(3, true, get2...)
	if got := w.next(); got != "200" {
		t.Errorf("the other stream got %s", got)
	}
	// Windows of the kernel and ours, no more.
	last := -1
	until(t, "the backend is held up", func() bool {
		time.Sleep(50 * time.Millisecond)
		n, _ := sent.Load("n")
		now, _ := n.(int)
		still := now == last
		last = now
		return still
	})
	if last > 16<<20 {
		t.Errorf("%d bytes were taken from the backend for a client that took 64 KiB", last)
	}
	w.Close()
	until(t, "the backend is let go", func() bool { return f.registry.Snapshot()[1].InFlight == 0 })
}

// TestDrain2: what is open ends in order, and the client is told to go elsewhere.
func TestDrain2(t *testing.T) {
	release := make(chan struct{})
	backend := webBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		<-release
		fmt.Fprint(w, "done")
	})
	f := start(t, Options{Drain: 10 * time.Second}, backend)
	w, idle := dial2(t, f.addr), dial2(t, f.addr)
	w.open(1, true, get2...)
	until(t, "the request at the backend", func() bool { return f.registry.Snapshot()[1].InFlight == 1 })
	until(t, "the idle connection", func() bool { return f.Stats().HTTP2 == 2 })
	stopped := make(chan struct{})
	go func() { defer close(stopped); f.stop() }()
	if got := idle.next(); got != "GOAWAY NO_ERROR" {
		t.Errorf("the idle connection got %s", got)
	}
	if got := idle.next(); got != "closed" {
		t.Errorf("the idle connection then got %s", got)
	}
	if got := w.next(); got != "GOAWAY NO_ERROR" {
		t.Errorf("got %s", got)
	}
	w.open(3, true, get2...)
	if got := w.next(); got != "RST REFUSED_STREAM" {
		t.Errorf("a late request got %s", got)
	}
	close(release)
	if got := w.next(); got != "200" {
		t.Errorf("the open request got %s", got)
	}
	if got := w.next(); got != "closed" {
		t.Errorf("then %s", got)
	}
	<-stopped
}

// TestResetsAreTheClients: requests that clients take back at once say nothing about the backend.
func TestResetsAreTheClients(t *testing.T) {
	f := start(t, Options{}, webBackend(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	w := dial2(t, f.addr)
	for id := uint32(1); id < 60; id += 2 {
		w.open(id, true, get2...)
		w.WriteRSTStream(id, http2.ErrCodeCancel)
	}
	until(t, "the requests are seen, and nothing is under way", func() bool {
		leases := uint64(0)
		for _, b := range f.registry.Snapshot() {
			if leases += b.Leases; b.InFlight != 0 {
				return false
			}
		}
		return leases > 0
	})
	for _, b := range f.registry.Snapshot() {
		for outcome, n := range b.Outcomes {
			if n > 0 && forward.Outcome(outcome) != forward.OutcomeClient {
				t.Errorf("%v of %v, want none", n, forward.Outcome(outcome))
			}
		}
	}
}

// TestHandedOver2: a client that goes on while another process has the sockets is told to go there, and loses nothing that is on its
// way; one that does not heed that is refused in the end.
func TestHandedOver2(t *testing.T) {
	backend := webBackend(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "done") })
	f := start(t, Options{}, backend)
	ctx, cancel := context.WithCancelCause(context.Background())
	old, err := New(Options{Registry: f.registry, Listeners: []Listener{{Routes: anyRoute, Address: netip.MustParseAddrPort("127.0.0.1:0")}}})
	if err != nil {
		t.Fatal(err)
	}
	addr, done := old.Addrs()[0].String(), make(chan error, 1)
	go func() { done <- old.Run(ctx) }()
	w := dial2(t, addr)
	id := uint32(1)
	ask := func(want ...string) {
		t.Helper()
		w.open(id, true, get2...)
		id += 2
		for _, want := range want {
			if got := w.next(); got != want {
				t.Fatalf("stream %d: got %s, want %s", id-2, got, want)
			}
		}
	}
	ask("200")
	cancel(forward.HandedOver{Limit: time.Minute})
	until(t, "the sockets are given up", func() bool { return len(old.Addrs()) == 0 })
	ask("GOAWAY NO_ERROR", "200")
	ask("200") // was on its way
	for begun := time.Now(); ; {
		time.Sleep(10 * time.Millisecond) // streams end a moment after their answers, and there may be 128
		w.open(id, true, get2...)
		id += 2
		if got := w.next(); got == "GOAWAY NO_ERROR" {
			break
		} else if got != "200" || time.Since(begun) > 10*farewell2 {
			t.Fatalf("got %s after %v", got, time.Since(begun))
		}
	}
	if got := w.next(); got != "200" {
		t.Errorf("the last request got %s", got)
	}
	if got := w.next(); got != "closed" {
		t.Errorf("then %s", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestWebSocket2 carries a WebSocket over HTTP/2 to a backend that knows HTTP/1 only.
func TestWebSocket2(t *testing.T) {
	for _, accept := range []bool{true, false} {
		backend := rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			d := stream2{key: []byte(req.Header.Get("Sec-Websocket-Key"))}
			answer := "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
			if accept {
				answer = websocketAccept(d.key)
			}
			fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\nhello ", answer)
			io.Copy(c, r)
		})
		file := filepath.Join(t.TempDir(), "access.log")
		f := start(t, Options{Listeners: []Listener{{Routes: anyRoute, AccessLog: &AccessLog{File: file}}}}, backend)
		w := dial2(t, f.addr)
		w.open(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/ws", ":authority", "a.test", "sec-websocket-version", "13")
		want := map[bool]string{true: "200", false: "502"}[accept]
		if got := w.next(); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
		if !accept {
			continue
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
		f.stop()
		wantLogged(t, file, `"status":200`) // not the backend's 101
	}
}
