package l7

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/accesslog"
	"github.com/pharos-lb/pharos/forward/proxyproto"
	"github.com/prometheus/client_golang/prometheus"
)

// holding answers a request only when told to.
func holding(t testing.TB) (backend netip.AddrPort, came, release chan struct{}) {
	came, release = make(chan struct{}, 16), make(chan struct{})
	return rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		for {
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == "\r\n" {
					break
				}
			}
			came <- struct{}{}
			<-release
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}), came, release
}

func TestHeadLimits(t *testing.T) {
	f := start(t, Options{Listeners: []Listener{{Routes: anyRoute, Limits: Limits{HeaderBytes: 400, HeaderFields: 5, URI: 100, Body: 10}}}}, echoHead(t))
	for _, tt := range []struct {
		name, head string
		status     int
		reason     string
	}{
		{"fine", "GET /x HTTP/1.1\nHost: a", 200, ""},
		{"uri", "GET /" + strings.Repeat("x", 100) + " HTTP/1.1\nHost: a", 414, "uri"},
		{"fields", "GET / HTTP/1.1\nHost: a\nA: 1\nB: 1\nC: 1\nD: 1\nE: 1", 431, "header"},
		{"bytes", "GET / HTTP/1.1\nHost: a\nA: " + strings.Repeat("x", 400), 431, "header"},
		{"body", "POST / HTTP/1.1\nHost: a\nContent-Length: 11", 413, "body"},
	} {
		before := f.Stats().Refusals[tt.reason]
		if got := f.ask(t, tt.head).StatusCode; got != tt.status {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.status)
		}
		if got := f.Stats().Refusals[tt.reason]; tt.reason != "" && got != before+1 {
			t.Errorf("%s: counted %d as %s, want 1", tt.name, got-before, tt.reason)
		}
	}
	f = start(t, Options{Listeners: []Listener{{Routes: anyRoute, Limits: Limits{Body: 10}}}}, webBackend(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // one that answers before is faster than the limit
	}))
	w := dial(t, f.addr)
	w.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n6\r\nabcdef\r\n")
	if got := w.read("POST").StatusCode; got != 413 {
		t.Errorf("chunked body: got %d, want 413", got)
	}
	w.wantEnd()
	if _, err := New(Options{Registry: f.registry, Listeners: []Listener{{Routes: anyRoute, Limits: Limits{HeaderBytes: 1 << 20}}}}); err == nil {
		t.Error("a header of 1 MiB was allowed")
	}
}

// inWork is how many requests the listeners count.
func (g *gates) inWork() (n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.all {
		n += one.requests.Load()
	}
	return n
}

func TestRequestLimits(t *testing.T) {
	backend, came, release := holding(t)
	f := start(t, Options{Listeners: []Listener{{
		Routes: []Route{
			{Path: "/few", Service: "web", Extra: &Extra{Limits: RouteLimits{Requests: 1}}},
			{Service: "web"},
		},
		Limits: Limits{Requests: 2},
	}}}, backend)
	a := dial(t, f.addr)
	a.send("GET /few HTTP/1.1\r\nHost: a\r\n\r\n")
	<-came
	refused := f.ask(t, "GET /few HTTP/1.1\nHost: a")
	if refused.StatusCode != 503 || refused.Header.Get("Retry-After") != "1" || f.Stats().Refusals["route_requests"] != 1 {
		t.Errorf("route: got %d %v", refused.StatusCode, refused.Header)
	}
	inWork := func(n int64) func() bool { return func() bool { return f.Server.gates.inWork() == n } }
	until(t, "the refused one is out", inWork(1)) // which is after its answer
	b := dial(t, f.addr)
	b.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-came
	if got := f.ask(t, "GET / HTTP/1.1\nHost: a"); got.StatusCode != 503 || f.Stats().Refusals["requests"] != 1 {
		t.Errorf("listener: got %d, %v", got.StatusCode, f.Stats().Refusals)
	}
	close(release)
	for _, w := range []*wire{a, b} {
		if got := w.read("GET").StatusCode; got != 200 {
			t.Errorf("got %d, want 200", got)
		}
	}
	until(t, "all are out", inWork(0))
	if got := f.ask(t, "GET /few HTTP/1.1\nHost: a").StatusCode; got != 200 {
		t.Errorf("afterwards: got %d, want 200", got)
	}
}

