package route

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func mustTable(t testing.TB, routes ...Route) *Table {
	t.Helper()
	tab, err := New(routes)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// asked are fields of a request, as "name: value" lines.
type asked []string

func (a asked) Field(name string, from int) ([]byte, int) {
	for i := from; i < len(a); i++ {
		n, v, _ := strings.Cut(a[i], ": ")
		if strings.EqualFold(n, name) {
			return []byte(v), i + 1
		}
	}
	return nil, -1
}

// request makes a Request of "METHOD host/path?query" and fields.
func request(line string, fields ...string) *Request {
	method, target, _ := strings.Cut(line, " ")
	slash := strings.IndexAny(target, "/*")
	host := target[:slash]
	path, query, _ := strings.Cut(target[slash:], "?")
	return &Request{
		Method: []byte(method), Host: []byte(host), Path: []byte(path), Query: []byte(query),
		Client: netip.MustParseAddr("192.0.2.1"), Fields: asked(fields),
	}
}

func (t *Table) find(r *Request) string {
	var s Space
	if rule := t.Match(r, &s); rule != nil {
		return rule.Service
	}
	return ""
}

func TestHostsAndPaths(t *testing.T) {
	tab := mustTable(t,
		Route{Host: "www.example.com", Path: "/", Service: "www"},
		Route{Host: "www.example.com", Path: "/api", Service: "api"},
		Route{Host: "www.example.com", Path: "/api/v2/", Service: "v2"},
		Route{Host: "www.example.com", Path: "/api", Exact: true, Service: "api-itself"},
		Route{Host: "www.example.com", Pattern: "/api/v[0-9]+/old.*", Service: "old"},
		Route{Host: "only.example.com", Path: "/deep", Service: "deep"},
		Route{Host: "*.example.com", Service: "wild"},
		Route{Host: "*.eu.example.com", Path: "/x", Service: "eu"},
		Route{Path: "/health", Service: "health"},
		Route{Host: "[::1]", Service: "six"},
		Route{Host: "127.0.0.1", Service: "four"},
	)
	tests := []struct{ target, want string }{
		{"www.example.com/", "www"},
		{"WWW.Example.COM/", "www"},
		{"www.example.com./", "www"},
		{"www.example.com/api", "api-itself"},
		{"www.example.com/api/", "api"},
		{"www.example.com/api/v1", "api"},
		{"www.example.com/api/v2", "v2"},
		{"www.example.com/api/v2/x/y", "v2"},
		{"www.example.com/api/v2/old/y", "old"},
		{"www.example.com/api/vx/old", "api"},
		{"www.example.com/api/v20", "api"},
		{"www.example.com/apis", "www"},
		{"www.example.com/API", "www"},
		{"www.example.com/%61pi/x", "api"},
		{"www.example.com//api//v2", "v2"},
		{"www.example.com/api%2fv2", "www"},
		{"www.example.com*", "www"},
		{"only.example.com/deep/er", "deep"},
		{"only.example.com/other", "wild"}, // the next most specific host
		{"a.example.com/", "wild"},
		{"a.b.example.com/", "wild"},
		{"a.eu.example.com/x", "eu"},
		{"a.eu.example.com/y", "wild"},
		{"example.com/", ""},
		{"example.com/health/x", "health"},
		{"/health", "health"},
		{"/", ""},
		{"badexample.com/", ""},
		{"[::1]/", "six"},
		{"127.0.0.1/health", "four"},
	}
	for _, tt := range tests {
		if got := tab.find(request("GET " + tt.target)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.target, got, tt.want)
		}
	}
}

