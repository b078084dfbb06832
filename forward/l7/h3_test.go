package l7

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"github.com/pharos-lb/pharos/forward/l7/route"
	"github.com/pharos-lb/pharos/forward/porttest"
	"github.com/pharos-lb/pharos/internal/handover"
	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"
)

// client3 speaks HTTP/3 to one address, whatever the URL says.
func client3(t testing.TB, ca *certtest.CA, addr string) (*http.Client, *http3.Transport) {
	t.Helper()
	tr := &http3.Transport{
		TLSClientConfig:    &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test"},
		DisableCompression: true,
		Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			return quic.DialAddrEarly(ctx, addr, tc, qc)
		},
	}
	t.Cleanup(func() { tr.Close() })
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}, tr
}

func listener3(ca *certtest.CA) []Listener {
	return []Listener{{Routes: anyRoute, TLS: secure(ca, "a.test"), HTTP3: true}}
}

// TestHTTP3 asks the same over HTTP/3 of backends of every protocol.
func TestHTTP3(t *testing.T) {
	ca := certtest.New(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<15)
	handler := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/big":
			w.Header().Set("Content-Length", fmt.Sprint(len(big)))
			w.Write(big)
		case "/stream":
			w.Header().Set("Trailer", "X-Sum")
			for i := 0; i < len(big); i += 1000 {
				w.Write(big[i:min(i+1000, len(big))])
			}
			w.Header().Set("X-Sum", "all")
		case "/echo":
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
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
		case "/bare":
			w.Header()["Date"], w.Header()["Content-Type"] = nil, nil
			w.Write([]byte("<html>"))
		case "/fail":
			w.WriteHeader(500)
			fmt.Fprint(w, "broken")
		default:
			fmt.Fprint(w, r.Method, " ", r.Host, " ", strings.Join(r.Header["Cookie"], "|"), " ", r.Header.Get("X-Forwarded-For"),
				" ", r.Header.Get("X-Forwarded-Proto"), " ", r.RequestURI, " ", r.ContentLength, " ", r.TransferEncoding, " ", r.Header.Get("Early-Data"))
		}
	}
	for _, p := range []forward.Protocol{forward.HTTP1, forward.H2C} {
		t.Run(p.String(), func(t *testing.T) {
			backend := protocolBackend(t, p, nil, handler)
			f := startVia(t, forward.Transport{Protocol: p}, Options{Listeners: listener3(ca)}, backend.addr)
			c, _ := client3(t, ca, f.Addrs3()[0].String())
			const url = "https://a.test"
			res, err := c.Get(url + "/")
			slurp(t, res, err)
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					req, _ := http.NewRequest("GET", url+"/a?b=c", nil)
					req.Header["Cookie"] = []string{"a=1; b=2"}
					res, err := c.Do(req)
					if got, want := slurp(t, res, err), "GET a.test a=1; b=2 127.0.0.1 https /a?b=c 0 [] "; got != want || res.ProtoMajor != 3 {
						t.Errorf("got %q over %s, want %q", got, res.Proto, want)
					}
					if res.Header.Get("Alt-Svc") != "" {
						t.Error("HTTP/3 announces itself")
					}
					for _, path := range []string{"/big", "/stream"} {
						res, err := c.Get(url + path)
						if got := slurp(t, res, err); got != string(big) || path == "/stream" && res.Trailer.Get("X-Sum") != "all" {
							t.Errorf("%s has %d bytes, and trailers %v", path, len(got), res.Trailer)
						}
					}
					for _, n := range []int{0, 1, 16 << 10, 16<<10 + 1, len(big)} {
						res, err := c.Post(url+"/echo", "text/plain", bytes.NewReader(big[:n]))
						if got := slurp(t, res, err); got != string(big[:n]) || res.Header.Get("X-Length") != fmt.Sprint(n) && n > 0 {
							t.Errorf("echo of %d bytes gave %d, of length %s", n, len(got), res.Header.Get("X-Length"))
						}
						req, _ := http.NewRequest("POST", url+"/echo", io.MultiReader(bytes.NewReader(big[:n])))
						req.Trailer = http.Header{"X-Sum": {fmt.Sprint("sum", n)}}
						res, err = c.Do(req)
						if got := slurp(t, res, err); got != string(big[:n]) || res.Trailer.Get("X-Sum") != fmt.Sprint("sum", n) {
							t.Errorf("echo of %d bytes of unknown length gave %d with trailer %q", n, len(got), res.Trailer)
						}
					}
					for path, want := range map[string]string{"/early": "200 late", "/empty": "204 ", "/fail": "500 broken"} {
						res, err = c.Get(url + path)
						if got := slurp(t, res, err); fmt.Sprint(res.StatusCode, " ", got) != want {
							t.Errorf("%s: got %d %q, want %s", path, res.StatusCode, got, want)
						}
					}
					res, err = c.Get(url + "/bare")
					if got := slurp(t, res, err); got != "<html>" || res.Header.Get("Content-Type") != "" {
						t.Errorf("what the backend did not say was made up: %v", res.Header)
					}
					res, err = c.Head(url + "/big")
					if slurp(t, res, err); res.ContentLength != int64(len(big)) {
						t.Errorf("HEAD says %d bytes", res.ContentLength)
					}
				})
			}
			wg.Wait()
			if s := f.Stats(); s.HTTP3 != 1 || s.Active3 != 1 {
				t.Errorf("%d connections of HTTP/3, %d open, want one", s.HTTP3, s.Active3)
			}
		})
	}
}

