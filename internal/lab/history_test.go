package lab

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestHistory(t *testing.T) {
	const a = "pool/web/fra"
	for _, tt := range []struct {
		name   string
		orders []string // "+" drain, "-" undrain; "?" behind it: not acknowledged
		stands bool
		want   string
	}{
		{"nothing", nil, false, ""},
		{"stands by itself", nil, true, "stands again"},
		{"acknowledged and stands", []string{"+"}, true, ""},
		{"acknowledged and lost", []string{"+"}, false, "is lost"},
		{"cleared", []string{"+", "-"}, false, ""},
		{"cleared and back", []string{"+", "-"}, true, "stands again"},
		{"unknown took effect", []string{"+?"}, true, ""},
		{"unknown did not", []string{"+?"}, false, ""},
		{"unknown, then cleared, may win late", []string{"+?", "-"}, true, ""},
		{"unknown clearing", []string{"+", "-?"}, false, ""},
		{"unknown drain does not excuse a loss", []string{"+", "+?"}, false, "is lost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHistory()
			for _, o := range tt.orders {
				h.ordered(a, o[0] == '+', !strings.HasSuffix(o, "?"))
			}
			got := strings.Join(h.check(map[string]bool{a: tt.stands}), "; ")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// After a check nothing may change that nobody ordered, not even by an order
// whose fate was unknown before.
func TestHistoryForgetsTheUnknown(t *testing.T) {
	const a = "pool/web/fra"
	h := newHistory()
	h.ordered(a, true, false)
	if wrong := h.check(map[string]bool{}); wrong != nil {
		t.Fatal(wrong)
	}
	if wrong := h.check(map[string]bool{a: true}); wrong == nil {
		t.Error("an order that was gone came back unnoticed")
	}
}

// A register that does what it should is never accused, and one that flips is
// always, whatever happened before.
func TestHistoryProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory()
		stands := map[string]bool{}
		for range rapid.IntRange(1, 20).Draw(t, "rounds") {
			scope := rapid.SampledFrom([]string{"pool/a/x", "pool/a/y", "pool/b/x"}).Draw(t, "scope")
			drain := rapid.Bool().Draw(t, "drain")
			switch rapid.IntRange(0, 2).Draw(t, "fate") {
			case 0: // acknowledged
				h.ordered(scope, drain, true)
				stands[scope] = drain
			case 1: // took effect, unknown to the operator
				h.ordered(scope, drain, false)
				stands[scope] = drain
			case 2: // was lost, unknown to the operator
				h.ordered(scope, drain, false)
			}
			if rapid.Bool().Draw(t, "check") {
				if wrong := h.check(stands); wrong != nil {
					t.Fatalf("accused of %v", wrong)
				}
			}
		}
		h.check(stands)
		scope := rapid.SampledFrom([]string{"pool/a/x", "pool/b/x"}).Draw(t, "flipped")
		stands[scope] = !stands[scope]
		if h.check(stands) == nil {
			t.Fatalf("%s flipped unnoticed", scope)
		}
	})
}
