package route

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestMatchProperty compares with a plain search through all routes, ranked by what the
// package says of precedence.
func TestMatchProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var routes []Route
		for i := range rapid.IntRange(0, 16).Draw(t, "routes") {
			r := drawRoute(t)
			r.Service = fmt.Sprint("s", i)
			if _, err := New(append(routes[:len(routes):len(routes)], r)); err == nil {
				routes = append(routes, r)
			}
		}
		tab, err := New(routes)
		if err != nil {
			t.Fatal(err)
		}
		host := rapid.SampledFrom([]string{"a.test", "b.a.test", "d.c.b.a.test", "test", "x.test", "other"}).Draw(t, "host")
		path := rapid.SampledFrom([]string{"/", "/x", "/x/", "/x/y", "/x/y/z/1", "/x/yy/1", "/xx", "/xxx", "/y"}).Draw(t, "path")
		method := rapid.SampledFrom([]string{"GET", "POST"}).Draw(t, "method")
		query := rapid.SampledFrom([]string{"", "p=1", "p=2&q", "q"}).Draw(t, "query")
		fields := rapid.SampledFrom([][]string{nil, {"A: 1"}, {"A: 2", "B: 1"}, {"a: 12", "A: 1", "b: x"}}).Draw(t, "fields")
		r := request(method+" "+host+path+"?"+query, fields...)
		r.Client = netip.MustParseAddr(rapid.SampledFrom([]string{"10.0.0.1", "192.0.2.1", "2001:db8::1"}).Draw(t, "client"))
		want := search(routes, r, host, path, query)
		if got := tab.find(r); got != want {
			t.Fatalf("%s %s%s?%s %v in %+v: got %q, want %q", method, host, path, query, fields, routes, got, want)
		}
		var s Space
		taken, verdicts := tab.Explain(r, &s)
		for i, v := range verdicts {
			if (v.Rule == taken) != (v.Reason == Taken) || v.Rule.Index != i {
				t.Fatalf("verdict %+v, taken %+v", v, taken)
			}
			alone := search(routes[i:i+1], r, host, path, query) != ""
			if alone != (v.Reason == Taken || v.Reason == Outranked) {
				t.Fatalf("route %+v: explained as %v (%s), but alone it takes the request: %v", routes[i], v.Reason, v.Detail, alone)
			}
		}
	})
}

func drawRoute(t *rapid.T) Route {
	r := Route{Host: rapid.SampledFrom([]string{"", "a.test", "b.a.test", "*.a.test", "*.b.a.test", "*.test", "test"}).Draw(t, "host")}
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		r.Path, r.Exact = rapid.SampledFrom([]string{"/", "/x", "/x/", "/x/y"}).Draw(t, "exact"), true
	case 1:
		r.Pattern = rapid.SampledFrom([]string{"/x.*", "/[xy]", "/x/y+", "/|/y"}).Draw(t, "pattern")
	default:
		r.Path = rapid.SampledFrom([]string{"", "/", "/x", "/x/y", "/x/yy", "/xx", "/x/y/z"}).Draw(t, "path")
	}
	if rapid.IntRange(0, 3).Draw(t, "has methods") == 0 {
		r.Methods = rapid.SampledFrom([][]string{{"GET"}, {"POST"}, {"GET", "POST"}}).Draw(t, "methods")
	}
	condition := func(name string) Condition {
		return Condition{
			Name: rapid.SampledFrom([]string{name, strings.ToUpper(name)}).Draw(t, "name"), Test: Test(rapid.IntRange(0, 4).Draw(t, "test")),
			Value: rapid.SampledFrom([]string{"1", "2", "1."}).Draw(t, "value"),
		}
	}
	for _, name := range []string{"a", "b"}[:rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "headers")] {
		r.Headers = append(r.Headers, condition(name))
	}
	for range rapid.SampledFrom([]int{0, 0, 1}).Draw(t, "query") {
		c := condition("p")
		c.Name = rapid.SampledFrom([]string{"p", "q"}).Draw(t, "parameter")
		r.Query = append(r.Query, c)
	}
	if rapid.IntRange(0, 5).Draw(t, "has clients") == 0 {
		r.Clients = []netip.Prefix{netip.MustParsePrefix(rapid.SampledFrom([]string{"10.0.0.0/8", "::/0", "0.0.0.0/0"}).Draw(t, "clients"))}
	}
	return r
}

// search is the oracle.
func search(routes []Route, r *Request, host, path, query string) string {
	var best []int
	service := ""
	for i, route := range routes {
		if !accepts(route, r, host, path, query) {
			continue
		}
		rank := []int{0, 0, 0, 0, len(route.Headers), len(route.Query), 0, -i}
		switch {
		case strings.HasPrefix(route.Host, "*"):
			rank[0] = len(route.Host)
		case route.Host != "":
			rank[0] = 1000
		}
		switch {
		case route.Exact:
			rank[1] = 2
		case route.Pattern != "":
			rank[1] = 1
		default:
			rank[2] = len(strings.TrimRight(route.Path, "/"))
		}
		if len(route.Methods) > 0 {
			rank[3] = 1
		}
		if len(route.Clients) > 0 {
			rank[6] = 1
		}
		if best == nil || slices.Compare(rank, best) > 0 {
			best, service = rank, route.Service
		}
	}
	return service
}

