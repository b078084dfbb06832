package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/dnslb/zone"
	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/steer"
)

// A page is one document of the repository.
type page struct {
	name  string // relative to the repository
	lines []string
}

// A fence is a fenced code block of a page.
type fence struct {
	place    string // page:line of its first line
	language string
	lines    []string
}

const repository = "../.."

// readPages returns every document that operators and contributors read.
func readPages(t *testing.T) []page {
	t.Helper()
	names := []string{"README.md", "CONTRIBUTING.md"}
	err := filepath.WalkDir(filepath.Join(repository, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			name, _ := filepath.Rel(repository, path)
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	pages := make([]page, len(names))
	for i, name := range names {
		data, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			t.Fatal(err)
		}
		pages[i] = page{name, strings.Split(string(data), "\n")}
	}
	return pages
}

// fences returns the page's code blocks and its prose, line by line; lines of
// code are blank in the prose.
func (p page) fences(t *testing.T) (blocks []fence, prose []string) {
	t.Helper()
	prose = slices.Clone(p.lines)
	open := false
	for i, line := range p.lines {
		language, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && !open:
			blocks = append(blocks, fence{place: fmt.Sprintf("%s:%d", p.name, i+2), language: language})
		case !isFence && open:
			last := &blocks[len(blocks)-1]
			last.lines = append(last.lines, line)
		}
		if isFence || open {
			prose[i] = ""
		}
		open = open != isFence
	}
	if open {
		t.Errorf("%s: a code block is not closed", p.name)
	}
	return blocks, prose
}

// checkCommand wants a command line of a document to name a verb that exists,
// flags that exist and, if whole, arguments that the verb takes. It runs nothing.
func checkCommand(line string, whole bool) error {
	if i := strings.Index(line, " #"); i >= 0 {
		line = line[:i]
	}
	words := shellWords(line)[1:]
	if i := slices.IndexFunc(words, func(w string) bool { return strings.ContainsAny(w, "|>&;") }); i >= 0 {
		words = words[:i]
	}
	root := newRoot()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	args := cmd.Flags().Args()
	if cmd == root && len(args) > 0 || cmd.HasSubCommands() && len(args) > 0 && (!cmd.Runnable() || cmd.ValidateArgs(args) != nil) {
		return fmt.Errorf("%s has no verb %q", cmd.CommandPath(), args[0])
	}
	if !whole {
		return nil
	}
	return cmd.ValidateArgs(args)
}

// shellWords splits a line as a shell does, as far as our documents need it:
// quotes keep blanks together, and nothing is expanded.
func shellWords(line string) (words []string) {
	var word strings.Builder
	var quote rune
	begun := false
	for _, c := range line + " " {
		switch {
		case quote == 0 && (c == '"' || c == '\''):
			quote, begun = c, true
		case c == quote:
			quote = 0
		case quote == 0 && c == ' ':
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(c)
			begun = true
		}
	}
	return words
}

var (
	commandLine = regexp.MustCompile(`^(\$ )?((?:bin/)?pharos .*)$`)
	inlineCode  = regexp.MustCompile("`((?:bin/)?pharos [a-z][^`]*)`")
	aLink       = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	aMetric     = regexp.MustCompile(`pharos_[a-z0-9_]+`)
	aRow        = regexp.MustCompile("^\\| `([^`]+)` \\| (.+?) \\| ")
)

func TestDocsCommands(t *testing.T) {
	checked := 0
	for _, p := range readPages(t) {
		blocks, prose := p.fences(t)
		for _, b := range blocks {
			if b.language == "yaml" {
				continue
			}
			for i, line := range b.lines {
				if m := commandLine.FindStringSubmatch(line); m != nil {
					checked++
					if err := checkCommand(m[2], true); err != nil {
						t.Errorf("%s+%d: %s: %v", b.place, i, line, err)
					}
				}
			}
		}
		for i, line := range prose {
			for _, m := range inlineCode.FindAllStringSubmatch(line, -1) {
				checked++
				if err := checkCommand(m[1], false); err != nil {
					t.Errorf("%s:%d: %s: %v", p.name, i+1, m[1], err)
				}
			}
		}
	}
	if checked < 20 {
		t.Errorf("only %d command lines found: is the pattern right?", checked)
	}
}

