package config

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestNearest(t *testing.T) {
	known := []string{"ttl", "service", "answer", "secret_file", "secret", "fra", "iad"}
	for _, c := range []struct{ word, want string }{
		{"tll", "ttl"},
		{"TTL", "ttl"},
		{"servcie", "service"},
		{"secret-file", "secret_file"},
		{"secretfile", "secret_file"},
		{"anser", "answer"},
		{"fr", "fra"},
		{"x", ""},
		{"", ""},
		{"nothing_like_it", ""},
		{"sevrices", "service"},
	} {
		if got := nearest(c.word, slices.Values(known)); got != c.want {
			t.Errorf("nearest(%q) = %q, want %q", c.word, got, c.want)
		}
	}
}

// TestNearestIsStable: the order of what is known, as from a map, does not matter.
func TestNearestIsStable(t *testing.T) {
	known := map[string]bool{"web1": true, "web2": true, "web3": true, "web4": true}
	for range 50 {
		if got := nearest("web", maps.Keys(known)); got != "web1" {
			t.Fatalf("got %q, want web1", got)
		}
	}
}

// TestDistance compares with the plain recursive definition.
func TestDistance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[abc]{0,7}`)
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		limit := rapid.IntRange(0, 8).Draw(t, "limit")
		want := min(slowDistance(a, b), limit+1)
		if got := distance(a, b, limit); got != want {
			t.Fatalf("distance(%q, %q, %d) = %d, want %d", a, b, limit, got, want)
		}
	})
}

func slowDistance(a, b string) int {
	if a == "" || b == "" {
		return len(a) + len(b)
	}
	cost := 1
	if a[len(a)-1] == b[len(b)-1] {
		cost = 0
	}
	best := min(
		slowDistance(a[:len(a)-1], b)+1,
		slowDistance(a, b[:len(b)-1])+1,
		slowDistance(a[:len(a)-1], b[:len(b)-1])+cost)
	if len(a) > 1 && len(b) > 1 && a[len(a)-1] == b[len(b)-2] && a[len(a)-2] == b[len(b)-1] {
		best = min(best, slowDistance(a[:len(a)-2], b[:len(b)-2])+1)
	}
	return best
}
