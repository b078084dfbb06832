package config_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/internal/config"
)

func TestLoad(t *testing.T) {
	src := sources()
	if _, err := config.Load("gone.yaml", src); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "gone.yaml") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := config.Load("x", config.Sources{}); err == nil {
		t.Error("no ReadFile: no error")
	}
	read := src.ReadFile
	var names []string
	src.ReadFile = func(name string) ([]byte, error) {
		names = append(names, name)
		if name == "/etc/pharos/pharos.yaml" {
			return os.ReadFile("testdata/good/three-sites.yaml")
		}
		return read(strings.TrimPrefix(name, "/etc/pharos/"))
	}
	if _, err := config.Load("/etc/pharos/pharos.yaml", src); err != nil {
		t.Fatal(err)
	}
	want := "[/etc/pharos/pharos.yaml /etc/pharos/gossip.key /etc/pharos/example.com.zone /etc/pharos/password]"
	if got := fmt.Sprint(names); got != want {
		t.Errorf("files read: got %s, want %s", got, want)
	}
}

// TestHash: equal inputs hash alike wherever they lie; any byte that matters
// changes the hash; a secret does not.
func TestHash(t *testing.T) {
	const text = `
cluster: {name: "${NAME}", secret_file: key}
sites: {fra: {location: FRA, nodes: {fra1: 127.0.0.1}}}
zones: {example.com: {file: zone}}
`
	hash := func(name, text, env, zone, key string) uint64 {
		cfg, err := config.Parse(name, []byte(text), config.Sources{
			Getenv: func(string) (string, bool) { return env, true },
			ReadFile: func(name string) ([]byte, error) {
				if strings.HasSuffix(name, "zone") {
					return []byte(zone), nil
				}
				return []byte(key), nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		return cfg.Hash
	}
	const key, other = "MDEyMzQ1Njc4OWFiY2RlZg==", "ZmVkY2JhOTg3NjU0MzIxMA=="
	base := hash("/a/pharos.yaml", text, "prod", "@ NS ns", key)
	for _, c := range []struct {
		name string
		got  uint64
		same bool
	}{
		{"again", hash("/a/pharos.yaml", text, "prod", "@ NS ns", key), true},
		{"another folder", hash("b/other.yaml", text, "prod", "@ NS ns", key), true},
		{"another secret", hash("/a/pharos.yaml", text, "prod", "@ NS ns", other), true},
		{"another text", hash("/a/pharos.yaml", text+"dns: {}\n", "prod", "@ NS ns", key), false},
		{"another variable", hash("/a/pharos.yaml", text, "test", "@ NS ns", key), false},
		{"another zone file", hash("/a/pharos.yaml", text, "prod", "@ NS ns2", key), false},
	} {
		if (c.got == base) != c.same {
			t.Errorf("%s: hash %x, base %x, want same %v", c.name, c.got, base, c.same)
		}
	}
}

// TestUnreadable: texts that cannot be in a golden file.
func TestUnreadable(t *testing.T) {
	label := strings.Repeat("a", 63)
	zone := "sites: {fra: {location: FRA, nodes: {fra1: 127.0.0.1}}}\nservices: {s: {backends: {fra: [10.0.0.1:1]}, vip: {fra: 127.0.0.2}}}\n" +
		"zones: {example.com: {records: x, names: {%s: {service: s}}}}\n"
	for _, c := range []struct{ name, text, want string }{
		{"UTF-16", "\xff\xfea\x00", "x:1:1: the file is not UTF-8 text: byte 0xff"},
		{"Latin-1", "sites:\n  fra: gr\xfcn\n", "x:2:10: the file is not UTF-8 text: byte 0xfc"},
		{"control", "sites:\n  \"\x01\": 1\n", "x:2:4: control characters (U+0001) are not allowed"},
		{"NUL", "\x00", "x:1:1: control characters (U+0000) are not allowed"},
		{"size", strings.Repeat("#", 16<<20+1), "x:1:1: the file has 16777217 bytes: at most 16777216 are read"},
		{"values", strings.Repeat("[", 3<<20), "x:1:1: the file has too many values: move records into zone files"},
		{"lines", strings.Repeat("\n", 3<<20), "x:1:1: the file has too many values: move records into zone files"},
		{"depth", strings.Repeat("[", 20_000), "x:1:1: this is not YAML: exceeded max depth of 10000"},
		{"byte order mark", "\ufeffsite: {}\n", `x:1:1: site: unknown key (did you mean "sites"?)`},
		{"line separators", "sites: {}\u2028\r\r\n\u0085zone: {}", "x:1:8: sites: is empty: write at least 1 entry (and 1 more)"},
		{"long value", "cluster: {name: " + strings.Repeat("x", 1000) + "}\nsites: {fra: {location: FRA, nodes: {fra1: 127.0.0.1}}}", "x:1:17: cluster.name: \"" + strings.Repeat("x", 60) + "…\" is not a cluster's name: 1 to 63 lower-case letters, digits and hyphens, beginning with a letter"},
		{"longest name", fmt.Sprintf(zone, label+"."+label+"."+label+"."+strings.Repeat("a", 49)), ""},
		{"too long a name", fmt.Sprintf(zone, label+"."+label+"."+label+"."+strings.Repeat("a", 50)), `too long: a DNS name has at most 253 characters`},
		{"longest label", fmt.Sprintf(zone, label), ""},
		{"too long a label", fmt.Sprintf(zone, label+"a"), "has more than 63 characters"},
	} {
		_, err := config.Parse("x", []byte(c.text), sources())
		if got := fmt.Sprint(err); c.want == "" && err != nil || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

// TestExpansionCannotInject: what a variable holds is one value, whatever it is.
func TestExpansionCannotInject(t *testing.T) {
	src := config.Sources{Getenv: func(string) (string, bool) {
		return "x}\nadmin: {listen: \":1\"} # ${OTHER}", true
	}}
	cfg, err := config.Parse("x", []byte(`
sites: {fra: {location: FRA, nodes: {fra1: 127.0.0.1}}}
zones: {example.com: {records: "a ${X} $${X} $ {X} b"}}
`), src)
	if err != nil {
		t.Fatal(err)
	}
	want := "a x}\nadmin: {listen: \":1\"} # ${OTHER} ${X} $ {X} b"
	if got := cfg.Zones[0].Master; got != want || cfg.Admin.Listen.Port != 0 {
		t.Errorf("got %q, want %q; admin %+v", got, want, cfg.Admin)
	}
	src.Getenv = func(string) (string, bool) { return strings.Repeat("x", 1<<20), true }
	_, err = config.Parse("x", []byte(`sites: {fra: {location: "${X}${X}", nodes: {fra1: 127.0.0.1}}}`), src)
	if err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("huge variable: %v", err)
	}
}

// TestErrorsAreBounded: a file that is wrong everywhere says so briefly.
func TestErrorsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "wrong%d: {}\n", i)
	}
	_, err := config.Parse("x", []byte(b.String()), config.Sources{})
	var errs config.Errors
	if !errors.As(err, &errs) || len(errs) != 1001 {
		t.Fatalf("%d errors, want 1001", len(errs))
	}
	pretty := errs.Pretty()
	if !strings.HasSuffix(pretty, "and 951 more\n") || strings.Count(pretty, "\n") != 151 {
		t.Errorf("%d lines, ending %q", strings.Count(pretty, "\n"), pretty[len(pretty)-40:])
	}
	if last := errs[1000].Message; last != "there are 4001 more mistakes, not listed" {
		t.Errorf("last: %q", last)
	}
	if got := errs.Error(); strings.Contains(got, "\n") || !strings.HasSuffix(got, "(and 1000 more)") {
		t.Errorf("Error: %q", got)
	}
	var first *config.Error
	if !errors.As(err, &first) || first != errs[0] {
		t.Error("errors.As does not find the first Error")
	}
}

// TestOwnCopy: the configuration does not change when the caller reuses its bytes.
func TestOwnCopy(t *testing.T) {
	data := []byte("cluster: {name: prod}\nsites: {fra: {location: FRA, nodes: {fra1: 127.0.0.1}}}\n")
	cfg, err := config.Parse("x", data, config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		data[i] = '#'
	}
	if cfg.Cluster.Name != "prod" || cfg.Sites[0].Nodes[0].Name != "fra1" {
		t.Errorf("changed: %+v", cfg)
	}
}

// TestOddSources: nil functions and failing files are errors with a place.
func TestOddSources(t *testing.T) {
	text := "cluster: {name: \"${X}\", secret_file: k}\nsites: {fra: {location: FRA, nodes: {fra1: 127.0.0.1}}}\n"
	for _, c := range []struct {
		name, want string
		src        config.Sources
	}{
		{"nil", "cannot be read: no files here", config.Sources{}},
		{"plain error", "cannot read k: first second", config.Sources{ReadFile: func(string) ([]byte, error) { return nil, errors.New("first\nsecond") }}},
	} {
		_, err := config.Parse("x", []byte(text), c.src)
		var errs config.Errors
		if !errors.As(err, &errs) || len(errs) != 2 || !strings.Contains(errs.Pretty(), c.want) || !strings.Contains(errs.Pretty(), "X is not set") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