func TestConditions(t *testing.T) {
	office := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	tab := mustTable(t,
		Route{Path: "/", Service: "any"},
		Route{Path: "/", Methods: []string{"POST", "PUT"}, Service: "write"},
		Route{Path: "/", Headers: []Condition{{Name: "X-Canary", Test: Equals, Value: "yes"}}, Service: "canary"},
		Route{Path: "/", Headers: []Condition{{Name: "X-Canary", Test: Present}, {Name: "X-Beta", Test: Prefix, Value: "b"}}, Service: "beta"},
		Route{Path: "/", Headers: []Condition{{Name: "User-Agent", Test: Matches, Value: "(?i).*bot.*"}}, Service: "bots"},
		Route{Path: "/n", Headers: []Condition{{Name: "Cookie", Test: Absent}}, Service: "no-cookie"},
		Route{Path: "/", Query: []Condition{{Name: "v", Test: Equals, Value: "2 3"}}, Service: "query"},
		Route{Path: "/", Query: []Condition{{Name: "debug", Test: Present}}, Clients: office, Service: "debug"},
		Route{Path: "/n", Service: "n"},
	)
	tests := []struct {
		line   string
		fields []string
		client string
		want   string
	}{
		{"GET a/", nil, "", "any"},
		{"PUT a/", nil, "", "write"},
		{"PUT a/", []string{"X-Canary: yes"}, "", "write"}, // methods go before headers
		{"GET a/", []string{"x-canary: yes"}, "", "canary"},
		{"GET a/", []string{"X-Canary: no"}, "", "any"},
		{"GET a/", []string{"X-Canary: no", "X-Canary: yes"}, "", "canary"},
		{"GET a/", []string{"X-Canary: yes", "X-Beta: b1"}, "", "beta"},
		{"GET a/", []string{"User-Agent: GoogleBot/1"}, "", "bots"},
		{"GET a/n", nil, "", "no-cookie"},
		{"GET a/n", []string{"Cookie: a=b"}, "", "n"},
		{"GET a/?v=2+3", nil, "", "query"},
		{"GET a/?x&v=2%203", nil, "", "query"},
		{"GET a/?v=23&%76=2+3", nil, "", "query"},
		{"GET a/?v=2", nil, "", "any"},
		{"GET a/?debug", nil, "198.51.100.7", "debug"},
		{"GET a/?debug=", nil, "::ffff:198.51.100.7", "debug"},
		{"GET a/?debug", nil, "192.0.2.1", "any"},
		{"GET a/?debugs", nil, "198.51.100.7", "any"},
	}
	for _, tt := range tests {
		r := request(tt.line, tt.fields...)
		if tt.client != "" {
			r.Client = netip.MustParseAddr(tt.client)
		}
		if got := tab.find(r); got != tt.want {
			t.Errorf("%s %q of %s: got %q, want %q", tt.line, tt.fields, tt.client, got, tt.want)
		}
	}
}

func TestBadRoutes(t *testing.T) {
	tests := []struct {
		name   string
		routes []Route
	}{
		{"no service", []Route{{Host: "a"}}},
		{"bare wildcard", []Route{{Host: "*", Service: "x"}}},
		{"wildcard inside", []Route{{Host: "a.*.b", Service: "x"}}},
		{"host with a port", []Route{{Host: "a:80", Service: "x"}}},
		{"host with a space", []Route{{Host: "a b", Service: "x"}}},
		{"host that is no address", []Route{{Host: "[::g]", Service: "x"}}},
		{"path without a slash", []Route{{Path: "x", Service: "x"}}},
		{"path with dots", []Route{{Path: "/a/../b", Service: "x"}}},
		{"path with a bad escape", []Route{{Path: "/%g0", Service: "x"}}},
		{"path and pattern", []Route{{Path: "/a", Pattern: "/b", Service: "x"}}},
		{"pattern that is none", []Route{{Pattern: "/(", Service: "x"}}},
		{"pattern that ends the group around it", []Route{{Pattern: "/a)|(b", Service: "x"}}},
		{"method that is none", []Route{{Methods: []string{"G T"}, Service: "x"}}},
		{"header that is none", []Route{{Headers: []Condition{{Name: "a b"}}, Service: "x"}}},
		{"two actions", []Route{{Service: "x", Respond: &Response{Status: 200}}}},
		{"redirect to itself", []Route{{Redirect: &Redirect{}}}},
		{"redirect that is none", []Route{{Redirect: &Redirect{Status: 200, Scheme: "https"}}}},
		{"redirect with a split header", []Route{{Redirect: &Redirect{Host: "a\r\nb"}}}},
		{"rewrite with a query", []Route{{Service: "x", Rewrite: Rewrite{Path: "/a?b"}}}},
		{"prefix of an exact path", []Route{{Service: "x", Exact: true, Path: "/a", Rewrite: Rewrite{Prefix: "/b"}}}},
		{"header with a line break", []Route{{Service: "x", Request: Edit{Set: []Header{{"X", "a\nb"}}}}}},
		{"framing", []Route{{Service: "x", Request: Edit{Remove: []string{"Content-Length"}}}}},
		{"split without weight", []Route{{Split: &Split{Shares: []Share{{"a", 0}}}}}},
		{"twice", []Route{{Host: "A", Path: "/x/", Service: "x"}, {Host: "a", Path: "/x", Service: "y"}}},
		{"twice with conditions", []Route{
			{Headers: []Condition{{Name: "A"}, {Name: "b"}}, Methods: []string{"GET", "PUT"}, Service: "x"},
			{Headers: []Condition{{Name: "B"}, {Name: "a"}}, Methods: []string{"PUT", "GET"}, Service: "y"},
		}},
	}
	for _, tt := range tests {
		if _, err := New(tt.routes); err == nil {
			t.Errorf("%s: no error", tt.name)
		}
	}
}