// TestCheckCommand: the check above can fail.
func TestCheckCommand(t *testing.T) {
	for _, tt := range []struct {
		line string
		ok   bool
	}{
		{"pharos demo break fra      # both backends", true},
		{"pharos status -o json | jq .degraded", true},
		{"pharos explain www.example.com AAAA --from ::1", true},
		{"pharos completion bash", true},
		{`pharos drain 'backend/web/fra/*' --reason "kernel update"   # tonight`, true},
		{"pharos drain backend/web/fra/* --reason kernel update", false},
		{"pharos frobnicate", false},
		{"pharos demo brake fra", false},
		{"pharos status --colour", false},
		{"pharos status fra", false},
		{"pharos explain --from ::1", false},
	} {
		if err := checkCommand(tt.line, true); (err == nil) != tt.ok {
			t.Errorf("%s: got %v, want ok %v", tt.line, err, tt.ok)
		}
	}
}

// base is what a fragment is completed with: it replaces the sections that it has.
var base = []struct{ key, text string }{
	{"sites", `sites:
  fra: {location: FRA, nodes: {fra1: 127.0.1.1}}
  iad: {location: IAD, nodes: {iad1: 127.0.2.1}}
  sin: {location: SIN, nodes: {sin1: 127.0.3.1}}`},
	{"services", `services:
  web: {backends: {fra: ["127.0.1.10:80"]}, vip: {fra: 127.0.1.80}}`},
}

// completed returns the text of a yaml block as a whole configuration.
func completed(b fence) (string, error) {
	if len(b.lines) == 0 {
		return "", fmt.Errorf("is empty")
	}
	text := strings.Join(b.lines, "\n") + "\n"
	switch strings.TrimSpace(b.lines[0]) {
	case "# complete":
		return text, nil
	case "# fragment":
	default:
		return "", fmt.Errorf("begins with %q: want # complete or # fragment", b.lines[0])
	}
	for _, section := range base {
		if !slices.ContainsFunc(b.lines, func(l string) bool { return strings.HasPrefix(l, section.key+":") }) {
			text += section.text + "\n"
		}
	}
	return text, nil
}

// checkConfig wants a text to be a valid configuration with zones that compile
// and tests that pass. Every secret and file that it names is made up.
func checkConfig(text string) error {
	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	cfg, err := config.Parse("pharos.yaml", []byte(text), config.Sources{
		ReadFile: func(name string) ([]byte, error) {
			if strings.HasSuffix(name, ".zone") {
				return os.ReadFile(filepath.Join(repository, "examples", "example.com.zone"))
			}
			return []byte(key), nil
		},
		Getenv: func(string) (string, bool) { return key, true },
	})
	if err != nil {
		return err
	}
	var specs []zone.Spec
	for _, z := range cfg.Zones {
		spec := zone.Spec{Name: z.Name, Master: z.Master, MasterFile: z.MasterFile}
		for _, n := range z.Names {
			spec.Steered = append(spec.Steered, zone.Steered{FQDN: n.FQDN, Service: n.Service, TTL: 30, Anycast: n.Anycast})
		}
		specs = append(specs, spec)
	}
	if _, err := zone.Compile(specs); err != nil {
		return err
	}
	db, err := geo.Embedded()
	if err != nil {
		return err
	}
	topology, err := steer.Compile(cfg, db, "")
	if err != nil {
		return err
	}
	for _, test := range cfg.Tests {
		if r := steer.Check(topology, test); !r.OK {
			return fmt.Errorf("line %d: test failed: %s", test.Line, r)
		}
	}
	return nil
}

