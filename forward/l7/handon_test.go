package l7

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"github.com/pharos-lb/pharos/forward/l7/route"
)

// The addresses of two sites, of the nodes (which connect from the loopback's own), and of a client.
var (
	siteA, siteB = netip.MustParseAddr("127.9.80.1"), netip.MustParseAddr("127.9.80.2")
	fleetNode    = netip.MustParseAddr("127.0.0.1")
	stranger     = netip.MustParseAddr("127.9.80.9")
)

// twoSites runs the same listener at both, which overflow to each other. Each has the backend that is given, or none.
func twoSites(t *testing.T, transport forward.Transport, listener func() Listener, backendA, backendB netip.AddrPort) (a, b *fixture) {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(siteB, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	l.Close()
	site := func(own, other netip.Addr, backend netip.AddrPort) *fixture {
		listen := listener()
		listen.Address, listen.Overflow = netip.AddrPortFrom(own, port), true
		f := startVia(t, transport, Options{Listeners: []Listener{listen}})
		web := forward.ServicePool{
			Service: "web", Transport: transport, Overflow: []netip.Addr{other}, Fleet: []netip.Addr{fleetNode},
			Members: []forward.Member{{Address: backend, Weight: 1, Active: backend.IsValid()}},
		}
		f.pools.mu.Lock()
		f.pools.version++
		f.pools.pools = []forward.ServicePool{web}
		f.pools.mu.Unlock()
		return f
	}
	return site(siteA, siteB, backendA), site(siteB, siteA, backendB)
}

// from is a client at an address.
func from(t *testing.T, address netip.Addr, config *tls.Config, http2 bool) *http.Client {
	t.Helper()
	c := client(t)
	transport := c.Transport.(*http.Transport)
	transport.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: address.AsSlice()}}).DialContext
	transport.TLSClientConfig, transport.ForceAttemptHTTP2 = config, http2
	return c
}

// webBackendOf is webBackend by a server of its own.
func webBackendOf(t testing.TB, server *http.Server) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// overflowed is how much of its work a site has handed on.
func (f *fixture) overflowed() uint64 {
	for _, q := range f.registry.Queues() {
		if q.Service == "web" {
			return q.Overflowed
		}
	}
	return 0
}