func TestClientLimits(t *testing.T) {
	f := start(t, Options{Listeners: []Listener{{
		Routes: anyRoute, Limits: Limits{ClientRequests: 3, ClientConnections: 2},
		Origin: Origin{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}},
	}}}, echoHead(t))
	w := dial(t, f.addr)
	ask := func(client string) int {
		t.Helper()
		w.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: " + client + "\r\n\r\n")
		return w.read("GET").StatusCode
	}
	refused := 0
	for range 5 {
		if ask("192.0.2.1") == 429 {
			refused++
		}
	}
	if refused == 0 || refused > 2 || f.Stats().Refusals["client_requests"] != uint64(refused) {
		t.Errorf("%d of 5 refused, %v", refused, f.Stats().Refusals)
	}
	if got := ask("192.0.2.2"); got != 200 {
		t.Errorf("another client: got %d", got)
	}
	second := dial(t, f.addr)
	second.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.3\r\n\r\n")
	second.read("GET")
	// served reports whether a new connection is.
	served := func() bool {
		c, err := net.Dial("tcp", f.addr)
		if err != nil {
			return false // the reset may come that soon
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		n, _ := c.Read(make([]byte, 1))
		return n == 1
	}
	if served() {
		t.Error("a third connection was served")
	}
	if got := f.Stats().Refusals["client_connections"]; got != 1 {
		t.Errorf("client_connections: %d, want 1", got)
	}
	second.Close()
	until(t, "a connection is free again", served)
}

// TestGateOutlivesReload: a reload forgives nobody.
func TestGateOutlivesReload(t *testing.T) {
	f := start(t, Options{Listeners: []Listener{{Routes: anyRoute, Limits: Limits{ClientRequests: 1}}}}, echoHead(t))
	address := f.Addrs()[0]
	f.ask(t, "GET / HTTP/1.1\nHost: a")
	for i, want := range []int{200, 429} { // port 0 makes the first reload a new listener to the gate
		change, err := f.Prepare([]Listener{{Address: address, Routes: anyRoute, Limits: Limits{ClientRequests: 1}}})
		if err != nil {
			t.Fatal(err)
		}
		change.Commit()
		if got := f.ask(t, "GET / HTTP/1.1\nHost: a").StatusCode; got != want {
			t.Errorf("after reload %d: got %d, want %d", i+1, got, want)
		}
	}
}

// TestGatesAreThoseInForce: a change that is not made changes no count, and a listener that is gone leaves none.
func TestGatesAreThoseInForce(t *testing.T) {
	f := start(t, Options{Listeners: []Listener{{Routes: anyRoute}}}, echoHead(t))
	listener := Listener{Address: f.Addrs()[0], Routes: anyRoute, Limits: Limits{ClientRequests: 1}}
	prepare := func(l ...Listener) *Change {
		t.Helper()
		change, err := f.Prepare(l)
		if err != nil {
			t.Fatal(err)
		}
		return change
	}
	prepare(listener).Commit()
	f.ask(t, "GET / HTTP/1.1\nHost: a")
	looser := listener
	looser.Limits.ClientRequests = 100
	prepare(looser).Discard()
	prepare(listener).Commit()
	if got := f.ask(t, "GET / HTTP/1.1\nHost: a").StatusCode; got != 429 {
		t.Errorf("a change that was discarded forgave a client: got %d", got)
	}
	prepare().Commit()
	if n := len(f.Server.gates.all); n != 0 {
		t.Errorf("%d gates are kept of listeners that are gone", n)
	}
}

