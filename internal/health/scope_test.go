package health

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func scope(text string) Scope {
	s, err := ParseScope(text)
	if err != nil {
		panic(err)
	}
	return s
}

func TestParseScope(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	for _, tt := range []struct {
		text string
		want Scope
	}{
		{"site/fra", Scope{Kind: ScopeSite, Site: "fra"}},
		{"site/" + label63, Scope{Kind: ScopeSite, Site: label63}},
		{"service/web-2", Scope{Kind: ScopeService, Service: "web-2"}},
		{"pool/web/fra", Scope{Kind: ScopePool, Service: "web", Site: "fra"}},
		{"backend/web/fra/10.0.1.10:8080", Scope{Kind: ScopeBackend, Service: "web", Site: "fra", Backend: netip.MustParseAddrPort("10.0.1.10:8080")}},
		{"backend/web/fra/[2001:db8::1]:80", Scope{Kind: ScopeBackend, Service: "web", Site: "fra", Backend: netip.MustParseAddrPort("[2001:db8::1]:80")}},
		{"prefix/192.0.2.0/24", Scope{Kind: ScopePrefix, Prefix: netip.MustParsePrefix("192.0.2.0/24")}},
		{"prefix/2001:db8::/32", Scope{Kind: ScopePrefix, Prefix: netip.MustParsePrefix("2001:db8::/32")}},
		{"prefix/0.0.0.0/0", Scope{Kind: ScopePrefix, Prefix: netip.MustParsePrefix("0.0.0.0/0")}},
	} {
		got, err := ParseScope(tt.text)
		if err != nil || got != tt.want || got.String() != tt.text {
			t.Errorf("%s: got %+v, %v", tt.text, got, err)
		}
	}
	for spelled, plain := range map[string]string{
		"backend/web/fra/[2001:DB8:0:0::1]:80":   "backend/web/fra/[2001:db8::1]:80",
		"backend/web/fra/[::ffff:10.0.1.10]:080": "backend/web/fra/10.0.1.10:80",
		"prefix/2001:DB8::/32":                   "prefix/2001:db8::/32",
	} {
		if got, err := ParseScope(spelled); err != nil || got.String() != plain {
			t.Errorf("%s: got %s, %v", spelled, got, err)
		}
	}
}

func TestParseScopeRefuses(t *testing.T) {
	for text, say := range map[string]string{
		"":                                  "never means everything",
		"/":                                 "begins with site/",
		"fra":                               "begins with site/",
		"Site/fra":                          "begins with site/",
		"site":                              "a part is empty",
		"site/":                             "a part is empty",
		"site/FRA":                          "lower-case",
		"site/fra/":                         "write site/SITE",
		"site/" + strings.Repeat("a", 64):   "1 to 63",
		"site/*":                            "not a name",
		"pool/web":                          "write pool/SERVICE/SITE",
		"pool//fra":                         "a part is empty",
		"backend/web/fra":                   "write backend/",
		"backend/web/fra/10.0.1.10":         "not an address and port",
		"backend/web/fra/10.0.1.10:0":       "without port",
		"backend/web/fra/[fe80::1%eth0]:80": "with a zone",
		"prefix/192.0.2.1/24":               "is prefix/192.0.2.0/24 meant?",
		"prefix/192.0.2.0":                  "write prefix/ADDRESS/BITS",
		"prefix/192.0.2.0/33":               "not a prefix",
		"prefix/::ffff:192.0.2.0/120":       "plain form",
		"site/" + strings.Repeat("x", 999):  "at most 400",
	} {
		got, err := ParseScope(text)
		if !errors.Is(err, ErrScope) || !strings.Contains(err.Error(), say) || got != (Scope{}) {
			t.Errorf("%q: got %v, %v; want an error with %q", text, got, err, say)
		}
	}
}

func drawScope(t *rapid.T, name string) Scope {
	label := rapid.StringMatching(`[a-z]([a-z0-9-]{0,6}[a-z0-9])?`)
	s := Scope{Kind: ScopeKind(rapid.IntRange(1, 5).Draw(t, name+" kind"))}
	if s.Kind == ScopeService || s.Kind == ScopePool || s.Kind == ScopeBackend {
		s.Service = label.Draw(t, name+" service")
	}
	if s.Kind == ScopeSite || s.Kind == ScopePool || s.Kind == ScopeBackend {
		s.Site = label.Draw(t, name+" site")
	}
	size := rapid.SampledFrom([]int{4, 16}).Draw(t, name+" size")
	addr, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, name+" address"))
	addr = addr.Unmap()
	switch s.Kind {
	case ScopeBackend:
		s.Backend = netip.AddrPortFrom(addr, rapid.Uint16Min(1).Draw(t, name+" port"))
	case ScopePrefix:
		s.Prefix = netip.PrefixFrom(addr, rapid.IntRange(0, addr.BitLen()).Draw(t, name+" bits")).Masked()
	}
	return s
}

func TestScopeRoundTripAndOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawScope(t, "a"), drawScope(t, "b"), drawScope(t, "c")
		if got, err := ParseScope(a.String()); err != nil || got != a {
			t.Fatalf("%s: got %+v, %v", a, got, err)
		}
		if a.Compare(b) != 0 != (a != b) || (a.Compare(b) < 0) != (b.Compare(a) > 0) {
			t.Fatalf("%s and %s: not an order", a, b)
		}
		if a.Compare(b) <= 0 && b.Compare(c) <= 0 && a.Compare(c) > 0 {
			t.Fatalf("%s, %s, %s: not transitive", a, b, c)
		}
	})
}

