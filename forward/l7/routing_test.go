package l7

import (
	"bufio"
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

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/route"
)

// echoHead answers with the head that it got, sorted, and headers of its own.
func echoHead(t testing.TB) netip.AddrPort {
	return rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		for {
			var lines []string
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line = strings.TrimRight(line, "\r\n"); line == "" {
					break
				}
				lines = append(lines, line)
			}
			slices.Sort(lines[1:])
			body := strings.Join(lines, "\n")
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nServer: backend\r\nX-Secret: 1\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	})
}

// ask sends one request on a new connection.
func (f *fixture) ask(t testing.TB, head string) answer {
	t.Helper()
	w := dial(t, f.addr)
	w.send(strings.ReplaceAll(head, "\n", "\r\n") + "\r\n\r\n")
	method, _, _ := strings.Cut(head, " ")
	return w.read(method)
}

func TestActions(t *testing.T) {
	f := start(t, Options{Listeners: []Listener{{Routes: []Route{
		{Path: "/old", Redirect: &route.Redirect{Status: 308, Prefix: "/new"}},
		{Host: "plain.test", Redirect: &route.Redirect{Scheme: "https"}},
		{Host: "www.test", Redirect: &route.Redirect{Host: "test", Status: 301, DropQuery: true}},
		{Path: "/robots.txt", Exact: true, Respond: &route.Response{Status: 200, Body: "User-agent: *\n"}},
		{Path: "/gone", Respond: &route.Response{Status: 204}},
		{Path: "/api", Service: "web", Rewrite: route.Rewrite{Host: "api.internal:81", Prefix: "/v2"}},
		{Pattern: "/u/([^/]+)/?(.*)", Service: "web", Rewrite: route.Rewrite{Path: "/users/$2/$1"}},
		{
			Path: "/headers", Service: "web",
			Request:  route.Edit{Set: []route.Header{{Name: "X-Set", Value: "new"}}, Add: []route.Header{{Name: "X-Add", Value: "1"}}, Remove: []string{"x-bad"}},
			Response: route.Edit{Set: []route.Header{{Name: "Server", Value: "edge"}}, Remove: []string{"X-Secret"}},
		},
		{Service: "web"},
	}}}}, echoHead(t))
	redirects := []struct{ head, status, location string }{
		{"GET /old/x?q=1 HTTP/1.1\nHost: a.test:8080", "308", "http://a.test:8080/new/x?q=1"},
		{"GET /x HTTP/1.1\nHost: plain.test:8080", "302", "https://plain.test/x"},
		{"GET //x%2F?a HTTP/1.1\nHost: www.test", "301", "http://test//x%2F"},
	}
	for _, tt := range redirects {
		a := f.ask(t, tt.head)
		if got := a.Header.Get("Location"); fmt.Sprint(a.StatusCode) != tt.status || got != tt.location {
			t.Errorf("%s: got %d %s, want %s %s", tt.head, a.StatusCode, got, tt.status, tt.location)
		}
	}
	if a := f.ask(t, "GET /robots.txt HTTP/1.1\nHost: a"); a.StatusCode != 200 || a.body != "User-agent: *\n" {
		t.Errorf("respond: got %d %q", a.StatusCode, a.body)
	}
	if a := f.ask(t, "GET /gone HTTP/1.1\nHost: a"); a.StatusCode != 204 || a.ContentLength > 0 || a.Header.Get("Content-Type") != "" {
		t.Errorf("respond without a body: got %v", a.Header)
	}
	rewrites := []struct{ target, want string }{
		{"/api/x?y", "GET /v2/x?y HTTP/1.1"},
		{"/u/12/a/b", "GET /users/a/b/12 HTTP/1.1"},
		{"/x//y%41", "GET /x//y%41 HTTP/1.1"},
	}
	for _, tt := range rewrites {
		line, _, _ := strings.Cut(f.ask(t, "GET "+tt.target+" HTTP/1.1\nHost: a").body, "\n")
		if line != tt.want {
			t.Errorf("%s: got %q, want %q", tt.target, line, tt.want)
		}
	}
	if a := f.ask(t, "GET /u/12/.%2e HTTP/1.1\nHost: a"); a.StatusCode != 400 {
		t.Errorf("dot segment: got %d", a.StatusCode)
	}
	if a := f.ask(t, "GET /u/.../ HTTP/1.1\nHost: a"); a.StatusCode != 200 {
		t.Errorf("three dots: got %d", a.StatusCode)
	}
	a := f.ask(t, "GET /api HTTP/1.1\nHost: a:1\nX-Forwarded-Host: evil")
	for _, want := range []string{"Host: api.internal:81", "X-Forwarded-Host: a:1"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("rewritten host: %q is missing in\n%s", want, a.body)
		}
	}
	a = f.ask(t, "GET /headers HTTP/1.1\nHost: a\nx-set: old\nX-Bad: 1\nX-Add: 0")
	for _, want := range []string{"X-Set: new", "X-Add: 0", "X-Add: 1"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("edited request: %q is missing in\n%s", want, a.body)
		}
	}
	if strings.Contains(a.body, "old") || strings.Contains(a.body, "X-Bad") || a.Header.Get("Server") != "edge" || a.Header.Get("X-Secret") != "" {
		t.Errorf("edited: got %v\n%s", a.Header, a.body)
	}
}