// TestBackendComesBack: one that has left the plan and comes back is one series.
func TestBackendComesBack(t *testing.T) {
	backend := echoHead(t)
	metrics := prometheus.NewRegistry()
	f := start(t, Options{Registerer: metrics}, backend)
	for range 3 {
		f.ask(t, "GET / HTTP/1.1\nHost: a")
		until(t, "released", func() bool { return f.registry.Snapshot()[1].InFlight == 0 })
		f.pools.publish()
		f.registry.Load()
		f.pools.publish(backend)
	}
	f.ask(t, "GET / HTTP/1.1\nHost: a")
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "pharos_l7_backend_duration_seconds" && len(family.GetMetric()) == 1 {
			return
		}
	}
	t.Error("there is not one series of the backend")
}

func TestAcceptProxy(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	f := start(t, Options{
		HeaderTimeout: 200 * time.Millisecond,
		Listeners:     []Listener{{Routes: anyRoute, AcceptProxy: loopback}, {Routes: anyRoute}},
	}, echoHead(t))
	source, destination := netip.MustParseAddrPort("192.0.2.9:4444"), netip.MustParseAddrPort("198.51.100.1:443")
	v2 := proxyproto.AppendBinary(nil, source, destination, nil, true)
	const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, header := range map[string]string{
		"v1": "PROXY TCP4 192.0.2.9 198.51.100.1 4444 443\r\n", "v2": string(v2),
	} {
		for _, cut := range []int{0, 1, len(header) / 2, len(header) - 1} {
			w := dial(t, f.addr)
			w.SetNoDelay(true)
			w.send(header[:cut])
			w.send(header[cut:] + request)
			a := w.read("GET")
			for _, want := range []string{"X-Forwarded-For: 192.0.2.9", "X-Forwarded-Port: 443"} {
				if !strings.Contains(a.body, want) {
					t.Errorf("%s, cut at %d: %q is missing in\n%s", name, cut, want, a.body)
				}
			}
		}
	}
	for name, sent := range map[string]string{"none": request, "bad": "PROXY TCP4 x y 1 2\r\n" + request} {
		w := dial(t, f.addr)
		w.Write([]byte(sent))
		if _, err := w.r.ReadByte(); err == nil {
			t.Errorf("%s: served", name)
		}
	}
	w := dial(t, f.addr)
	w.send("PROXY TCP4 ")
	w.r.ReadByte()
	s := f.Stats().Refusals
	if s["proxy_invalid"] != 2 || s["proxy_timeout"] != 1 {
		t.Errorf("got %v", s)
	}
	plain := dial(t, f.Addrs()[1].String())
	plain.send("PROXY TCP4 192.0.2.9 198.51.100.1 4444 443\r\n" + request)
	if got := plain.read("GET").StatusCode; got != 400 {
		t.Errorf("a PROXY header from anybody: got %d, want 400", got)
	}
}

func TestAccessLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.log")
	listener := Listener{
		Routes:    []Route{{Name: "api", Path: "/api", Service: "web"}, {Path: "/down", Service: "down"}},
		AccessLog: &AccessLog{File: file},
		Origin:    Origin{RequestID: "X-Id"},
	}
	f := start(t, Options{Listeners: []Listener{listener}}, echoHead(t))
	head := "GET /api/x?secret=1 HTTP/1.1\nHost: a.test\nUser-Agent: me\nReferer: http://b/?token=2\nCookie: c=3\nAuthorization: Basic 4"
	id := f.ask(t, head).Header.Get("X-Id")
	f.ask(t, "GET /down HTTP/1.1\nHost: a")
	f.ask(t, "GET /none HTTP/1.1\nHost: a")
	f.ask(t, "BAD\nHost: a")
	listener.Address = f.Addrs()[0]
	sampled := listener
	sampled.AccessLog = &AccessLog{File: file, Sample: 1e-9, Query: true, Format: accesslog.Combined}
	change, err := f.Prepare([]Listener{sampled})
	if err != nil {
		t.Fatal(err)
	}
	change.Commit()
	f.ask(t, head) // not drawn
	f.ask(t, "GET /down?q HTTP/1.1\nHost: a")
	f.stop()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) != 5 {
		t.Fatalf("got %d lines, want 5:\n%s", len(lines), data)
	}
	slices.SortStableFunc(lines, func(a, b string) int { // each is written once its request is over, which others need not wait for
		return cmp.Compare(strings.Index(b, "/api/x"), strings.Index(a, "/api/x"))
	})
	var first map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"client": "127.0.0.1", "method": "GET", "path": "/api/x", "host": "a.test", "status": 200.0, "route": "api",
		"service": "web", "user_agent": "me", "referer": "http://b/", "request_id": id, "listener": "127.0.0.1:0",
	} {
		if first[key] != want {
			t.Errorf("%s: got %v, want %v", key, first[key], want)
		}
	}
	for _, secret := range []string{"secret", "token", "c=3", "Basic"} {
		if strings.Contains(lines[0], secret) {
			t.Errorf("%q is in %s", secret, lines[0])
		}
	}
	for _, want := range []string{`"status":503`, `"status":404`, `"status":400`, `"GET /down?q HTTP/1.1" 503`} {
		if strings.Count(string(data), want) != 1 {
			t.Errorf("%q is not once in\n%s", want, data)
		}
	}
}