// TestHandOn: a request that a site has nobody for is served by the other one as if it had come there: routed and edited once, with
// the client's address and the id that it got first, whatever clients say; and nothing goes back.
func TestHandOn(t *testing.T) {
	ca := certtest.New(t)
	same := secure(ca, "a.test")
	for _, c := range []struct {
		name      string
		transport forward.Transport
		tls       bool
		accepts   []netip.Prefix // PROXY headers of
	}{
		{name: "plain"},
		{name: "TLS", tls: true},
		{name: "plain, HTTP/2 to backends", transport: forward.Transport{Protocol: forward.H2C}},
		{name: "TLS, HTTP/2 to backends", transport: forward.Transport{Protocol: forward.H2C}, tls: true},
		{name: "PROXY headers", accepts: []netip.Prefix{netip.PrefixFrom(fleetNode, 32)}},
		{name: "TLS and PROXY headers, HTTP/2 to backends", transport: forward.Transport{Protocol: forward.H2C}, tls: true, accepts: []netip.Prefix{netip.PrefixFrom(fleetNode, 32)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			listener := func() Listener {
				l := Listener{
					Routes: []Route{{
						Path: "/api", Service: "web", Rewrite: route.Rewrite{Prefix: "/api/api"},
						Request: route.Edit{Add: []route.Header{{Name: "X-Add", Value: "once"}}}, Response: route.Edit{Add: []route.Header{{Name: "X-Done", Value: "once"}}},
					}},
					Origin: Origin{RequestID: "X-Id"}, AcceptProxy: c.accepts,
				}
				if c.tls {
					l.TLS = same
				}
				return l
			}
			handler := func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				fmt.Fprintf(w, "%s %s %s for=%v add=%v id=%v hop=%v drop=%v %d", r.Method, r.Host, r.URL, r.Header["X-Forwarded-For"], r.Header["X-Add"],
					r.Header.Get("X-Id") == "" || len(r.Header["X-Id"]) > 1, r.Header["Pharos-Overflow"], r.Header["X-Drop"], len(body))
			}
			h2 := new(http.Protocols)
			h2.SetHTTP1(true)
			h2.SetUnencryptedHTTP2(true)
			backend := webBackendOf(t, &http.Server{Protocols: h2, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header()["X-Seen"] = r.Header["X-Id"]
				handler(w, r)
			})})
			a, b := twoSites(t, c.transport, listener, netip.AddrPort{}, backend)
			scheme := "http"
			config := &tls.Config{ServerName: "a.test", RootCAs: ca.Pool()}
			if c.tls {
				scheme = "https"
			}
			for _, http2 := range []bool{false, true} {
				if http2 && !c.tls {
					continue
				}
				caller := from(t, stranger, config, http2)
				for _, size := range []int{0, 100, 100_000} {
					r, err := http.NewRequest("POST", scheme+"://"+a.addr+"/api/x?y=1", bytes.NewReader(make([]byte, size)))
					if err != nil {
						t.Fatal(err)
					}
					r.Host = "a.test"
					r.Header.Set("X-Forwarded-For", "192.0.2.7")
					r.Header.Set("X-Id", "forged")
					if !http2 {
						r.Header.Set("X-Drop", "me")
						r.Header.Set("Connection", "x-drop")
					}
					answer, err := caller.Do(r)
					if err != nil {
						t.Fatal(err)
					}
					body, err := io.ReadAll(answer.Body)
					answer.Body.Close()
					want := fmt.Sprintf("POST a.test /api/api/x?y=1 for=[192.0.2.7, %s] add=[once] id=false hop=[] drop=[] %d", stranger, size)
					if err != nil || string(body) != want {
						t.Fatalf("got %q and %v, want %q", body, err, want)
					}
					if done := answer.Header["X-Done"]; len(done) != 1 {
						t.Errorf("the answer was edited %d times", len(done))
					}
					if id := answer.Header["X-Id"]; len(id) != 1 || len(id[0]) != 32 || answer.Header.Get("X-Seen") != id[0] {
						t.Errorf("the client was told the id %v, the backend %v", id, answer.Header["X-Seen"])
					}
				}
			}
			if n := a.overflowed(); n == 0 || b.overflowed() != 0 {
				t.Errorf("A has handed on %d, B %d", n, b.overflowed())
			}
			until(t, "nothing is carried any more", func() bool {
				return !slices.ContainsFunc(a.registry.Snapshot(), func(s forward.Status) bool { return s.InFlight != 0 })
			})
		})
	}
}

