package tidy

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"strings"
)

// Limits of size. A file or function over them is split where the idea splits.
const (
	MaxFileLines = 500
	MaxFuncLines = 80
)

// A Source is one Go file.
type Source struct {
	Path string // relative to the module's root, with slashes
	Text []byte
}

// impure are imports that floors 0–2 must not have, with what to do instead.
var impure = map[string]string{
	"os":       "facts come in as arguments",
	"os/exec":  "facts come in as arguments",
	"net":      "use net/netip",
	"net/http": "facts come in as arguments",
	"log/slog": "the brain returns reasons; node logs them",
	"syscall":  "facts come in as arguments",

	"math/rand":    "the same facts give the same decision on every node",
	"math/rand/v2": "the same facts give the same decision on every node",
	"crypto/rand":  "the same facts give the same decision on every node",
}

// clockCalls are functions of package time that read the clock or wait.
var clockCalls = map[string]bool{
	"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true,
	"AfterFunc": true, "NewTimer": true, "NewTicker": true, "Tick": true,
}

// CheckSource returns every breach in one file, except package docs, which
// concern several files at once.
func CheckSource(s Source) []Breach {
	if strings.HasSuffix(s.Path, "_test.go") {
		return nil
	}
	var out []Breach
	if n := strings.Count(string(s.Text), "\n"); n > MaxFileLines {
		out = append(out, Breach{s.Path, fmt.Sprintf("%d lines, at most %d", n, MaxFileLines), "one noun a file"})
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, s.Path, s.Text, parser.SkipObjectResolution)
	if err != nil {
		return append(out, Breach{s.Path, "does not parse: " + err.Error(), "it has to"})
	}
	f, ok := floorOf(path.Dir(s.Path))
	pure := ok && f.pure() && !generator(s.Path)
	clock := importNames(file, "time")
	ast.Inspect(file, func(n ast.Node) bool {
		out = append(out, checkNode(fset, n, pure, clock)...)
		return true
	})
	return out
}

// importNames returns what file calls a package of the standard library.
func importNames(file *ast.File, imported string) map[string]bool {
	names := map[string]bool{}
	for _, spec := range file.Imports {
		switch {
		case strings.Trim(spec.Path.Value, "`\"") != imported:
		case spec.Name == nil:
			names[path.Base(imported)] = true
		default:
			names[spec.Name.Name] = true
		}
	}
	return names
}

// generator reports whether a file belongs to a program that makes data at
// development time; it stands beside the pure package but never in the binary.
func generator(name string) bool { return strings.Contains(name, "/internal/gen") }

func checkNode(fset *token.FileSet, n ast.Node, pure bool, clock map[string]bool) []Breach {
	at := func(p token.Pos) string { return fset.Position(p).String() }
	switch n := n.(type) {
	case *ast.FuncDecl:
		lines := fset.Position(n.End()).Line - fset.Position(n.Pos()).Line + 1
		if lines > MaxFuncLines {
			return []Breach{{at(n.Pos()), fmt.Sprintf("%s has %d lines, at most %d", n.Name.Name, lines, MaxFuncLines), "functions fit a screen"}}
		}
	case *ast.GoStmt:
		if pure {
			return []Breach{{at(n.Pos()), "go statement", "floors 0–2 start no goroutine"}}
		}
	case *ast.ImportSpec:
		imported := strings.Trim(n.Path.Value, "`\"")
		if why, bad := impure[imported]; bad && pure {
			return []Breach{{at(n.Pos()), "imports " + n.Path.Value, "floors 0–2 do no I/O: " + why}}
		}
		if imported == "time" && n.Name != nil && n.Name.Name == "." && pure {
			return []Breach{{at(n.Pos()), "dot import of time", "a clock that is read has to show"}}
		}
	case *ast.SelectorExpr:
		if id, ok := n.X.(*ast.Ident); ok && pure && clock[id.Name] && clockCalls[n.Sel.Name] {
			return []Breach{{at(n.Pos()), "time." + n.Sel.Name, "floors 0–2 read no clock: time comes in as an argument"}}
		}
	}
	return nil
}

// CheckDocs returns a breach for every package whose non-test files carry no
// package comment of at least two sentences' length.
func CheckDocs(sources []Source) []Breach {
	const minDoc = 80 // characters; shorter is a title, not a doc
	docs := map[string]int{}
	for _, s := range sources {
		if strings.HasSuffix(s.Path, "_test.go") {
			continue
		}
		dir := path.Dir(s.Path)
		file, err := parser.ParseFile(token.NewFileSet(), s.Path, s.Text, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			continue // CheckSource says so
		}
		docs[dir] = max(docs[dir], len(file.Doc.Text()))
	}
	var out []Breach
	for dir, length := range docs {
		if length < minDoc {
			out = append(out, Breach{dir, "has no package doc", "a package says what it is, what it never does, who calls it"})
		}
	}
	return out
}