// TestSplitStays: one client stays with one service, and a key of its own decides where there is one.
func TestSplitStays(t *testing.T) {
	split := &route.Split{Shares: []route.Share{{Service: "web", Weight: 1}, {Service: "down", Weight: 1}}, Key: forward.Key{Kind: forward.KeyCookie, Name: "id"}}
	f := start(t, Options{Listeners: []Listener{{Routes: []Route{{Split: split}}}}}, echoHead(t))
	seen := map[int]int{}
	for i := range 40 {
		head := fmt.Sprintf("GET / HTTP/1.1\nHost: a\nCookie: id=%d", i)
		first := f.ask(t, head).StatusCode
		if again := f.ask(t, head).StatusCode; again != first {
			t.Errorf("cookie %d: %d, then %d", i, first, again)
		}
		seen[first]++
	}
	if seen[200] < 8 || seen[503] < 8 || seen[200]+seen[503] != 40 {
		t.Errorf("got %v, want about half of each", seen)
	}
}

func TestOrigin(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
	const came = "\nX-Forwarded-For: 1.1.1.1, 192.0.2.7\nX-Forwarded-For: 10.0.0.1\nX-Forwarded-Proto: https\nX-Forwarded-Host: shop.test\nX-Forwarded-Port: 443" +
		"\nForwarded: for=9.9.9.9, for=\"[2001:db8::7]:99\";proto=http,for=10.0.0.2"
	tests := []struct {
		name   string
		origin Origin
		fields string
		want   []string // lines of the request
		not    []string
		client string
	}{
		{
			"nobody is trusted",
			Origin{},
			came,
			[]string{"X-Forwarded-For: 1.1.1.1, 192.0.2.7, 10.0.0.1, 127.0.0.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: a.test"},
			[]string{"\nForwarded:", "shop", "X-Forwarded-Port: 443"},
			"127.0.0.1",
		},
		{
			"set",
			Origin{XForwarded: ModeSet, Forwarded: ModeSet},
			came,
			[]string{"X-Forwarded-For: 127.0.0.1\n", `Forwarded: for=127.0.0.1;host="a.test";proto=http`},
			[]string{"1.1.1.1", "9.9.9.9"},
			"127.0.0.1",
		},
		{
			"none",
			Origin{XForwarded: ModeNone},
			came, nil,
			[]string{"X-Forwarded", "Forwarded"},
			"127.0.0.1",
		},
		{
			"trusted: the right-most that is not",
			Origin{Trusted: loopback},
			came,
			[]string{"X-Forwarded-For: 1.1.1.1, 192.0.2.7, 10.0.0.1, 127.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.test", "X-Forwarded-Port: 443"},
			nil, "192.0.2.7",
		},
		{
			"trusted and set",
			Origin{Trusted: loopback, XForwarded: ModeSet},
			came,
			[]string{"X-Forwarded-For: 192.0.2.7\n"},
			[]string{"1.1.1.1"},
			"192.0.2.7",
		},
		{
			"by Forwarded",
			Origin{Trusted: loopback, ByForwarded: true, Forwarded: ModeAppend},
			came,
			[]string{`Forwarded: for=9.9.9.9, for="[2001:db8::7]:99";proto=http,for=10.0.0.2, for=127.0.0.1;host="a.test";proto=https`},
			nil, "2001:db8::7",
		},
		{
			"garbage ends the walk", Origin{Trusted: loopback}, "\nX-Forwarded-For: 192.0.2.9, unknown, 10.0.0.1", nil, nil, "10.0.0.1",
		},
		{
			"all are trusted", Origin{Trusted: loopback}, "\nX-Forwarded-For: 10.0.0.9, 10.0.0.1:80", nil, nil, "10.0.0.9",
		},
		{
			"nothing is said", Origin{Trusted: loopback}, "", []string{"X-Forwarded-For: 127.0.0.1"}, nil, "127.0.0.1",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var clients []Route
			client := netip.MustParseAddr(tt.client)
			clients = append(clients, Route{Clients: []netip.Prefix{netip.PrefixFrom(client, client.BitLen())}, Service: "web"})
			f := start(t, Options{Listeners: []Listener{{Routes: clients, Origin: tt.origin}}}, echoHead(t))
			a := f.ask(t, "GET / HTTP/1.1\nHost: a.test"+tt.fields)
			if a.StatusCode != 200 {
				t.Fatalf("the client is not taken for %s: %d", tt.client, a.StatusCode)
			}
			for _, want := range tt.want {
				if !strings.Contains(a.body+"\n", want) {
					t.Errorf("%q is missing in\n%s", want, a.body)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(a.body, not) {
					t.Errorf("%q is in\n%s", not, a.body)
				}
			}
		})
	}
}