func TestDocsConfigurations(t *testing.T) {
	checked := 0
	for _, p := range readPages(t) {
		blocks, _ := p.fences(t)
		for _, b := range blocks {
			if b.language != "yaml" {
				continue
			}
			checked++
			text, err := completed(b)
			if err == nil {
				err = checkConfig(text)
			}
			var list config.Errors
			if asErrors(err, &list) {
				t.Errorf("%s:\n%s", b.place, list.Pretty())
			} else if err != nil {
				t.Errorf("%s: %v", b.place, err)
			}
		}
	}
	if checked < 6 {
		t.Errorf("only %d configurations found", checked)
	}
}

func asErrors(err error, list *config.Errors) bool {
	found, ok := err.(config.Errors)
	*list = found
	return ok
}

// TestCheckConfig: the check above can fail, in each of its steps.
func TestCheckConfig(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		ok         bool
	}{
		{"fragment", "# fragment\ndns: {udp_size: 1232}", true},
		{"no mark", "dns: {udp_size: 1232}", false},
		{"unknown key", "# fragment\ndns: {udp_sise: 1232}", false},
		{"unknown section", "# fragment\ndnss: {udp_size: 1232}", false},
		{"out of range", "# fragment\ndns: {udp_size: 12320}", false},
		{"zone", "# fragment\nzones: {example.com: {records: \"www IN A nonsense\"}}", false},
		{"test", "# fragment\nzones: {example.com: {records: \"@ IN SOA a b 1 1 1 1 1\", names: {www: {service: web}}}}\n" +
			"tests: [{name: www.example.com, type: AAAA, from: DE, expect: fra}]", false},
	} {
		text, err := completed(fence{lines: strings.Split(tt.text, "\n")})
		if err == nil {
			err = checkConfig(text)
		}
		if (err == nil) != tt.ok {
			t.Errorf("%s: got %v, want ok %v", tt.name, err, tt.ok)
		}
	}
}

func TestDocsLinks(t *testing.T) {
	for _, p := range readPages(t) {
		_, prose := p.fences(t)
		for i, line := range prose {
			for _, m := range aLink.FindAllStringSubmatch(line, -1) {
				target, _, _ := strings.Cut(m[1], "#")
				if target == "" || strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
					continue
				}
				if _, err := os.Stat(filepath.Join(repository, filepath.Dir(p.name), target)); err != nil {
					t.Errorf("%s:%d: the link to %s leads nowhere", p.name, i+1, m[1])
				}
			}
		}
	}
}