func accepts(route Route, r *Request, host, path, query string) bool {
	below, wild := strings.CutPrefix(route.Host, "*")
	switch {
	case route.Host == "" || route.Host == host:
	case !wild || !strings.HasSuffix(host, below):
		return false
	}
	switch {
	case route.Exact:
		if path != route.Path {
			return false
		}
	case route.Pattern != "":
		if regexp.MustCompile("(?:"+route.Pattern+")").FindString(path) != path && !regexp.MustCompile("^(?:"+route.Pattern+")$").MatchString(path) {
			return false
		}
	case !strings.HasPrefix(path+"/", strings.TrimRight(route.Path, "/")+"/"):
		return false
	}
	if len(route.Methods) > 0 && !slices.Contains(route.Methods, string(r.Method)) {
		return false
	}
	if len(route.Clients) > 0 && !route.Clients[0].Contains(r.Client) {
		return false
	}
	for _, c := range route.Headers {
		var values []string
		for _, f := range r.Fields.(asked) {
			if n, v, _ := strings.Cut(f, ": "); strings.EqualFold(n, c.Name) {
				values = append(values, v)
			}
		}
		if !met(c, values) {
			return false
		}
	}
	for _, c := range route.Query {
		var values []string
		for _, pair := range strings.Split(query, "&") {
			if n, v, _ := strings.Cut(pair, "="); n == c.Name {
				values = append(values, v)
			}
		}
		if !met(c, values) {
			return false
		}
	}
	return true
}

func met(c Condition, values []string) bool {
	if c.Test == Absent {
		return len(values) == 0
	}
	return slices.ContainsFunc(values, func(v string) bool {
		switch c.Test {
		case Equals:
			return v == c.Value
		case Prefix:
			return strings.HasPrefix(v, c.Value)
		case Matches:
			return regexp.MustCompile("^(" + c.Value + ")$").MatchString(v)
		default:
			return true
		}
	})
}

// FuzzMatch: no host, path and query breaks the search, and the copies made for
// comparing fit their space.
func FuzzMatch(f *testing.F) {
	f.Add([]byte("a.test"), []byte("/x//%41%2f"), []byte("a=%41&b+"))
	tab, err := New([]Route{
		{Service: "any"},
		{Host: "*.test", Path: "/x/y", Service: "x"},
		{Pattern: "/x.*", Query: []Condition{{Name: "A", Test: Matches, Value: ".+"}}, Service: "y"},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, host, path, query []byte) {
		if len(host) > MaxHost || len(path) > MaxPath || len(query) > MaxPath || len(path) == 0 || path[0] != '/' || CheckPath(path) != "" {
			return
		}
		var s Space
		r := &Request{Method: []byte("GET"), Host: host, Path: path, Query: query, Fields: asked(nil)}
		taken, _ := tab.Explain(r, &s)
		if taken == nil {
			t.Fatal("no route although there is one for everything")
		}
	})
}

// tenThousand are tables of the size that is promised, and what is asked of them.
func tenThousand(t testing.TB) map[string]struct {
	table *Table
	ask   *Request
} {
	var hosts, paths, headers []Route
	for i := range 10_000 {
		hosts = append(hosts, Route{Host: fmt.Sprintf("host%d.example.com", i), Service: "x"})
		paths = append(paths, Route{Path: fmt.Sprintf("/app%d/v%d", i/100, i%100), Service: "x"})
		headers = append(headers, Route{
			Host: fmt.Sprintf("*.h%d.example.com", i/4), Path: "/api", Methods: []string{"GET", "POST", "PUT", "PATCH"}[i%4 : i%4+1],
			Headers: []Condition{{Name: "X-Version", Test: Equals, Value: "1"}}, Query: []Condition{{Name: "q", Test: Present}}, Service: "x",
		})
	}
	type one = struct {
		table *Table
		ask   *Request
	}
	return map[string]one{
		"hosts":      {mustTable(t, hosts...), request("GET host5000.example.com/assets/app.js")},
		"paths":      {mustTable(t, paths...), request("GET www.example.com/app50/v50/assets/app.js")},
		"conditions": {mustTable(t, headers...), &Request{Method: []byte("PUT"), Host: []byte("a.b.h77.example.com"), Path: []byte("/api/items/7"), Query: []byte("a=1&q=2"), Fields: fixed{}}},
	}
}

// fixed is a request's fields without making any.
type fixed struct{}

var one = []byte("1")

func (fixed) Field(name string, from int) ([]byte, int) {
	if name == "x-version" && from == 0 {
		return one, 1
	}
	return nil, -1
}

func TestMatchDoesNotAllocate(t *testing.T) {
	for name, tt := range tenThousand(t) {
		s := new(Space)
		if n := testing.AllocsPerRun(1000, func() {
			if tt.table.Match(tt.ask, s) == nil {
				t.Fatal("no route")
			}
		}); n != 0 {
			t.Errorf("%s: got %v allocations, want 0", name, n)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	for name, tt := range tenThousand(b) {
		b.Run(name, func(b *testing.B) {
			s := new(Space)
			b.ReportAllocs()
			for b.Loop() {
				if tt.table.Match(tt.ask, s) == nil {
					b.Fatal("no route")
				}
			}
		})
	}
}