// TestAltSvc: answers over TCP say where HTTP/3 is spoken, instead of what the backend says; so do our own.
func TestAltSvc(t *testing.T) {
	ca := certtest.New(t)
	l := listener3(ca)
	l[0].Routes = append(l[0].Routes,
		Route{Path: "/down", Service: "down"}, Route{Path: "/to", Redirect: &route.Redirect{Path: "/"}},
		Route{Path: "/text", Respond: &route.Response{Status: 200, Body: "ok"}})
	f := start(t, Options{Listeners: append(l, Listener{Routes: l[0].Routes})}, webBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Alt-Svc", `h3=":1"`)
	}))
	want := fmt.Sprintf(`h3=":%d"; ma=86400`, f.Addrs3()[0].Port())
	for path, status := range map[string]int{"/": 200, "/down": 503, "/to": 302, "/text": 200, "/%": 400} {
		for _, h2 := range []bool{false, true} {
			c := client(t)
			tr := c.Transport.(*http.Transport)
			tr.TLSClientConfig, tr.ForceAttemptHTTP2 = &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test"}, h2
			req, _ := http.NewRequest("GET", "https://"+f.addr+"/", nil)
			req.URL.Opaque = path
			if h2 {
				req.URL.Opaque = "//" + f.addr + path
			}
			res, err := c.Do(req)
			if slurp(t, res, err); len(res.Header["Alt-Svc"]) != 1 || res.Header.Get("Alt-Svc") != want || res.StatusCode != status {
				t.Errorf("%s over %s: got %d, %q, want %d, %q", path, res.Proto, res.StatusCode, res.Header["Alt-Svc"], status, want)
			}
		}
		c, _ := client3(t, ca, f.Addrs3()[0].String())
		c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		if path != "/" && path != "/%" {
			res, err := c.Get("https://a.test" + path)
			if slurp(t, res, err); res.StatusCode != status || res.Header.Get("Alt-Svc") != "" {
				t.Errorf("%s over HTTP/3: got %d, and it announces itself: %q", path, res.StatusCode, res.Header["Alt-Svc"])
			}
			res, err = client(t).Get("http://" + f.Addrs()[1].String() + path)
			if slurp(t, res, err); res.StatusCode != status || res.Header.Get("Alt-Svc") != "" {
				t.Errorf("%s where there is no HTTP/3: got %d, %q", path, res.StatusCode, res.Header["Alt-Svc"])
			}
		}
	}
}

