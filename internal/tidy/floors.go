package tidy

import (
	"fmt"
	"slices"
	"strings"
)

// Module is the path all our import paths start with.
const Module = "github.com/pharos-lb/pharos"

// A Package is what the rules need to know of one package.
type Package struct {
	// Path is the import path.
	Path string
	// Imports are those of the non-test files, TestImports those of the test files.
	Imports, TestImports []string
}

// A Breach is one broken rule.
type Breach struct {
	Place string // package path or file:line
	Rule  string // what is wrong
	Why   string // why the rule exists
}

// String returns "place: rule (why)".
func (b Breach) String() string { return b.Place + ": " + b.Rule + " (" + b.Why + ")" }

// A floor is a set of packages that may import only lower floors. A package
// belongs to the longest prefix that contains it.
type floor struct {
	prefix string
	level  int
}

// house lists the floors; a package in no floor is a breach, so that nobody
// adds a folder without deciding where it stands.
var house = []floor{
	{"internal/health", 0},
	{"geo", 0},
	{"internal/config", 1},
	{"internal/steer", 2},
	{"dnslb", 3},
	{"bgp", 3},
	{"internal/handover", 2},
	{"internal/descriptors", 2},
	{"cluster", 3},
	{"forward", 3},
	{"internal/health/probe", 3},
	{"internal/vip", 3},
	{"internal/decide", 3},
	{"internal/sim", 4},
	{"internal/admin", 4},
	{"internal/node", 5},
	{"internal/demo", 6},
	{"internal/doctor", 6},
	{"internal/lab", 6},
	{"cmd", 7},
	{"internal/tidy", 7},
	{"bench", 7},
}

// forbidden edges that the floors alone allow, each with its why.
var forbidden = []struct{ from, to, why string }{
	{"dnslb", "internal/config", "a tier takes its own Options, so it is understood and tested alone"},
	{"bgp", "internal/config", "a tier takes its own Options, so it is understood and tested alone"},
	{"cluster", "internal/config", "a tier takes its own Options, so it is understood and tested alone"},
	{"forward", "internal/config", "a tier takes its own Options, so it is understood and tested alone"},
	{"internal/vip", "internal/config", "a tier takes its own Options, so it is understood and tested alone"},
	{"internal/health/probe", "internal/config", "a tier takes its own Options, so it is understood and tested alone"},
	{"forward/l4", "forward/l7", "the two engines share package forward, not each other"},
	{"forward/l7", "forward/l4", "the two engines share package forward, not each other"},
}

// importers names the only packages (and those under them) that may import a
// foreign module: when an upstream freezes, one package changes.
var importers = map[string][]string{
	"github.com/miekg/dns":                    {"dnslb", "internal/health/probe", "bench"},
	"github.com/osrg/gobgp":                   {"bgp"},
	"github.com/hashicorp/memberlist":         {"cluster"},
	"github.com/cilium/ebpf":                  {"forward/l4/udp"},
	"go.yaml.in/yaml":                         {"internal/config"},
	"github.com/oschwald/geoip2-golang":       {"geo"},
	"github.com/oschwald/maxminddb-golang":    {"geo"},
	"github.com/spf13/cobra":                  {"cmd"},
	"github.com/invopop/jsonschema":           {"internal/config"},
	"net/http/httputil":                       {},
	"github.com/prometheus/client_golang/api": {},
}

// pureUpTo is the highest floor that is the brain: std library only, no I/O.
const pureUpTo = 2

// pureAbove are packages above those floors that are as pure: what they do has
// to be repeatable to the last bit.
var pureAbove = []string{"internal/decide"}

// impureBelow stand below the tiers, which all need them, without being part of the brain.
var impureBelow = []string{"internal/handover", "internal/descriptors"}

// pure reports whether the floor's packages do no I/O, read no clock and start nothing.
func (f floor) pure() bool {
	return f.level <= pureUpTo && !slices.Contains(impureBelow, f.prefix) || slices.Contains(pureAbove, f.prefix)
}

// allowed are the only foreign modules that packages of floors 0–2 may import:
// those that read a format.
var allowed = map[string][]string{
	"internal/config": {"go.yaml.in/yaml", "github.com/invopop/jsonschema"},
	"geo": {
		"github.com/oschwald/geoip2-golang", "github.com/oschwald/maxminddb-golang", "github.com/klauspost/compress",
	},
}

func inside(pkg, prefix string) bool { return pkg == prefix || strings.HasPrefix(pkg, prefix+"/") }

func floorOf(pkg string) (floor, bool) {
	var best floor
	found := false
	for _, f := range house {
		if inside(pkg, f.prefix) && (!found || len(f.prefix) > len(best.prefix)) {
			best, found = f, true
		}
	}
	return best, found
}

// CheckImports returns every breach of the floors and of the single importers.
// Test files may import any of our packages below cmd, but the single
// importers hold for them too.
func CheckImports(pkgs []Package) []Breach {
	var out []Breach
	for _, p := range pkgs {
		name := strings.TrimPrefix(strings.TrimPrefix(p.Path, Module), "/")
		own, ok := floorOf(name)
		if !ok {
			out = append(out, Breach{p.Path, "stands on no floor", "every package has a place in docs/ARCHITECTURE.md"})
			continue
		}
		for _, imp := range p.Imports {
			out = append(out, checkEdge(name, own, imp)...)
			out = append(out, checkPure(name, own, imp)...)
		}
		for _, imp := range slices.Concat(p.Imports, foreign(p.TestImports)) {
			out = append(out, checkImporter(name, imp)...)
		}
	}
	return out
}

// foreign returns the imports from outside the standard library: a test may
// measure itself against net/http/httputil, but not use a library that is somebody else's.
func foreign(imports []string) []string {
	return slices.DeleteFunc(slices.Clone(imports), standard)
}

// standard reports whether imp is of the standard library.
func standard(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".")
}

// of reports whether imp is a package of module, in any of its versions.
func of(imp, module string) bool { return inside(imp, module) || strings.HasPrefix(imp, module+"/v") }

// checkPure holds floors 0–2 to the foreign modules that they are allowed.
func checkPure(name string, own floor, imp string) []Breach {
	if !own.pure() || generator(name) || standard(imp) || inside(imp, Module) {
		return nil
	}
	if slices.ContainsFunc(allowed[own.prefix], func(module string) bool { return of(imp, module) }) {
		return nil
	}
	return []Breach{{name, "imports " + imp + ", a foreign module", "floors 0–2 are std library only"}}
}

func checkEdge(name string, own floor, imp string) []Breach {
	target, ours := strings.CutPrefix(imp, Module+"/")
	if !ours {
		return nil
	}
	their, ok := floorOf(target)
	if !ok {
		return nil
	}
	var out []Breach
	if their.prefix != own.prefix && their.level >= own.level {
		out = append(out, Breach{
			name, fmt.Sprintf("imports %s: floor %d from floor %d", target, their.level, own.level),
			"imports go downward only, never sideways",
		})
	}
	for _, f := range forbidden {
		if inside(name, f.from) && inside(target, f.to) {
			out = append(out, Breach{name, "imports " + target, f.why})
		}
	}
	return out
}

func checkImporter(name, imp string) []Breach {
	for module, owners := range importers {
		if !of(imp, module) {
			continue
		}
		if slices.ContainsFunc(owners, func(o string) bool { return inside(name, o) }) {
			continue
		}
		return []Breach{{name, "imports " + imp, "one importing package each: a frozen upstream costs us one package"}}
	}
	return nil
}
