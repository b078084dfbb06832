package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/config"
)

// TestAdversaries: files made to be slow are refused in about the time that their
// size deserves. The bound is far above what a busy machine needs
// for linear work, and far below what quadratic work takes.
func TestAdversaries(t *testing.T) {
	const size = 1 << 17
	rep := strings.Repeat
	for _, c := range []struct{ name, text string }{
		{"open brackets", rep("[", 9000)},
		{"open braces", rep("{a: ", 9000)},
		{"nested lists", rep("- ", 5000)},
		{"question marks", rep("? ", 5000)},
		{"comments", rep("# x\n", size/4) + "sites: {}"},
		{"comments in a list", "sites: [\n" + rep("# x\n", size/8) + rep("a, # y\n", size/14) + "]"},
		{"comments after keys", rep("#\n#\na: # b\n", size/10)},
		{"duplicate keys", rep("sites: 1\n", size/9)},
		{"unknown keys", "sites: {" + rep("a: 1, ", size/6) + "}"},
		{"anchors", rep("&a a: *a\n", size/9)},
		{"alias bomb", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"},
		{"long line", "sites: \"" + rep("x", size)},
		{"long escapes", "sites: \"" + rep(`\u0041`, size/6) + "\""},
		{"variables", "sites: {fra: {location: \"" + rep("${MD5}", size/6) + "\"}}"},
		{"open variables", "sites: {fra: {location: \"" + rep("${", size/2) + "\"}}"},
		{"escaped variables", "sites: {fra: {location: \"" + rep("$${", size/3) + "\"}}"},
		{"secrets", rep("password: |\n  x\n", size/16)},
		{"secrets in one line", "{" + numbered("pass%d: x, ", size/14) + "}"},
		{"mistakes in one line", "{" + numbered("bad%d: x, ", size/14) + "}"},
		{"one secret in one line", "{" + rep("password: x, ", size/13) + "}"},
		{"many documents", rep("---\n", size/4)},
		{"late mistake", rep("a: 1\n", size/5) + "b\nc: 1\n"},
		{"tags", rep("!a ", size/3)},
		{"same bind", "sites: {f: {location: FRA, nodes: {a: 127.0.0.1}}}\nservices: {s: {backends: {f: [1.1.1.1:1]}}}\nlisteners:\n" + rep("- {bind: \":1\", tcp: {service: s}}\n", 1000)},
	} {
		start := time.Now()
		_, err := config.Parse("x", []byte(c.text), sources())
		took := time.Since(start)
		if err == nil {
			t.Errorf("%s: accepted", c.name)
		}
		if took > 30*time.Second {
			t.Errorf("%s: took %v", c.name, took)
		}
	}
}

// numbered repeats a format with 0, 1, 2, …
func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}