// TestHTTP3Trouble: what goes wrong behind or before us is an error, or a stream that is reset; the connection goes on.
func TestHTTP3Trouble(t *testing.T) {
	ca := certtest.New(t)
	left := make(chan struct{}, 1)
	f := start(t, Options{Listeners: listener3(ca), ResponseTimeout: 2 * time.Second}, rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			switch req.URL.Path {
			case "/chunk":
				io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
			case "/garbage":
				io.WriteString(c, "garbage\r\n\r\n")
			case "/closes":
				return
			case "/silent":
				io.Copy(io.Discard, r)
				return
			case "/hangs":
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
				io.Copy(io.Discard, r)
				left <- struct{}{}
				return
			case "/short":
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
				return
			default:
				io.Copy(io.Discard, req.Body)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}
	}))
	c, _ := client3(t, ca, f.Addrs3()[0].String())
	for path, want := range map[string]int{"/garbage": 502, "/chunk": 502, "/closes": 502, "/silent": 504, "/a/../b": 400} {
		req, _ := http.NewRequest("POST", "https://a.test"+path, strings.NewReader("x"))
		req.URL.Opaque = "//a.test" + path // as it is
		res, err := c.Do(req)
		if slurp(t, res, err); res.StatusCode != want {
			t.Errorf("%s: got %d, want %d", path, res.StatusCode, want)
		}
		if n := f.Stats().HTTP3; n != 1 {
			t.Errorf("%s: %d connections", path, n)
		}
	}
	res, err := c.Get("https://a.test/short")
	if err == nil {
		if b, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("a short answer was taken for whole: %q", b)
		}
		res.Body.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", "https://a.test/hangs", nil)
	hangs, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	defer hangs.Body.Close()
	select {
	case <-left:
	case <-time.After(time.Second):
		t.Error("the backend does not see that the client has gone")
	}
	res, err = c.Get("https://a.test/")
	if got := slurp(t, res, err); got != "ok" {
		t.Errorf("then got %q", got)
	}
}