// TestAccessLogOfTheRefused: what was refused before it was understood is written as it came, without its query unless that is asked for.
func TestAccessLogOfTheRefused(t *testing.T) {
	dir := t.TempDir()
	shy, frank := filepath.Join(dir, "shy"), filepath.Join(dir, "frank")
	f := start(t, Options{Listeners: []Listener{
		{Routes: anyRoute, AccessLog: &AccessLog{File: shy, Format: accesslog.Combined}, Times: Times{Header: 300 * time.Millisecond}},
		{Routes: anyRoute, AccessLog: &AccessLog{File: frank, Format: accesslog.Combined, Query: true}, Times: Times{Header: 300 * time.Millisecond}},
	}}, echoHead(t))
	long := strings.Repeat("a", 2*maxLoggedLine)
	tests := []struct{ send, shy, frank string }{
		{"GARBAGE\r\n\r\n", `"GARBAGE" 400`, ""},
		{"\x16\x03\x01\n\n", `"\x16\x03\x01" 400`, ""},
		{"GET /host HTTP/1.1\r\n\r\n", `"GET /host HTTP/1.1" 400`, ""},
		{"GET /field HTTP/1.0\r\nx y: z\r\n\r\n", `"GET /field HTTP/1.0" 400`, ""},
		{"GET /version HTTP/2.5\r\n\r\n", `"GET /version HTTP/2.5" 505`, ""},
		{"GET /q?secret=1 HTTP/1.1\r\n\r\n", `"GET /q HTTP/1.1" 400`, `"GET /q?secret=1 HTTP/1.1" 400`},
		{"GET /odd?a secret HTTP/1.1\r\nHost: a\r\n\r\n", `"GET /odd HTTP/1.1" 400`, `"GET /odd?a secret HTTP/1.1" 400`},
		{"GET /none?a secret\r\nHost: a\r\n\r\n", `"GET /none" 400`, `"GET /none?a secret" 400`},
		{"GET /late?secret", `"GET /late" 408`, `"GET /late?secret" 408`},
		{"\r\n", `"-" 400`, ""},
		{"GET /" + long + "\x00 HTTP/1.1\r\nHost: a\r\n\r\n", `"GET /` + long[:maxLoggedLine-5] + `" 400`, ""},
		{"GET /first HTTP/1.1\r\nHost: a\r\n\r\nSECOND\r\n\r\n", `"SECOND" 400`, ""},
	}
	for i, addr := range f.Addrs() {
		for _, tt := range tests {
			c := dial(t, addr.String())
			c.send(tt.send)
			if all, err := io.ReadAll(c.r); err != nil || len(all) == 0 {
				t.Errorf("%d, %q: got %q, %v", i, tt.send, all, err)
			}
		}
	}
	f.stop()
	for i, file := range []string{shy, frank} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range tests {
			want := tt.shy
			if i == 1 && tt.frank != "" {
				want = tt.frank
			}
			if strings.Count(string(data), "] "+want) != 1 {
				t.Errorf("%s is not once in\n%s", want, data)
			}
		}
	}
}