// known is a small fleet.
var known = func() []Scope {
	var list []Scope
	for _, text := range []string{
		"site/fra", "site/iad", "site/fra2", "service/web", "service/db",
		"pool/web/fra", "pool/web/iad", "pool/db/fra",
		"backend/web/fra/10.0.1.10:8080", "backend/web/fra/10.0.1.11:8080", "backend/web/iad/[2001:db8::1]:80",
		"prefix/192.0.2.0/24", "prefix/2001:db8::/32",
	} {
		list = append(list, scope(text))
	}
	return list
}()

func TestMatchScopes(t *testing.T) {
	for _, tt := range []struct{ pattern, want string }{
		{"site/fra", "site/fra"},
		{"site/fr?", "site/fra"},
		{"site/fra*", "site/fra site/fra2"},
		{"site/*", "site/fra site/fra2 site/iad"},
		{"pool/*/fra", "pool/db/fra pool/web/fra"},
		{"pool/w*b/*", "pool/web/fra pool/web/iad"},
		{"backend/web/fra/*", "backend/web/fra/10.0.1.10:8080 backend/web/fra/10.0.1.11:8080"},
		{"backend/*/*/10.0.1.1?:8080", "backend/web/fra/10.0.1.10:8080 backend/web/fra/10.0.1.11:8080"},
		{"backend/web/iad/[2001:DB8::1]:80", "backend/web/iad/[2001:db8::1]:80"},
		{"backend/*/*/[2001:db8::1]:80", "backend/web/iad/[2001:db8::1]:80"},
		{"prefix/192.0.2.0/24", "prefix/192.0.2.0/24"},
		{"prefix/*/*", "prefix/192.0.2.0/24 prefix/2001:db8::/32"},
		{"prefix/2001:db8::/*", "prefix/2001:db8::/32"},
	} {
		got, err := MatchScopes(tt.pattern, slices.Concat(known, known))
		if diff := cmp.Diff(strings.Fields(tt.want), names(got)); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", tt.pattern, err, diff)
		}
	}
}

func names(list []Scope) []string {
	var out []string
	for _, s := range list {
		out = append(out, s.String())
	}
	return out
}

// TestEmptyIsNotAll: no slip of an operator means everything.
func TestEmptyIsNotAll(t *testing.T) {
	for pattern, say := range map[string]string{
		"":                   "never means everything",
		"*":                  "begins with",
		"*/*":                "begins with",
		"?ite/fra":           "begins with",
		"/":                  "begins with",
		"site":               "a part is empty",
		"site/":              "a part is empty",
		"pool/*/":            "a part is empty",
		"pool//*":            "a part is empty",
		"pool/*":             "write pool/SERVICE/SITE",
		"pool/**/fra":        "there is no **",
		"site/sin":           "there is site/fra, site/iad, site/fra2",
		"site/s*":            "nothing matches",
		"service/fra":        "nothing matches",
		"prefix/192.0.2.*":   "write prefix/",
		"backend/web/fra/[*": "nothing matches",
	} {
		got, err := MatchScopes(pattern, known)
		if !errors.Is(err, ErrScope) || !strings.Contains(err.Error(), say) || got != nil {
			t.Errorf("%q: got %v, %v; want an error with %q", pattern, got, err, say)
		}
	}
	if _, err := MatchScopes("site/*", nil); err == nil || !strings.Contains(err.Error(), "there is no site") {
		t.Errorf("no scopes at all: %v", err)
	}
}

func TestMatchGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"?", "", false},
		{"a*b*c", "aXXbYYbc", true},
		{"a*b*c", "aXXbYYb", false},
		{"*a", "aaab", false},
		{"*", "a/b", false},
		{"?", "/", false},
		{"*/*", "a/b", true},
		{"*/b", "a/a/b", false},
		{"web/*/vip/*", "web/fra/vip/198.51.100.80:443", true},
		{"[ab]", "a", false},
		{`\*`, "*", false},
		{strings.Repeat("*a", 200) + "b", strings.Repeat("a", 20000), false}, // no exponential time
	} {
		if got := MatchGlob(tt.pattern, tt.text); got != tt.want {
			t.Errorf("%.40q matches %.40q: got %v", tt.pattern, tt.text, got)
		}
	}
}

// FuzzMatchScopes: what matches has the pattern's kind and is known; a pattern
// without a wildcard matches one at most; nothing matched is an error.
func FuzzMatchScopes(f *testing.F) {
	for _, p := range []string{"", "*", "site/*", "pool/*/fra", "backend/web/fra/10.0.1.1?:8080", "prefix/*/24", "site/fra"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		got, err := MatchScopes(pattern, known)
		if (err == nil) != (len(got) > 0) {
			t.Fatalf("%q: %v, %v", pattern, got, err)
		}
		for _, s := range got {
			if !slices.Contains(known, s) || !strings.HasPrefix(pattern, s.Kind.String()+"/") {
				t.Fatalf("%q matches %s", pattern, s)
			}
		}
		if len(got) > 1 && !IsPattern(pattern) {
			t.Fatalf("%q matches %v", pattern, got)
		}
		if CheckScopePattern(pattern) != nil && err == nil {
			t.Fatalf("%q is refused but matches", pattern)
		}
	})
}