func TestRequestID(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for _, tt := range []struct {
		name    string
		trusted []netip.Prefix
		sent    string
		kept    bool
	}{
		{"none came", nil, "", false},
		{"from anybody", nil, "abc", false},
		{"from a proxy", trusted, "abc-1/2=", true},
		{"bad from a proxy", trusted, "a b", false},
		{"long from a proxy", trusted, strings.Repeat("x", 129), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, Options{Listeners: []Listener{{
				Routes: []Route{{Path: "/x", Service: "web"}}, Origin: Origin{RequestID: "X-Request-ID", Trusted: tt.trusted},
			}}}, echoHead(t))
			head := "GET /x HTTP/1.1\nHost: a"
			if tt.sent != "" {
				head += "\nx-request-id: " + tt.sent
			}
			a := f.ask(t, head)
			id := a.Header.Get("X-Request-ID")
			if len(a.Header.Values("X-Request-ID")) != 1 || (id == tt.sent) != tt.kept || !tt.kept && len(id) != 32 {
				t.Errorf("got %q for %q", a.Header.Values("X-Request-ID"), tt.sent)
			}
			if strings.Count(strings.ToLower(a.body), "x-request-id") != 1 || !strings.Contains(a.body, "X-Request-ID: "+id) {
				t.Errorf("the backend did not get %s once:\n%s", id, a.body)
			}
			if missing := f.ask(t, strings.Replace(head, "/x", "/", 1)); missing.StatusCode != 404 || missing.Header.Get("X-Request-ID") == "" {
				t.Errorf("an error has no id: %v", missing.Header)
			}
		})
	}
}