func TestExplain(t *testing.T) {
	tab := mustTable(t,
		Route{Host: "b.test", Service: "b"},
		Route{Host: "a.test", Path: "/api", Service: "api"},
		Route{Host: "a.test", Methods: []string{"POST"}, Service: "post"},
		Route{Host: "a.test", Headers: []Condition{{Name: "X-A", Test: Equals, Value: "1"}}, Service: "header"},
		Route{Host: "a.test", Query: []Condition{{Name: "q", Test: Absent}}, Service: "query"},
		Route{Host: "a.test", Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Service: "client"},
		Route{Host: "a.test", Service: "a"},
		Route{Host: "*.test", Service: "wild"},
		Route{Service: "any"},
	)
	var s Space
	taken, verdicts := tab.Explain(request("GET a.test/x?q"), &s)
	if taken == nil || taken.Service != "a" {
		t.Fatalf("got %+v, want a", taken)
	}
	var got []string
	for _, v := range verdicts {
		got = append(got, v.Reason.String()+": "+v.Detail)
	}
	want := []string{
		"host: a.test is not b.test",
		"path: /x is not /api",
		"method: GET is not POST",
		`header: X-A is "1"`,
		"query: q is absent",
		"client: 192.0.2.1 is in none of [10.0.0.0/8]",
		"taken: host a.test, path /",
		"outranked: route 7 goes before: its host is more specific",
		"outranked: route 7 goes before: its host is more specific",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestAppendPath(t *testing.T) {
	tests := []struct {
		route Route
		path  string
		want  string
	}{
		{Route{Path: "/api", Rewrite: Rewrite{Prefix: "/v2"}}, "/api/x", "/v2/x"},
		{Route{Path: "/api", Rewrite: Rewrite{Prefix: "/v2/"}}, "/api", "/v2"},
		{Route{Path: "/api", Rewrite: Rewrite{Prefix: "/"}}, "/api", "/"},
		{Route{Path: "/api", Rewrite: Rewrite{Prefix: "/"}}, "/api/", "/"},
		{Route{Path: "/api", Rewrite: Rewrite{Prefix: "/"}}, "/api/x%2fy", "/x%2fy"},
		{Route{Path: "/api", Rewrite: Rewrite{Prefix: "/v2"}}, "//%61pi//x", "/v2/x"},
		{Route{Path: "/", Rewrite: Rewrite{Prefix: "/all"}}, "/x", "/all/x"},
		{Route{Path: "/", Rewrite: Rewrite{Prefix: "/all"}}, "/", "/all/"},
		{Route{Path: "/api", Rewrite: Rewrite{Path: "/one"}}, "/api/x", "/one"},
		{Route{Pattern: "/user/([0-9]+)/(?P<rest>.*)", Rewrite: Rewrite{Path: "/u/${rest}/$1"}}, "/user/12/a/b", "/u/a/b/12"},
		{Route{Path: "/"}, "/a//%62", "/a//%62"},
	}
	for _, tt := range tests {
		tt.route.Service = "x"
		var s Space
		r := request("GET a" + tt.path)
		rule := mustTable(t, tt.route).Match(r, &s)
		if rule == nil {
			t.Fatalf("%s: not taken", tt.path)
		}
		if got := string(rule.AppendPath(nil, rule.Rewrite.Path, rule.Rewrite.Prefix, r.Path, &s)); got != tt.want {
			t.Errorf("%+v %s: got %q, want %q", tt.route.Rewrite, tt.path, got, tt.want)
		}
	}
}

// TestSplit: shares are as asked, keys stay, and a change of weights moves only as many
// as it has to, and only to who gains.
func TestSplit(t *testing.T) {
	pick := func(web, canary int) *Split {
		return mustTable(t, Route{Split: &Split{Shares: []Share{{"web", web}, {"canary", canary}}}}).Rules()[0].Split
	}
	const n = 100_000
	few, more := pick(95, 5), pick(80, 20)
	counts := map[string]int{}
	for key := range uint64(n) {
		before, after := few.Pick(key), more.Pick(key)
		counts[before]++
		if before == "canary" && after != "canary" {
			t.Fatalf("key %d left the canary although it grew", key)
		}
		if before != after {
			counts["moved"]++
		}
	}
	if c := counts["canary"]; c < n*4/100 || c > n*6/100 {
		t.Errorf("got %d of %d at the canary, want 5 %%", c, n)
	}
	if m := counts["moved"]; m < n*13/100 || m > n*17/100 {
		t.Errorf("%d of %d moved, want 15 %%", m, n)
	}
	if got := pick(0, 1).Pick(7); got != "canary" {
		t.Errorf("weight 0 got work: %q", got)
	}
}

// TestCheckPath: parameters belong to their segment, but for one that would be dots without them.
func TestCheckPath(t *testing.T) {
	for path, good := range map[string]bool{
		"/a;v=1/b": true, "/;": true, "/a;..": true, "/a/...;/b": true, "/a..;b/c": true, "/.a;/": true,
		"/..;": false, "/a/..;/b": false, "/a/.;x=y/b": false, "/a/%2e%2E;/b": false, "/a/..%3b/b": false, "/a/..;..": false, `/a\..;\b`: false,
	} {
		if got := CheckPath([]byte(path)); (got == "") != good {
			t.Errorf("%s: got %q, want good %t", path, got, good)
		}
	}
}