// TestHandOnOnce: what has been handed on is not handed on again, and a client that says so of itself only harms itself.
func TestHandOnOnce(t *testing.T) {
	listener := func() Listener { return Listener{Routes: anyRoute} }
	a, b := twoSites(t, forward.Transport{}, listener, netip.AddrPort{}, netip.AddrPort{})
	ask := func(f *fixture, at netip.Addr, header string) (int, string) {
		t.Helper()
		r, err := http.NewRequest("GET", "http://"+f.addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			r.Header.Set("Pharos-Overflow", header)
		}
		answer, err := from(t, at, nil, false).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
	if status, _ := ask(a, stranger, ""); status != 503 || a.overflowed() != 1 || b.overflowed() != 0 {
		t.Errorf("nobody is anywhere: got %d, handed on %d and %d, want 503, 1 and 0", status, a.overflowed(), b.overflowed())
	}
	for _, c := range []struct {
		at     netip.Addr
		header string
	}{{stranger, "192.0.2.1:80"}, {stranger, "nonsense"}, {fleetNode, ""}, {fleetNode, "nonsense"}} {
		if status, _ := ask(a, c.at, c.header); status != 503 || a.overflowed() != 1 {
			t.Errorf("from %s with %q: got %d, handed on %d", c.at, c.header, status, a.overflowed())
		}
	}
	// The word of strangers on who they are is nothing.
	tells := webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header["X-Forwarded-For"], r.Header["Pharos-Overflow"])
	})
	_, c := twoSites(t, forward.Transport{}, listener, netip.AddrPort{}, tells)
	for _, ask1 := range []struct {
		at           netip.Addr
		header, want string
	}{
		{stranger, "192.0.2.1:80", "[" + stranger.String() + "] []"},
		{fleetNode, "192.0.2.1:80", "[192.0.2.1] []"},
		{fleetNode, "[2001:db8::1]:80", "[2001:db8::1] []"},
		{fleetNode, "[::ffff:192.0.2.1]:80", "[192.0.2.1] []"},
		{fleetNode, "192.0.2.1", "[" + fleetNode.String() + "] []"},
		{fleetNode, strings.Repeat("1", 4000), "[" + fleetNode.String() + "] []"},
	} {
		if status, body := ask(c, ask1.at, ask1.header); status != 200 || body != ask1.want {
			t.Errorf("from %s with %.40q: got %d %q, want %q", ask1.at, ask1.header, status, body, ask1.want)
		}
	}
}

// TestHandOnVerifies: a node that has none of our keys, and no certificate that an authority vouches for, gets nothing.
func TestHandOnVerifies(t *testing.T) {
	first := true
	ca := certtest.New(t)
	listener := func() Listener {
		l := Listener{Routes: anyRoute, TLS: secure(ca, "a.test")}
		if !first {
			l.TLS = secure(certtest.New(t), "a.test")
		}
		first = false
		return l
	}
	backend := webBackend(t, func(http.ResponseWriter, *http.Request) { t.Error("a request has reached a stranger") })
	a, _ := twoSites(t, forward.Transport{}, listener, netip.AddrPort{}, backend)
	answer, err := from(t, stranger, &tls.Config{ServerName: "a.test", RootCAs: ca.Pool()}, false).Get("https://" + a.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 502 && answer.StatusCode != 503 {
		t.Errorf("got %d, want an error", answer.StatusCode)
	}
}

// TestHandOnUpgrade: a WebSocket goes through both sites, whatever the service's backends speak.
func TestHandOnUpgrade(t *testing.T) {
	accept := rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n%s ",
			websocketAccept([]byte(req.Header.Get("Sec-Websocket-Key"))), req.Header.Get("X-Forwarded-For"))
		io.Copy(c, r)
	})
	inner := start(t, Options{}, accept) // for those who speak HTTP/2 to it
	for name, transport := range map[string]forward.Transport{"http": {}, "h2c": {Protocol: forward.H2C}} {
		t.Run(name, func(t *testing.T) {
			backend := accept
			if transport.Shared() {
				backend = inner.Addrs()[0]
			}
			a, _ := twoSites(t, transport, func() Listener { return Listener{Routes: anyRoute} }, netip.AddrPort{}, backend)
			c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: stranger.AsSlice()}}).Dial("tcp", a.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\necho")
			r := bufio.NewReader(c)
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != 101 || res.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
				t.Fatalf("got %d %v", res.StatusCode, res.Header)
			}
			c.(*net.TCPConn).CloseWrite()
			got, err := io.ReadAll(r)
			want := stranger.String() + " echo"
			if transport.Shared() { // one hop more
				want = stranger.String() + ", 127.0.0.1 echo"
			}
			if err != nil || string(got) != want {
				t.Errorf("got %q and %v, want %q", got, err, want)
			}
			if a.overflowed() != 1 {
				t.Errorf("handed on %d", a.overflowed())
			}
		})
	}
}
