package tidy

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRepository is the gate: the repository as it is breaks no rule.
func TestRepository(t *testing.T) {
	root := moduleRoot(t)
	breaches := CheckImports(listPackages(t, root))
	sources := readSources(t, root)
	if len(sources) < 20 {
		t.Fatalf("found only %d sources under %s: the walk is broken", len(sources), root)
	}
	for _, s := range sources {
		breaches = append(breaches, CheckSource(s)...)
	}
	breaches = append(breaches, CheckDocs(sources)...)
	for _, b := range breaches {
		t.Error(b)
	}
}

func TestCheckImportsCatchesBreach(t *testing.T) {
	p := func(from string, imports ...string) Package {
		for i, imp := range imports {
			if after, ours := strings.CutPrefix(imp, "~/"); ours {
				imports[i] = Module + "/" + after
			}
		}
		return Package{Path: Module + "/" + from, Imports: imports}
	}
	tests := []struct {
		name string
		pkg  Package
		want string // part of the breach; "" = clean
	}{
		{"downward is fine", p("internal/steer", "~/internal/config", "~/geo"), ""},
		{"within a tier is fine", p("dnslb", "~/dnslb/wire"), ""},
		{"swapped floors", p("internal/config", "~/internal/steer"), "floor 2 from floor 1"},
		{"brain imports tier", p("internal/steer", "~/dnslb"), "floor 3 from floor 2"},
		{"tier imports tier", p("dnslb", "~/bgp"), "floor 3 from floor 3"},
		{"sideways on floor 0", p("geo", "~/internal/health"), "floor 0 from floor 0"},
		{"tier imports config", p("forward/l7", "~/internal/config"), "own Options"},
		{"probe imports config", p("internal/health/probe", "~/internal/config"), "own Options"},
		{"health imports its probe", p("internal/health", "~/internal/health/probe"), "floor 3 from floor 0"},
		{"second gobgp importer", p("internal/node", "github.com/osrg/gobgp/v3/pkg/server"), "one importing package"},
		{"second dns importer", p("internal/demo", "github.com/miekg/dns"), "one importing package"},
		{"second memberlist importer", p("internal/node", "github.com/hashicorp/memberlist"), "one importing package"},
		{"second yaml importer", p("cmd/pharos", "go.yaml.in/yaml/v3"), "one importing package"},
		{"reverse proxy", p("forward/l7", "net/http/httputil"), "one importing package"},
		{"unknown folder", p("util"), "stands on no floor"},
		{"engines apart", p("forward/l4", "~/forward"), ""},
		{"allowed format", p("geo", "github.com/oschwald/maxminddb-golang/v2"), ""},
		{"allowed format, deeper", p("geo/internal/ranges", "github.com/klauspost/compress/zstd"), ""},
		{"allowed elsewhere", p("internal/steer", "github.com/klauspost/compress/zstd"), "std library only"},
		{"foreign in a tier is fine", p("forward", "golang.org/x/sys/unix"), ""},
		{"generator is not the brain", p("geo/internal/gen", "golang.org/x/net/html"), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { expect(t, CheckImports([]Package{tt.pkg}), tt.want) })
	}
}

func TestImportersHoldForTests(t *testing.T) {
	pkg := Package{Path: Module + "/internal/node", TestImports: []string{"github.com/miekg/dns"}}
	expect(t, CheckImports([]Package{pkg}), "one importing package")
	rival := Package{Path: Module + "/forward/l7", TestImports: []string{"net/http/httputil"}}
	expect(t, CheckImports([]Package{rival}), "")
}

