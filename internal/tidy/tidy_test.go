package tidy

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
		{"long file", "bgp/a.go", "package bgp\n" + strings.Repeat("// x\n", MaxFileLines), "lines, at most"},
		{"long test file is fine", "bgp/a_test.go", "package bgp\n" + strings.Repeat("// x\n", MaxFileLines), ""},
		{"long function", "bgp/a.go", "package bgp\nfunc f() {\n" + strings.Repeat("\n", MaxFuncLines) + "}\n", "f has"},
		{"syntax error", "bgp/a.go", "package bgp\nfunc {", "does not parse"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { expect(t, CheckSource(Source{tt.path, []byte(tt.text)}), tt.want) })
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