// TestMetersAreBounded: however many routes there are, so many are counted by name.
func TestMetersAreBounded(t *testing.T) {
	var m meters
	for i := range 3 * maxMeters {
		m.route(fmt.Sprint(i))
	}
	if len(m.routes) != maxMeters+1 || m.route("x") != m.routes[otherName] {
		t.Errorf("%d routes are counted by name", len(m.routes))
	}
	for range 3 * maxMeters {
		m.backend(new(forward.Backend))
	}
	if n := m.known.Load(); n != maxMeters {
		t.Errorf("%d backends are counted by name", n)
	}
}

// TestMetersCount: a route's meter counts what its requests were, and nothing stays in work.
func TestMetersCount(t *testing.T) {
	f := start(t, Options{Listeners: []Listener{{Routes: []Route{{Name: "all", Service: "web"}, {Path: "/down", Name: "bad", Service: "down"}}}}}, echoHead(t))
	w := dial(t, f.addr)
	w.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
	w.send("hello")
	w.read("POST")
	f.ask(t, "GET /down HTTP/1.1\nHost: a")
	w.Close()
	all, bad := f.meters.route("all"), f.meters.route("bad")
	until(t, "requests are over", func() bool { return all.inFlight.Load() == 0 && bad.inFlight.Load() == 0 })
	if all.classes[2].Load() != 1 || bad.classes[5].Load() != 1 || all.up.Load() != 5 || all.down.Load() == 0 {
		t.Errorf("got %d 2xx, %d 5xx, %d up, %d down", all.classes[2].Load(), bad.classes[5].Load(), all.up.Load(), all.down.Load())
	}
	if n, sum, _ := all.histogram(); n != 1 || sum <= 0 {
		t.Errorf("histogram: %d, %v", n, sum)
	}
}

// TestRequestTime: a request that takes too long ends, before its answer with 504, in it with
// a cut; one that is in time, and an upgraded connection, do not.
func TestRequestTime(t *testing.T) {
	backend := rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			switch req.URL.Path {
			case "/silent":
				io.Copy(io.Discard, r)
				return
			case "/drips":
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
				for {
					if _, err := fmt.Fprint(c, "x"); err != nil {
						return
					}
					time.Sleep(5 * time.Millisecond) // what it is: slow
				}
			case "/socket":
				fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				io.Copy(c, r)
				return
			default:
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}
	})
	f := start(t, Options{Listeners: []Listener{{Routes: anyRoute, Times: Times{Request: 300 * time.Millisecond}}}}, backend)
	socket := dial(t, f.addr)
	socket.send("GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	socket.read("GET")
	if got := f.ask(t, "GET /fine HTTP/1.1\nHost: a").StatusCode; got != 200 {
		t.Errorf("in time: got %d", got)
	}
	began := time.Now()
	if got := f.ask(t, "GET /silent HTTP/1.1\nHost: a").StatusCode; got != 504 || time.Since(began) < 200*time.Millisecond {
		t.Errorf("silent: got %d after %s", got, time.Since(began))
	}
	w := dial(t, f.addr)
	w.send("GET /drips HTTP/1.1\r\nHost: a\r\n\r\n")
	res, err := http.ReadResponse(w.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Errorf("drips: got a whole answer of %d bytes", n)
	}
	until(t, "both are counted", func() bool { return f.Stats().Refusals["request_time"] == 2 })
	socket.send("still here")
	var echo [10]byte
	if _, err := io.ReadFull(socket.r, echo[:]); err != nil || string(echo[:]) != "still here" {
		t.Errorf("the upgraded connection: got %q, %v", echo, err)
	}
}

// Whoever is sent away because all backends are busy is told to come again; who finds none is not, since nobody knows when.
func TestLimitedMayTryAgain(t *testing.T) {
	for err, retry := range map[error]int{forward.ErrFull: 1, forward.ErrLineFull: 1, forward.ErrLineWaits: 1, forward.ErrLineStays: 1, forward.ErrNoBackend: 0} {
		if f := unavailable("web", fmt.Errorf("x: %w", err)); f.status != 503 || f.retry != retry {
			t.Errorf("%v: %d, retry %d, want 503, retry %d", err, f.status, f.retry, retry)
		}
	}
}
