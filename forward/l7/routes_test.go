package l7

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func mustTable(t testing.TB, routes ...Route) *table {
	t.Helper()
	tab, err := newTable(routes)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func (t *table) find(host, path string) string {
	var scratch [maxHost + maxTarget]byte
	if r := t.match([]byte(host), []byte(path), &scratch); r != nil {
		return r.Service
	}
	return ""
}

func TestMatch(t *testing.T) {
	tab := mustTable(t,
		Route{Host: "www.example.com", Path: "/", Service: "www"},
		Route{Host: "www.example.com", Path: "/api", Service: "api"},
		Route{Host: "www.example.com", Path: "/api/v2/", Service: "v2"},
		Route{Host: "only.example.com", Path: "/deep", Service: "deep"},
		Route{Host: "*.example.com", Service: "wild"},
		Route{Host: "*.eu.example.com", Path: "/x", Service: "eu"},
		Route{Path: "/health", Service: "health"},
		Route{Host: "[::1]", Service: "six"},
		Route{Host: "127.0.0.1", Service: "four"},
	)
	tests := []struct{ host, path, want string }{
		{"www.example.com", "/", "www"},
		{"WWW.Example.COM", "/", "www"},
		{"www.example.com.", "/", "www"},
		{"www.example.com", "/api", "api"},
		{"www.example.com", "/api/", "api"},
		{"www.example.com", "/api/v1", "api"},
		{"www.example.com", "/api/v2", "v2"},
		{"www.example.com", "/api/v2/x/y", "v2"},
		{"www.example.com", "/api/v20", "api"},
		{"www.example.com", "/apis", "www"},
		{"www.example.com", "/API", "www"},
		{"www.example.com", "/%61pi/x", "api"},
		{"www.example.com", "//api//v2", "v2"},
		{"www.example.com", "/api%2fv2", "www"},
		{"www.example.com", "*", "www"},
		{"only.example.com", "/deep/er", "deep"},
		{"only.example.com", "/other", "wild"}, // the next most specific host
		{"a.example.com", "/", "wild"},
		{"a.b.example.com", "/", "wild"},
		{"a.eu.example.com", "/x", "eu"},
		{"a.eu.example.com", "/y", "wild"},
		{"example.com", "/", ""},
		{"example.com", "/health/x", "health"},
		{"", "/health", "health"},
		{"", "/", ""},
		{"badexample.com", "/", ""},
		{"[::1]", "/", "six"},
		{"127.0.0.1", "/health", "four"},
	}
	for _, tt := range tests {
		if got := tab.find(tt.host, tt.path); got != tt.want {
			t.Errorf("%s%s: got %q, want %q", tt.host, tt.path, got, tt.want)
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
		{"twice", []Route{{Host: "A", Path: "/x/", Service: "x"}, {Host: "a", Path: "/x", Service: "y"}}},
	}
	for _, tt := range tests {
		if _, err := newTable(tt.routes); err == nil {
			t.Errorf("%s: no error", tt.name)
		}
	}
}

// TestMatchProperty compares with a plain search through all routes.
func TestMatchProperty(t *testing.T) {
	hosts := []string{"", "a.test", "b.a.test", "*.a.test", "*.b.a.test", "*.test", "test"}
	paths := []string{"", "/", "/x", "/x/y", "/x/yy", "/xx", "/x/y/z"}
	rapid.Check(t, func(t *rapid.T) {
		var routes []Route
		for i := range rapid.IntRange(0, 12).Draw(t, "routes") {
			r := Route{
				Host:    rapid.SampledFrom(hosts).Draw(t, "host"),
				Path:    rapid.SampledFrom(paths).Draw(t, "path"),
				Service: fmt.Sprint("s", i),
			}
			if _, err := newTable(append(routes[:len(routes):len(routes)], r)); err == nil {
				routes = append(routes, r)
			}
		}
		tab, err := newTable(routes)
		if err != nil {
			t.Fatal(err)
		}
		host := rapid.SampledFrom([]string{"a.test", "b.a.test", "c.b.a.test", "test", "x.test", "other"}).Draw(t, "asked host")
		path := rapid.SampledFrom([]string{"/", "/x", "/x/", "/x/y", "/x/y/z/1", "/x/yy/1", "/xx", "/xxx", "/y"}).Draw(t, "asked path")
		if got, want := tab.find(host, path), search(routes, host, path); got != want {
			t.Fatalf("%s%s in %v: got %q, want %q", host, path, routes, got, want)
		}
	})
}

// search is the oracle: the most specific host, then the longest path.
func search(routes []Route, host, path string) string {
	best, service := -1, ""
	for _, r := range routes {
		rank := 0
		switch below, wild := strings.CutPrefix(r.Host, "*"); {
		case r.Host == host:
			rank = 1000
		case wild && strings.HasSuffix(host, below):
			rank = len(below)
		case r.Host != "":
			continue
		}
		prefix := strings.TrimRight(r.Path, "/") + "/"
		if !strings.HasPrefix(path+"/", prefix) {
			continue
		}
		if score := rank*1000 + len(prefix); score > best {
			best, service = score, r.Service
		}
	}
	return service
}