func TestPages(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sorry := Page{Statuses: []int{503}, HTML: file("sorry.html", "<h1>sorry {status} {reason}</h1>{detail} {request_id}"), JSON: file("sorry.json", `{"sorry":"{detail}","id":"{request_id}"}`)}
	f := start(t, Options{Listeners: []Listener{{
		Routes: []Route{
			{Host: "a", Path: "/down", Service: "down"},
			{Host: "a", Path: "/own", Service: "down", Extra: &Extra{Pages: []Page{{HTML: file("own.html", "own")}}}},
		},
		Pages:  []Page{sorry},
		Origin: Origin{RequestID: "X-Id", Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}},
	}}})
	tests := []struct{ target, accept, kind, body string }{
		{"/down", "", "text/plain", "no healthy backend for service \"down\"\n"},
		{"/down", "*/*", "text/plain", "no healthy backend for service \"down\"\n"},
		{"/down", "text/html,*/*;q=0.8", "text/html", "<h1>sorry 503 Service Unavailable</h1>no healthy backend for service &#34;down&#34; id7"},
		{"/down", "text/html;q=0.5, application/json", "application/json", `{"sorry":"no healthy backend for service \"down\"","id":"id7"}`},
		{"/own", "text/html", "text/html", "own"},
		{"/own", "application/json", "application/json", `"detail":"no healthy backend for service \"down\"","request_id":"id7"}`},
		{"/<script>", "text/html", "text/html", "<h1>404 Not Found</h1>"},
	}
	for _, tt := range tests {
		a := f.ask(t, "GET "+tt.target+" HTTP/1.1\nHost: a\nX-Id: id7\nAccept: "+tt.accept)
		if !strings.HasPrefix(a.Header.Get("Content-Type"), tt.kind) || !strings.Contains(a.body, tt.body) || strings.Contains(a.body, "<script>") {
			t.Errorf("%s %s: got %s %q", tt.target, tt.accept, a.Header.Get("Content-Type"), a.body)
		}
		if tt.kind == "application/json" && !json.Valid([]byte(a.body)) {
			t.Errorf("%s: not JSON: %s", tt.target, a.body)
		}
	}
	if _, err := f.Prepare([]Listener{{Address: netip.MustParseAddrPort("127.0.0.1:0"), Routes: anyRoute, Pages: []Page{{HTML: dir + "/none"}}}}); err == nil {
		t.Error("a page that is not there was taken")
	}
}

// TestExplainIsTheEngine: what is explained is what the backend gets.
func TestExplainIsTheEngine(t *testing.T) {
	listener := Listener{
		Routes: []Route{
			{Host: "b.test", Service: "web"},
			{Host: "a.test", Path: "/api", Service: "web", Rewrite: route.Rewrite{Prefix: "/"}, Request: route.Edit{Set: []route.Header{{Name: "X-A", Value: "b"}}}},
			{Host: "a.test", Path: "/go", Redirect: &route.Redirect{Scheme: "https"}},
		},
		Origin: Origin{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Forwarded: ModeAppend},
	}
	f := start(t, Options{Listeners: []Listener{listener}}, echoHead(t))
	head := "GET /api/x HTTP/1.1\nHost: a.test\nX-Forwarded-For: 192.0.2.3"
	local := f.Addrs()[0]
	ask := func(head string) *Explanation {
		t.Helper()
		e, err := Explain(listener, Question{
			Head: []byte(strings.ReplaceAll(head, "\n", "\r\n") + "\r\n\r\n"), Peer: netip.MustParseAddrPort("127.0.0.1:1"), Local: local,
		})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	e := ask(head)
	lines := strings.Split(strings.TrimRight(strings.ReplaceAll(e.Upstream, "\r\n", "\n"), "\n"), "\n")
	slices.Sort(lines[1:])
	if got := f.ask(t, head).body; got != strings.Join(lines, "\n") {
		t.Errorf("explained\n%s\nbut the backend gets\n%s", strings.Join(lines, "\n"), got)
	}
	if e.Client != netip.MustParseAddr("192.0.2.3") || e.Taken == nil || e.Taken.Index != 1 || e.String() != "service web" {
		t.Errorf("got %+v", e)
	}
	if got := ask("GET /go HTTP/1.1\nHost: a.test").String(); got != "302 redirect to https://a.test/go" {
		t.Errorf("redirect: got %q", got)
	}
	if got := ask("GET / HTTP/1.1\nHost: a.test").String(); got != "404 no route for this request" {
		t.Errorf("no route: got %q", got)
	}
	if got := ask("GET /a/../b HTTP/1.1\nHost: a.test").String(); got != "400 dot segment in the request target" {
		t.Errorf("refused: got %q", got)
	}
	res, err := client(t).Get("http://" + f.addr + "/none")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if res.StatusCode != http.StatusNotFound {
		t.Errorf("got %d", res.StatusCode)
	}
}