// literals returns the string literals of the non-test Go files, by folder.
func literals(t *testing.T) map[string]map[string]bool {
	t.Helper()
	all := make(map[string]map[string]bool)
	err := filepath.WalkDir(repository, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder := filepath.Dir(path)
		if all[folder] == nil {
			all[folder] = make(map[string]bool)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil {
					all[folder][text] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// isMetric reports whether some package makes a metric of that name: in one
// literal, as a prefix and a name, or as the namespace pharos, the package for
// the subsystem, and a name.
func isMetric(name string, all map[string]map[string]bool) bool {
	for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
		plain, ok := strings.CutSuffix(name, suffix)
		if !ok {
			continue
		}
		for folder, words := range all {
			if words[plain] {
				return true
			}
			for i := len("pharos_"); i < len(plain); i++ {
				if plain[i-1] != '_' || !words[plain[i:]] {
					continue
				}
				subsystem := strings.Trim(strings.TrimPrefix(plain[:i], "pharos_"), "_")
				if words[plain[:i]] || words["pharos"] && filepath.Base(folder) == subsystem {
					return true
				}
			}
		}
	}
	return false
}

func TestDocsMetrics(t *testing.T) {
	all := literals(t)
	checked := 0
	for _, p := range readPages(t) {
		for i, line := range p.lines {
			for _, name := range aMetric.FindAllString(line, -1) {
				if strings.Contains(line, "protocol bgp "+name) || strings.Contains(line, "protocols all "+name) {
					continue // BIRD's name for a session
				}
				checked++
				if !isMetric(name, all) {
					t.Errorf("%s:%d: there is no metric %s", p.name, i+1, name)
				}
			}
		}
	}
	if checked < 40 {
		t.Errorf("only %d metrics found", checked)
	}
	for _, name := range []string{"pharos_dnslb_nonsense_total", "pharos_cluster_dropped", "pharos_bgp_zones", "pharos_l7_up_bytes_total"} {
		if isMetric(name, all) {
			t.Errorf("%s was found although there is no such metric", name)
		}
	}
}

// A schema is what is needed of the configuration's JSON Schema.
type schema struct {
	Properties           map[string]*schema `json:"properties"`
	AdditionalProperties json.RawMessage    `json:"additionalProperties"`
	Items                *schema            `json:"items"`
	AnyOf                []*schema          `json:"anyOf"`
	Default              any                `json:"default"`
	Required             []string           `json:"required"`
}

// keys calls visit for every key below s, by its path as the documents write it.
func (s *schema) keys(path string, visit func(path string, key *schema, required bool)) {
	if s == nil {
		return
	}
	dot := strings.TrimPrefix(path+".", ".")
	for name, key := range s.Properties {
		visit(dot+name, key, slices.Contains(s.Required, name))
		key.keys(dot+name, visit)
	}
	var rest schema
	if len(s.AdditionalProperties) > 0 && json.Unmarshal(s.AdditionalProperties, &rest) == nil {
		rest.keys(dot+"*", visit)
	}
	s.Items.keys(path+"[]", visit)
	for _, form := range s.AnyOf {
		form.keys(path, visit)
	}
}

// A documentedKey is a key of the schema.
type documentedKey struct {
	def      string // "" = none
	required bool
	leaf     bool // nothing below it
}

func documentedKeys(t *testing.T) map[string]documentedKey {
	t.Helper()
	text, err := config.Schema()
	if err != nil {
		t.Fatal(err)
	}
	var root schema
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]documentedKey)
	root.keys("", func(path string, key *schema, required bool) {
		def := ""
		switch d := key.Default.(type) {
		case nil:
		case []any:
			def = strings.ReplaceAll(strings.Trim(fmt.Sprint(d), "[]"), " ", ", ")
			if len(d) > 1 {
				def = "[" + def + "]"
			}
		default:
			def = fmt.Sprint(d)
		}
		below := false
		key.keys("", func(string, *schema, bool) { below = true })
		all[plainKey(path)] = documentedKey{def, required, !below}
	})
	return all
}

// plainKey makes paths of documents and of the schema comparable: names that
// the operator gives become "*", lists lose their mark.
func plainKey(path string) string {
	parts := strings.Split(strings.ReplaceAll(path, "[]", ""), ".")
	for i, p := range parts {
		if p == strings.ToUpper(p) {
			parts[i] = "*"
		}
	}
	return strings.Join(parts, ".")
}

// TestDocsKeys holds the tables of keys to the schema: each key exists and has
// the default that is given, and no key is missing.
func TestDocsKeys(t *testing.T) {
	known := documentedKeys(t)
	seen := make(map[string]bool)
	for _, p := range readPages(t) {
		_, prose := p.fences(t)
		inTable := false
		for i, line := range prose {
			inTable = strings.HasPrefix(line, "| key | default |") || inTable && strings.HasPrefix(line, "|")
			m := aRow.FindStringSubmatch(line)
			if !inTable || m == nil {
				continue
			}
			path := plainKey(m[1])
			seen[path] = true
			key, ok := known[path]
			switch {
			case !ok && strings.HasSuffix(path, ".vip.*"): // by site: a value, not a key
			case !ok:
				t.Errorf("%s:%d: there is no key %s", p.name, i+1, m[1])
			case key.def != "" && m[2] != "`"+key.def+"`":
				t.Errorf("%s:%d: the default of %s is given as %s, want `%s`", p.name, i+1, m[1], m[2], key.def)
			case key.required != (m[2] == "required") && key.def == "" && path != "sites.*.nodes":
				t.Errorf("%s:%d: %s: required is %v, the table says %s", p.name, i+1, m[1], key.required, m[2])
			}
		}
	}
	for path, key := range known {
		twin := strings.Replace(path, ".https.", ".http.", 1)
		if key.leaf && !seen[path] && !seen[twin] {
			t.Errorf("no table of keys has %s", path)
		}
	}
}