// TestDowngrade3: what HTTP/3 can carry and HTTP/1 would read as something else never reaches a backend.
func TestDowngrade3(t *testing.T) {
	ca := certtest.New(t)
	var reached atomic.Int64
	f := start(t, Options{Listeners: listener3(ca)}, webBackend(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/whenever" {
			reached.Add(1)
		}
	}))
	plain := []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.test"}
	with := func(fields ...string) []string { return append(append([]string(nil), plain...), fields...) }
	change := func(name, value string) []string {
		out := append([]string(nil), plain...)
		for i := 0; i < len(out); i += 2 {
			if out[i] == name {
				out[i+1] = value
			}
		}
		return out
	}
	sized := func(length, body string) []string { // the body is no field, and goes behind
		return append(change(":method", "POST"), "content-length", length, "", body)
	}
	whenever := func(fields []string) []string { // the backend may be reached, and when that is nobody waits for
		fields[slices.Index(fields, ":path")+1] = "/whenever"
		return fields
	}
	for name, tt := range map[string]struct {
		fields []string
		want   string // statuses, or "reset"
	}{
		"plain":                               {plain, "200"},
		"body":                                {sized("3", "abc"), "200"},
		"body longer than its length":         {whenever(sized("3", "abcGET /evil")), "200 400 reset"}, // what it says may be passed on before the rest comes
		"body shorter than its length":        {whenever(sized("30", "abc")), "reset 400"},
		"keep-alive":                          {with("keep-alive", "1"), "reset"},
		"proxy-connection":                    {with("proxy-connection", "close"), "reset"},
		"transfer-encoding and length":        {with("transfer-encoding", "chunked", "content-length", "0"), "reset"},
		"transfer-encoding identity":          {with("transfer-encoding", "identity"), "reset"},
		"LF in a value":                       {with("x", "a\nb"), "reset"},
		"CR in a value":                       {with("x", "a\rb"), "reset"},
		"NUL in a name":                       {with("x\x00y", "a"), "reset"},
		"space in a name":                     {with("x y", "a"), "reset"},
		"empty name":                          {with("", "a"), "reset"},
		"bad UTF-8 in a name":                 {with("x\xff", "a"), "reset"},
		"bad UTF-8 in a value":                {with("x", "\xff\xfe"), "200"},
		"bad UTF-8 in the path":               {change(":path", "/\xff"), "400 reset"},
		"LF in the path":                      {change(":path", "/\n"), "400 reset"},
		"NUL in the path":                     {change(":path", "/\x00"), "400 reset"},
		"empty path":                          {change(":path", ""), "400 reset"},
		"escaped NUL":                         {change(":path", "/%00"), "400 reset"},
		"double encoding":                     {change(":path", "/%252e%252e/"), "200"},
		"dot segment between escaped slashes": {change(":path", "/a%2f..%2fb"), "400 reset"},
		"dot segment between backslashes":     {change(":path", "/a\\..\\b"), "400 reset"},
		"empty method":                        {change(":method", ""), "400 reset"},
		"CRLF in the authority":               {change(":authority", "a\r\nb"), "400 reset"},
		"unknown pseudo field":                {with(":x", "a"), "reset"},
		"pseudo field twice":                  {with(":method", "GET"), "reset"},
		"extended, not WebSocket":             {append(change(":method", "CONNECT"), ":protocol", "tcp"), "501 400 reset"},
		"protocol without CONNECT":            {with(":protocol", "websocket"), "400 reset"},
		"head too large":                      {with("x", strings.Repeat("a", 20_000)), "431"},
		"head far too large":                  {with("x", strings.Repeat("~", 60_000)), "431"},
		"too many fields":                     {with(strings.Split(strings.Repeat("a,b,", 128)+"a,b", ",")...), "431"},
		"transfer-encoding":                   {with("transfer-encoding", "chunked"), "reset"},
		"connection":                          {with("connection", "close"), "reset"},
		"upgrade":                             {with("upgrade", "websocket"), "reset"},
		"te":                                  {with("te", "gzip"), "reset"},
		"CRLF in a value":                     {with("x", "a\r\ntransfer-encoding: chunked"), "reset"},
		"NUL in a value":                      {with("x", "a\x00b"), "reset"},
		"space before a value":                {with("x", " a"), "reset"},
		"colon in a name":                     {with("x:y", "a"), "reset"},
		"CRLF in a name":                      {with("x\r\ny", "a"), "reset"},
		"upper case in a name":                {with("X", "a"), "reset"},
		"CRLF in the path":                    {change(":path", "/ HTTP/1.1\r\nHost: b\r\n\r\n"), "400 reset"},
		"space in the path":                   {change(":path", "/a b"), "400 reset"},
		"absolute path":                       {change(":path", "http://b.test/"), "400 reset"},
		"dot segment":                         {change(":path", "/a/../b"), "400"},
		"escaped dot segment":                 {change(":path", "/a/%2e%2e/b"), "400"},
		"space in the method":                 {change(":method", "GET /x"), "reset 400"},
		"CRLF in the method":                  {change(":method", "GET / HTTP/1.1\r\n\r\n"), "reset 400"},
		"CONNECT":                             {[]string{":method", "CONNECT", ":authority", "a.test:443"}, "405 400"},
		"TRACE":                               {change(":method", "TRACE"), "405"},
		"bad authority":                       {change(":authority", "a.test/../"), "400 reset"},
		"user in authority":                   {change(":authority", "u@a.test"), "400 reset"},
		"two hosts":                           {with("host", "b.test"), "400 reset"},
		"length twice":                        {with("content-length", "0", "content-length", "5"), "reset"},
		"length odd":                          {with("content-length", "+0"), "reset"},
		"length and no body":                  {with("content-length", "5"), "reset 408"},
	} {
		t.Run(name, func(t *testing.T) {
			before := reached.Load()
			fields, body := tt.fields, ""
			if n := len(fields); fields[n-2] == "" && fields[n-1] != "a" {
				fields, body = fields[:n-2], fields[n-1]
			}
			got := ask3(t, ca, f.Addrs3()[0].String(), fields, body)
			if !strings.Contains(tt.want, got) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if n := reached.Load() - before; (n > 0) != (tt.want == "200") && !strings.HasPrefix(tt.want, "200 ") {
				t.Errorf("%d requests reached the backend", n)
			}
		})
	}
}

