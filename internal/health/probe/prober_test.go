package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// serve answers each connection on a loopback port with handle until the test
// ends.
func serve(t *testing.T, handle func(c net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handle(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return netip.MustParseAddrPort(l.Addr().String())
}

// answer reads a request and writes s.
func answer(s string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, s)
		}
	}
}

// hang writes s after the request and then waits until the other side closes.
func hang(s string) func(net.Conn) {
	return func(c net.Conn) {
		answer(s)(c)
		io.Copy(io.Discard, c)
	}
}

// run probes once as a Runner would; again if this machine was too slow to.
func run(t *testing.T, p *prober, c Check) Result {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	c.Every = 10 * time.Second
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	c = c.WithDefaults()
	for tries := 1; ; tries++ { // a machine at its limits makes probes doubt themselves
		ctx, cancel := context.WithTimeout(t.Context(), c.Timeout)
		r := p.probe(ctx, c)
		cancel()
		if tries == 3 || !strings.Contains(r.Err, "this node was too slow") {
			return r
		}
	}
}

func TestProbe(t *testing.T) {
	big := strings.Repeat("x", maxHeaderBytes)
	short := 60 * time.Millisecond
	for _, tt := range []struct {
		name   string
		handle func(net.Conn)
		check  Check
		code   int
		want   string // the error; a prefix if it ends in "…"
	}{
		{"tcp", func(net.Conn) {}, Check{Kind: TCP}, 0, ""},
		{"ok", answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), Check{}, 200, ""},
		{"a redirect is an answer, not followed", answer("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"), Check{}, 302, ""},
		{"wrong status", answer("HTTP/1.1 503 Service Unavailable\r\n\r\n"), Check{}, 503, "status 503, want 200-399"},
		{"own ranges", answer("HTTP/1.1 404 Not Found\r\n\r\n"), Check{Status: []StatusRange{{200, 299}, {404, 404}}}, 404, ""},
		{"outside own ranges", answer("HTTP/1.1 500 Oops\r\n\r\n"), Check{Status: []StatusRange{{200, 299}, {404, 404}}}, 500, "status 500, want 200-299 or 404"},
		{"interim answers", answer("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), Check{}, 200, ""},
		{"endless interim answers", answer(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 9)), Check{}, 0, "more than 4 interim answers"},
		{"body", answer("HTTP/1.1 200 OK\r\n\r\nall is well"), Check{Body: "is well"}, 200, ""},
		{"chunked body", answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n8\r\n is well\r\n0\r\n\r\n"), Check{Body: "l is w"}, 200, ""},
		{"body found before it ends", hang("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nall is well"), Check{Body: "well"}, 200, ""},
		{"body without it", answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"), Check{Body: "well"}, 200, `body does not contain "well"`},
		{"body has it too late", answer("HTTP/1.1 200 OK\r\n\r\n" + big + "well"), Check{Body: "well"}, 200, `body does not contain "well" in its first 64 KiB`},
		{"body at the very end of what is read", answer("HTTP/1.1 200 OK\r\n\r\n" + big[4:] + "well"), Check{Body: "well"}, 200, ""},
		{"body cut off", answer("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc"), Check{Body: "well"}, 200, "connection closed reading the body"},
		{"HEAD", answer("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"), Check{Method: "HEAD"}, 200, ""},
		{"accepts and hangs", hang(""), Check{Timeout: short}, 0, "timeout after 60ms waiting for headers"},
		{"status line cut off", hang("HTT"), Check{Timeout: short}, 0, "timeout after 60ms waiting for headers"},
		{"slow headers", hang("HTTP/1.1 200 OK\r\nX: y\r\n"), Check{Timeout: short}, 0, "timeout after 60ms waiting for headers"},
		{"slow body", hang("HTTP/1.1 200 OK\r\n\r\nwe"), Check{Timeout: short, Body: "well"}, 200, "timeout after 60ms reading the body"},
		{"closes at once", answer(""), Check{}, 0, "connection closed waiting for headers"},
		{"resets", func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			c.(*net.TCPConn).SetLinger(0)
		}, Check{}, 0, "connection reset waiting for headers"},
		{"huge header", answer("HTTP/1.1 200 OK\r\nX: " + big + "\r\n\r\n"), Check{}, 0, "headers larger than 64 KiB"},
		{"endless status line", answer(big + big), Check{}, 0, "headers larger than 64 KiB"},
		{"not http", answer("220 mail.example.com ESMTP\r\n"), Check{}, 0, "not HTTP: malformed HTTP…"},
		{"garbage", answer("\x00\xff\x1b[2J\r\n\r\n"), Check{}, 0, "not HTTP: …"},
		{"https to plain http", answer("HTTP/1.1 400 Bad Request\r\n\r\n"), Check{Kind: HTTPS}, 0, "…"},
		{"https hangs", func(c net.Conn) { io.Copy(io.Discard, c) }, Check{Kind: HTTPS, Timeout: short}, 0, "timeout after 60ms in the TLS handshake"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.check
			c.Target = health.Target{Kind: health.KindBackend, Service: "web", Site: "fra", Addr: serve(t, tt.handle)}
			if c.Kind == 0 {
				c.Kind = HTTP
			}
			got := run(t, &prober{}, c)
			start, isPrefix := strings.CutSuffix(tt.want, "…")
			fits := got.Err == tt.want || isPrefix && got.Err != "" && strings.HasPrefix(got.Err, start)
			if got.Code != tt.code || !fits || got.Inconclusive || got.OK() != (tt.want == "") {
				t.Errorf("got %+v, want code %d and error %q", got, tt.code, tt.want)
			}
			if len(got.Err) > maxErrLen+len("…") || strings.ContainsAny(got.Err, "\x00\x1b\r\n") {
				t.Errorf("error not fit for a line: %q", got.Err)
			}
		})
	}
}

func TestProbeRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	if got := run(t, &prober{}, Check{Target: target(addr)}); got.Err != "connect refused" || got.Inconclusive {
		t.Errorf("got %+v", got)
	}
}

// TestFindAcrossReads: what is sought may arrive in pieces.
func TestFindAcrossReads(t *testing.T) {
	for want, found := range map[string]bool{"is well": true, "a": true, "well.": true, "is ill": false, "well..": false} {
		err := find(iotest.OneByteReader(strings.NewReader("all is well.")), []byte(want))
		if (err == nil) != found {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// TestProbeRequest: what is sent is exactly what the check says.
func TestProbeRequest(t *testing.T) {
	got := make(chan string, 1)
	addr := serve(t, func(c net.Conn) {
		var b strings.Builder
		r := bufio.NewReader(c)
		for {
			line, err := r.ReadString('\n')
			b.WriteString(line)
			if err != nil || line == "\r\n" {
				break
			}
		}
		got <- b.String()
		io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	at := health.Target{Kind: health.KindVIP, Service: "web", Site: "fra", Addr: addr}
	for _, tt := range []struct {
		name  string
		check Check
		want  string
	}{
		{"defaults", Check{}, "GET / HTTP/1.1\r\nHost: " + addr.String() + "\r\nUser-Agent: pharos-check/1\r\nConnection: close\r\n\r\n"},
		{"everything", Check{Method: "HEAD", Path: "/h?q=1", Host: "www.example.com", Headers: []Header{{"X-A", "b"}, {"user-agent", "me"}}}, "HEAD /h?q=1 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: me\r\nConnection: close\r\nX-A: b\r\n\r\n"},
	} {
		tt.check.Target, tt.check.Kind = at, HTTP
		if r := run(t, &prober{}, tt.check); !r.OK() {
			t.Fatalf("%s: %+v", tt.name, r)
		}
		if sent := <-got; sent != tt.want {
			t.Errorf("%s: sent %q, want %q", tt.name, sent, tt.want)
		}
	}
}

// TestProbeIgnoresProxies: a proxy in the environment is for users, not checks.
func TestProbeIgnoresProxies(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	addr := serve(t, answer("HTTP/1.1 200 OK\r\n\r\n"))
	if got := run(t, &prober{}, Check{Target: target(addr.String()), Kind: HTTP}); !got.OK() {
		t.Errorf("got %+v", got)
	}
}

func TestProbeTLS(t *testing.T) {
	names := make(chan string, 9)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		names <- h.ServerName
		return nil, nil
	}}
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate()) // for example.com and 127.0.0.1
	none := x509.NewCertPool()
	at := target(server.Listener.Addr().String())
	for _, tt := range []struct {
		name  string
		roots *x509.CertPool
		check Check
		want  string
		sni   string
	}{
		{"by address", roots, Check{}, "", ""},
		{"by name", roots, Check{SNI: "example.com"}, "", "example.com"},
		{"the name follows the host", roots, Check{Host: "example.com:443"}, "", "example.com"},
		{"wrong name", roots, Check{SNI: "example.org"}, "certificate: not valid for example.org", "example.org"},
		{"unknown authority", none, Check{}, "certificate: signed by an unknown authority", ""},
		{"insecure", none, Check{Insecure: true, SNI: "example.org"}, "", "example.org"},
		{"http/1.1 it is", roots, Check{Body: "HTTP/1.1"}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.check.Target, tt.check.Kind = at, HTTPS
			got := run(t, &prober{roots: tt.roots}, tt.check)
			if got.Err != tt.want {
				t.Errorf("got %+v, want %q", got, tt.want)
			}
			if sni := <-names; sni != tt.sni {
				t.Errorf("asked for %q, want %q", sni, tt.sni)
			}
		})
	}
}

// TestProbeSource: the source address is used, and one that is not ours says
// nothing about the target.
func TestProbeSource(t *testing.T) {
	from := make(chan string, 1)
	addr := serve(t, func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		from <- c.RemoteAddr().(*net.TCPAddr).IP.String()
		_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	for _, tt := range []struct {
		name, source, want string
	}{
		{"ours", "127.0.0.9", "127.0.0.9"},
		{"of the other family: not used", "::1", "127.0.0.1"},
		{"none", "", "127.0.0.1"},
	} {
		source, _ := netip.ParseAddr(tt.source)
		p := &prober{source: func(health.Target) netip.Addr { return source }}
		if got := run(t, p, Check{Target: target(addr.String()), Kind: HTTP}); !got.OK() {
			t.Fatalf("%s: %+v", tt.name, got)
		}
		if got := <-from; got != tt.want {
			t.Errorf("%s: came from %s, want %s", tt.name, got, tt.want)
		}
	}
	p := &prober{source: func(health.Target) netip.Addr { return netip.MustParseAddr("192.0.2.1") }}
	got := run(t, p, Check{Target: target(addr.String()), Kind: HTTP})
	if !got.Inconclusive || !strings.HasPrefix(got.Err, "cannot probe: ") {
		t.Errorf("a foreign source address: %+v", got)
	}
}

// TestProbeEndsWithItsContext: cancelling ends a probe in the middle.
func TestProbeEndsWithItsContext(t *testing.T) {
	asked := make(chan struct{}, 1)
	addr := serve(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		asked <- struct{}{}
		io.Copy(io.Discard, c)
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan Result)
	go func() {
		done <- (&prober{}).probe(ctx, Check{Target: target(addr.String()), Kind: HTTP}.WithDefaults())
	}()
	<-asked
	cancel()
	select {
	case r := <-done:
		if r.OK() {
			t.Error("a cancelled probe succeeded")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("did not end")
	}
}