func TestCheckSourceCatchesBreach(t *testing.T) {
	tests := []struct {
		name, path, text, want string
	}{
		{"clean", "geo/a.go", "package geo\n", ""},
		{"clock on a pure floor", "internal/steer/a.go", "package steer\nimport \"time\"\nvar x = time.Now()\n", "time.Now"},
		{"clock in a tier is fine", "dnslb/a.go", "package dnslb\nimport \"time\"\nvar x = time.Now()\n", ""},
		{"goroutine on a pure floor", "internal/health/a.go", "package health\nfunc f() { go f() }\n", "go statement"},
		{"goroutine in the probe is fine", "internal/health/probe/a.go", "package probe\nfunc f() { go f() }\n", ""},
		{"file access on a pure floor", "internal/config/a.go", "package config\nimport \"os\"\nvar _ = os.Args\n", "do no I/O"},
		{"clock by another name", "internal/steer/a.go", "package steer\nimport clk \"time\"\nvar x = clk.Now()\n", "time.Now"},
		{"clock by two names", "geo/a.go", "package geo\nimport (\n\"time\"\nclk \"time\"\n)\nvar x, y = clk.Now(), time.Hour\n", "time.Now"},
		{"clock by no name", "internal/steer/a.go", "package steer\nimport . \"time\"\nvar x = Now()\n", "dot import"},
		{"another package's Now", "internal/steer/a.go", "package steer\nimport time \"strings\"\nvar x = time.Now()\n", ""},
		{"durations are fine", "internal/steer/a.go", "package steer\nimport \"time\"\nvar x = time.Hour\n", ""},
		{"long file", "bgp/a.go", "package bgp\n" + strings.Repeat("// x\n", MaxFileLines), "lines, at most"},
		{"long test file is fine", "bgp/a_test.go", "package bgp\n" + strings.Repeat("// x\n", MaxFileLines), ""},
		{"long function", "bgp/a.go", "package bgp\nfunc f() {\n" + strings.Repeat("\n", MaxFuncLines) + "}\n", "f has"},
		{"syntax error", "bgp/a.go", "package bgp\nfunc {", "does not parse"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { expect(t, CheckSource(Source{tt.path, []byte(tt.text)}), tt.want) })
	}
}

// want* are the tables once more: a row that is dropped from a rule is missed here, and a row that is added must be
// added here, where every row has its breach caught.
var (
	wantForbidden = []string{
		"bgp → internal/config", "cluster → internal/config", "dnslb → internal/config", "forward → internal/config",
		"forward/l4 → forward/l7", "forward/l7 → forward/l4", "internal/health/probe → internal/config", "internal/vip → internal/config",
	}
	wantImporters = []string{
		"github.com/cilium/ebpf",
		"github.com/hashicorp/memberlist", "github.com/invopop/jsonschema", "github.com/miekg/dns",
		"github.com/oschwald/geoip2-golang", "github.com/oschwald/maxminddb-golang", "github.com/osrg/gobgp", "github.com/prometheus/client_golang/api",
		"github.com/spf13/cobra", "go.yaml.in/yaml", "net/http/httputil",
	}
	wantImpure = []string{
		"crypto/rand", "log/slog", "math/rand", "math/rand/v2", "net", "net/http", "os", "os/exec", "syscall",
	}
	wantClockCalls = []string{
		"After", "AfterFunc", "NewTicker", "NewTimer", "Now", "Since", "Sleep", "Tick", "Until",
	}
	wantAllowed = map[string][]string{
		"internal/config": {"go.yaml.in/yaml", "github.com/invopop/jsonschema"},
		"geo": {
			"github.com/oschwald/geoip2-golang", "github.com/oschwald/maxminddb-golang", "github.com/klauspost/compress",
		},
	}
	wantPure = []string{"geo", "internal/config", "internal/decide", "internal/health", "internal/steer"}
)

func TestForbidden(t *testing.T) {
	var got []string
	for _, f := range forbidden {
		got = append(got, f.from+" → "+f.to)
		for _, from := range []string{f.from, f.from + "/deeper"} {
			expect(t, CheckImports([]Package{{Path: Module + "/" + from, Imports: []string{Module + "/" + f.to}}}), f.why)
		}
	}
	same(t, got, wantForbidden)
}