// ask3 sends a request of name, value, name, value … and a body, if it is not empty, and returns the status, or "reset".
func ask3(t *testing.T, ca *certtest.CA, addr string, fields []string, body string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := quic.DialAddr(ctx, addr, &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test", NextProtos: []string{"h3"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseWithError(0x100, "")
	status, _ := exchange3(t, c, fields, func() {}, body)
	return status
}

// headers3 is a HEADERS frame.
func headers3(fields []string) []byte {
	var block bytes.Buffer
	enc := qpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		enc.WriteField(qpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return append(quicvarint.Append([]byte{1}, uint64(block.Len())), block.Bytes()...)
}

// exchange3 is ask3 on a connection of its own; it calls sent when the request is sent, and returns the answer's body too.
func exchange3(t *testing.T, c *quic.Conn, fields []string, sent func(), parts ...string) (status, body string) {
	t.Helper()
	control, err := c.OpenUniStream()
	if err != nil {
		t.Fatal(err)
	}
	control.Write([]byte{0, 4, 0}) // a control stream, and SETTINGS without any
	s, err := c.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	s.Write(headers3(fields))
	for _, part := range parts {
		if part != "" {
			s.Write(append(quicvarint.Append([]byte{0}, uint64(len(part))), part...))
		}
	}
	s.Close()
	sent()
	s.SetReadDeadline(time.Now().Add(5 * time.Second))
	r := quicvarint.NewReader(s)
	status = "reset"
	for {
		kind, err := quicvarint.Read(r)
		if err != nil {
			return status, body
		}
		n, err := quicvarint.Read(r)
		if err != nil {
			return status, body
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(r, payload); err != nil {
			return status, body
		}
		switch kind {
		case 0:
			body += string(payload)
		case 1:
			next := qpack.NewDecoder().Decode(payload)
			for h, err := next(); err == nil; h, err = next() {
				if h.Name == ":status" {
					status = h.Value
				}
			}
		}
	}
}

// A lateConn hears nothing until it may. The client of quic-go 0.65 opens streams and reads the server's parameters at
// a time, without a lock, if they arrive while it sends early.
type lateConn struct {
	net.PacketConn
	may chan struct{}
}

func (c lateConn) ReadFrom(p []byte) (int, net.Addr, error) {
	<-c.may
	return c.PacketConn.ReadFrom(p)
}

// TestEarlyData: a safe request of 0-RTT is passed on at once and marked; any other waits for the handshake.
func TestEarlyData(t *testing.T) {
	ca := certtest.New(t)
	f := start(t, Options{Listeners: listener3(ca)}, webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Method, " early=", r.Header.Get("Early-Data"))
	}))
	config := &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test", NextProtos: []string{"h3"}, ClientSessionCache: tls.NewLRUClientSessionCache(10)}
	ask := func(method string) (string, bool) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		socket, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		late := lateConn{socket, make(chan struct{})}
		if _, resumes := config.ClientSessionCache.Get("a.test"); !resumes {
			close(late.may)
		}
		tr := &quic.Transport{Conn: late}
		defer socket.Close()
		defer tr.Close()
		c, err := tr.DialEarly(ctx, net.UDPAddrFromAddrPort(f.Addrs3()[0]), config, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseWithError(0x100, "")
		_, body := exchange3(t, c, []string{":method", method, ":scheme", "https", ":authority", "a.test", ":path", "/"}, func() {
			select {
			case <-late.may:
			default:
				close(late.may)
			}
		})
		return body, c.ConnectionState().Used0RTT
	}
	if got, early := ask(http.MethodGet); got != "GET early=" || early {
		t.Fatalf("got %q, early %v", got, early)
	}
	until(t, "0-RTT", func() bool { got, early := ask(http.MethodGet); return early && got == "GET early=1" })
	if got, early := ask(http.MethodPost); got != "POST early=" || !early {
		t.Errorf("got %q, early %v", got, early)
	}
}

// TestReload3: new settings count for requests on open connections; one whose listener is gone ends in order.
func TestReload3(t *testing.T) {
	ca := certtest.New(t)
	release := make(chan struct{})
	backend := webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			w.(http.Flusher).Flush()
			<-release
		}
		fmt.Fprint(w, "ok")
	})
	f := start(t, Options{Listeners: listener3(ca)}, backend)
	c, _ := client3(t, ca, f.Addrs3()[0].String())
	status := func(path string) int {
		res, err := c.Get("https://a.test" + path)
		if err != nil {
			return 0
		}
		slurp(t, res, nil)
		return res.StatusCode
	}
	if got := status("/"); got != 200 {
		t.Fatalf("got %d", got)
	}
	l := listener3(ca)
	l[0].Address = f.Addrs()[0]
	l[0].Routes = []Route{{Path: "/slow", Service: "web"}}
	bad := append([]Listener(nil), l...)
	bad[0].TLS = nil
	if _, err := f.Prepare(bad); err == nil {
		t.Error("HTTP/3 without TLS was taken")
	}
	// The listener that asked for port 0 is another one: what it has is drained, and the new one is bound beside it.
	slow, err := c.Get("https://a.test/slow")
	if err != nil {
		t.Fatal(err)
	}
	change, err := f.Prepare(l)
	if err != nil {
		t.Fatal(err)
	}
	change.Commit()
	c2, _ := client3(t, ca, f.Addrs3()[0].String())
	res, err := c2.Get("https://a.test/")
	if slurp(t, res, err); res.StatusCode != 404 {
		t.Errorf("the new settings do not count: got %d", res.StatusCode)
	}
	l[0].Routes = anyRoute
	if change, err = f.Prepare(l); err != nil {
		t.Fatal(err)
	}
	change.Commit()
	res, err = c2.Get("https://a.test/")
	if slurp(t, res, err); res.StatusCode != 200 {
		t.Errorf("on an open connection got %d", res.StatusCode)
	}
	close(release)
	if got := slurp(t, slow, nil); got != "ok" {
		t.Errorf("the open request got %q", got)
	}
	if n := f.Stats().HTTP3; n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// TestDrain3: a stop lets what is open end, and tells clients to go elsewhere.
func TestDrain3(t *testing.T) {
	ca := certtest.New(t)
	release, at := make(chan struct{}), make(chan struct{})
	f := start(t, Options{Listeners: listener3(ca), Drain: time.Minute}, webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(at)
			<-release
		}
		fmt.Fprint(w, "done")
	}))
	c, _ := client3(t, ca, f.Addrs3()[0].String())
	idle, _ := client3(t, ca, f.Addrs3()[0].String())
	res, err := idle.Get("https://a.test/")
	slurp(t, res, err)
	got := make(chan string, 1)
	go func() {
		res, err := c.Get("https://a.test/slow")
		if err != nil {
			got <- err.Error()
			return
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		got <- fmt.Sprint(string(b), " ", err)
	}()
	<-at
	addr := f.Addrs3()[0].String()
	stopped := make(chan struct{})
	began := time.Now()
	go func() { defer close(stopped); f.stop() }()
	until(t, "new connections are refused", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c, err := quic.DialAddr(ctx, addr, &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test", NextProtos: []string{"h3"}}, nil)
		if err == nil {
			c.CloseWithError(0x100, "")
		}
		var refused *quic.TransportError
		return errors.As(err, &refused) && refused.ErrorCode == quic.ConnectionRefused
	})
	close(release)
	if got := <-got; got != "done <nil>" {
		t.Errorf("the open request got %q", got)
	}
	<-stopped
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("stopping took %s, though nothing was left", took)
	}
}

// process3 starts a server that stands for a process of its own, on the sockets that were offered, if any.
func process3(t *testing.T, ca *certtest.CA, addr, backend netip.AddrPort) (*fixture, context.CancelCauseFunc, chan struct{}) {
	t.Helper()
	f := &fixture{pools: &fakePools{}}
	f.pools.publish(backend)
	var err error
	if f.registry, err = forward.New(forward.Options{Pools: f.pools}); err != nil {
		t.Fatal(err)
	}
	l := listener3(ca)
	l[0].Address = addr
	if f.Server, err = New(Options{Listeners: l, Registry: f.registry}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx); f.registry.Close() }()
	t.Cleanup(func() { cancel(nil); <-done })
	until(t, "it serves", func() bool {
		f.fronts3.mu.Lock()
		defer f.fronts3.mu.Unlock()
		return len(f.fronts3.fronts) == 1 && f.fronts3.fronts[0].started
	})
	return f, cancel, done
}