func TestImporters(t *testing.T) {
	same(t, slices.Collect(maps.Keys(importers)), wantImporters)
	for module, owners := range importers {
		for _, imp := range []string{module, module + "/v9", module + "/deeper"} {
			// No owner is below internal/lab, nor is the folder pure.
			expect(t, CheckImports([]Package{{Path: Module + "/internal/lab", Imports: []string{imp}}}), "one importing package")
			for _, owner := range owners {
				for _, b := range CheckImports([]Package{{Path: Module + "/" + owner, Imports: []string{imp}}}) {
					if strings.Contains(b.Why, "one importing package") {
						t.Errorf("the owner is refused: %s", b)
					}
				}
			}
		}
	}
}

// TestPureFloors has every pure floor import everything that it must not.
func TestPureFloors(t *testing.T) {
	same(t, slices.Collect(maps.Keys(impure)), wantImpure)
	same(t, slices.Collect(maps.Keys(clockCalls)), wantClockCalls)
	if diff := cmp.Diff(wantAllowed, allowed); diff != "" {
		t.Errorf("allowed modules (-want +got):\n%s", diff)
	}
	var pure []string
	for _, f := range house {
		if f.pure() {
			pure = append(pure, f.prefix)
		}
	}
	same(t, pure, wantPure)
	for _, floor := range pure {
		source := func(text string) []Breach { return CheckSource(Source{floor + "/a.go", []byte("package a\n" + text)}) }
		for imp := range impure {
			expect(t, source("import \""+imp+"\"\n"), imp)
			expect(t, source("import x `"+imp+"`\n"), imp)
		}
		for call := range clockCalls {
			expect(t, source("import \"time\"\nvar x = time."+call+"\n"), "time."+call)
			expect(t, source("import clk \"time\"\nvar x = clk."+call+"\n"), "time."+call)
		}
		imports := func(imp string) []Breach {
			return CheckImports([]Package{{Path: Module + "/" + floor, Imports: []string{imp}}})
		}
		expect(t, imports("golang.org/x/sys/unix"), "std library only")
		expect(t, imports("github.com/prometheus/client_golang/prometheus"), "std library only")
		for owner, modules := range allowed {
			for _, module := range modules {
				want := "std library only"
				if owner == floor {
					want = ""
				}
				expect(t, imports(module+"/v3"), want)
			}
		}
	}
}

// same compares two sets.
func same(t *testing.T, got, want []string) {
	t.Helper()
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the table has changed: change the test with it (-want +got):\n%s", diff)
	}
}

func TestCheckDocsCatchesBreach(t *testing.T) {
	long := "// Package geo " + strings.Repeat("says what it is. ", 10) + "\npackage geo\n"
	expect(t, CheckDocs([]Source{{"geo/doc.go", []byte(long)}, {"geo/b.go", []byte("package geo\n")}}), "")
	expect(t, CheckDocs([]Source{{"geo/doc.go", []byte("// Package geo.\npackage geo\n")}}), "no package doc")
}

// expect wants exactly one breach that contains want, or none for "".
func expect(t *testing.T, got []Breach, want string) {
	t.Helper()
	if want == "" {
		if len(got) != 0 {
			t.Errorf("got %v, want no breach", got)
		}
		return
	}
	for _, b := range got {
		if strings.Contains(b.String(), want) {
			return
		}
	}
	t.Errorf("got %v, want a breach with %q", got, want)
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatalf("find module root: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func listPackages(t *testing.T, root string) []Package {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []Package
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		pkgs = append(pkgs, Package{p.ImportPath, p.Imports, append(p.TestImports, p.XTestImports...)})
	}
}

func readSources(t *testing.T, root string) []Source {
	t.Helper()
	var out []Source
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		out = append(out, Source{filepath.ToSlash(rel), text})
		return err
	})
	if err != nil {
		t.Fatalf("walk sources: %v", err)
	}
	return out
}