// offer3 offers this process's sockets to the next of process3.
func offer3(t *testing.T) {
	t.Helper()
	sockets, fds, err := handover.Listening()
	if err != nil {
		t.Fatal(err)
	}
	handover.Inherit(sockets, fds)
	t.Cleanup(func() { handover.CloseRest() })
}

// TestUpgrade3: while one process goes and another comes, connections that are open stay with the one and new ones
// go to the other. Both are servers of this process here; the kernel sees two sockets all the same.
func TestUpgrade3(t *testing.T) {
	ca := certtest.New(t)
	release := make(chan struct{})
	backend := webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			w.(http.Flusher).Flush()
			<-release
			w.Write(bytes.Repeat([]byte("x"), 1<<20)) // many acknowledgements have to find their way
		}
		fmt.Fprint(w, "ok")
	})
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(porttest.Free(t)))
	const generations = 4
	var slow []*http.Response
	var dones []chan struct{}
	for g := range generations {
		f, cancel, done := process3(t, ca, addr, backend)
		dones = append(dones, done)
		var last *http.Client
		for range 10 {
			c, _ := client3(t, ca, addr.String())
			res, err := c.Get("https://a.test/")
			if got := slurp(t, res, err); got != "ok" {
				t.Fatalf("generation %d: got %q", g, got)
			}
			last = c
		}
		if n := f.Stats().HTTP3; n != 10 {
			t.Fatalf("generation %d: %d of 10 connections", g, n)
		}
		res, err := last.Get("https://a.test/slow")
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, res)
		if g == generations-1 {
			break
		}
		offer3(t)
		cancel(forward.HandedOver{Limit: time.Minute})
		until(t, "the TCP sockets are given up", func() bool { return len(f.Addrs()) == 0 })
	}
	close(release)
	for g, res := range slow {
		if got := slurp(t, res, nil); len(got) != 1<<20+2 {
			t.Errorf("generation %d: the open request got %d bytes", g, len(got))
		}
	}
	for g, done := range dones[:generations-1] {
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Errorf("generation %d does not end", g)
		}
	}
	c, _ := client3(t, ca, addr.String())
	res, err := c.Get("https://a.test/")
	if got := slurp(t, res, err); got != "ok" {
		t.Errorf("in the end got %q", got)
	}
}

// TestPosers: a field that a backend without an eye for hyphens takes for one of ours does not reach it, whatever the client speaks.
func TestPosers(t *testing.T) {
	ca := certtest.New(t)
	names := make(chan string, 100)
	f := start(t, Options{Listeners: []Listener{{Routes: anyRoute}, {Routes: anyRoute, TLS: secure(ca, "a.test"), HTTP3: true}}},
		webBackend(t, func(_ http.ResponseWriter, r *http.Request) {
			for name := range r.Header {
				if strings.Contains(name, "_") {
					names <- strings.ToLower(name)
				}
			}
			names <- r.Proto
		}))
	sent := []string{"content_length", "5", "transfer_encoding", "chunked", "x_forwarded_for", "6.6.6.6", "proxy_connection", "close", "x_other", "fine"}
	for version := 1; version <= 3; version++ {
		status := ""
		switch version {
		case 1:
			head := "GET / HTTP/1.1\r\nHost: a.test\r\n"
			for i := 0; i < len(sent); i += 2 {
				head += sent[i] + ": " + sent[i+1] + "\r\n"
			}
			w := dial(t, f.addr)
			w.send(head + "\r\n")
			status = fmt.Sprint(w.read("GET").StatusCode)
		case 2:
			w := dial2(t, f.addr)
			w.open(1, true, append(append([]string(nil), get2...), sent...)...)
			status = w.next()
		case 3:
			status = ask3(t, ca, f.Addrs3()[0].String(),
				append([]string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.test"}, sent...), "")
		}
		if status != "200" {
			t.Errorf("HTTP/%d: got %s", version, status)
			continue
		}
		for name := range names {
			if name == "HTTP/1.1" {
				break
			}
			if name != "x_other" {
				t.Errorf("HTTP/%d: %s reached the backend", version, name)
			}
		}
	}
}
