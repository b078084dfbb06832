package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

// TestSchemaGolden shows every change of the format in the diff of one file.
func TestSchemaGolden(t *testing.T) {
	got, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/schema.golden.json"
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the schema has changed: read the diff of go test ./internal/config -run SchemaGolden -update")
	}
	again, _ := Schema()
	if !bytes.Equal(got, again) {
		t.Error("two calls give different bytes")
	}
}

// TestSchemaHasEveryKey walks the key table and the schema side by side.
func TestSchemaHasEveryKey(t *testing.T) {
	s := loadSchema(t)
	defs := s["$defs"].(map[string]any)
	keys := 0
	seen := map[string]bool{}
	var walk func(path string, s *shape, j map[string]any)
	walk = func(path string, s *shape, j map[string]any) {
		if s.name != "" {
			if j != nil && j["$ref"] != "#/$defs/"+s.name {
				t.Errorf("%s: the schema refers to %v, not to %s", path, j["$ref"], s.name)
			}
			if seen[s.name] {
				return
			}
			seen[s.name] = true
			path, j = s.name, defs[s.name].(map[string]any)
		}
		if s.mapping {
			m := form(j, "object")
			props, _ := m["properties"].(map[string]any)
			if len(props) != len(s.fields) {
				t.Errorf("%s: schema has %d keys, the table %d", path, len(props), len(s.fields))
			}
			for _, f := range s.fields {
				keys++
				p, ok := props[f.key].(map[string]any)
				if !ok {
					t.Errorf("%s.%s is not in the schema", path, f.key)
					continue
				}
				if p["description"] != f.doc || f.doc == "" || strings.HasSuffix(f.doc, ".") {
					t.Errorf("%s.%s: description %q, doc %q", path, f.key, p["description"], f.doc)
				}
				if (f.def != nil) != (p["default"] != nil) {
					t.Errorf("%s.%s: default %v, schema %v", path, f.key, f.def, p["default"])
				}
				walk(path+"."+f.key, f.shape, p)
			}
			if s.rest != nil {
				walk(path+".*", s.rest, m["additionalProperties"].(map[string]any))
			} else if m["additionalProperties"] != false {
				t.Errorf("%s: additional properties are allowed", path)
			}
		}
		if s.item != nil {
			walk(path+"[]", s.item, form(j, "array")["items"].(map[string]any))
		}
	}
	walk("", fileKeys(), s)
	if keys < 200 {
		t.Errorf("only %d keys were compared", keys)
	}
}

// form returns the alternative of a schema that has the type.
func form(j map[string]any, kind string) map[string]any {
	if j["type"] == kind {
		return j
	}
	for _, alt := range asList(j["anyOf"]) {
		if m := form(alt.(map[string]any), kind); m != nil {
			return m
		}
	}
	return nil
}

func asList(v any) []any { l, _ := v.([]any); return l }

func loadSchema(t testing.TB) map[string]any {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestDefaultsAreValid: what the schema shows as a default is accepted.
func TestDefaultsAreValid(t *testing.T) {
	seen := map[*shape]bool{}
	var walk func(path string, s *shape)
	walk = func(path string, s *shape) {
		if s.name != "" && seen[s] {
			return
		}
		seen[s] = true
		for _, f := range s.fields {
			at := path + "." + f.key
			if f.def != nil {
				text, err := json.Marshal(map[string]any{f.key: schemaDefault(f.def)})
				if err != nil {
					t.Fatal(err)
				}
				var doc yaml.Node
				if err := yaml.Unmarshal(text, &doc); err != nil {
					t.Fatal(err)
				}
				r := &reading{name: at, lines: splitLines(string(text))}
				v := &value{shape: object(f), node: doc.Content[0]}
				r.read(v)
				if len(r.errs) > 0 {
					t.Errorf("%s: default %s is refused: %v", at, text, r.errs)
				}
				if f.shape.item == nil && v.entry(f.key).data != f.def {
					t.Errorf("%s: default %v is read as %v", at, f.def, v.entry(f.key).data)
				}
			}
			walk(at, f.shape)
		}
		for _, below := range []*shape{s.rest, s.item} {
			if below != nil {
				walk(path+".*", below)
			}
		}
	}
	walk("", fileKeys())
}

// TestSchemaAcceptsExamples: every file that Parse accepts, editors accept.
func TestSchemaAcceptsExamples(t *testing.T) {
	files, _ := filepath.Glob("testdata/good/*.yaml")
	examples, _ := filepath.Glob("../../examples/*.yaml")
	if len(files) < 3 {
		t.Fatalf("%d files", len(files))
	}
	for _, file := range append(files, examples...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(loadSchema(t), decoded(t, text)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// decoded returns a document as an editor's YAML library sees it.
func decoded(t testing.TB, text []byte) any {
	t.Helper()
	var doc any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestSchemaAgreesOnKeys renames, in a file with every key, one key after the
// other to something unknown: Parse and the schema must both notice.
func TestSchemaAgreesOnKeys(t *testing.T) {
	text, err := os.ReadFile("testdata/good/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	schema := &validator{root: loadSchema(t), patterns: map[string]*regexp.Regexp{}}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	renamed := 0
	var walk func(s *shape, n *yaml.Node)
	walk = func(s *shape, n *yaml.Node) {
		if n.Kind == yaml.SequenceNode && s.item != nil {
			for _, item := range n.Content {
				walk(s.item, item)
			}
		}
		if n.Kind != yaml.MappingNode || !s.mapping {
			if s.bare {
				walk(s.item, n)
			}
			return
		}
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i]
			f := s.field(key.Value)
			if f == nil {
				walk(s.rest, n.Content[i+1])
				continue
			}
			old := key.Value
			// In a mapping with the operator's keys, a name that cannot be one.
			key.Value = "Unknown Key!"
			renamed++
			changed, err := yaml.Marshal(&doc)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse("x", changed, Sources{})
			var errs Errors
			if !errors.As(err, &errs) || !slices.ContainsFunc(errs, func(e *Error) bool {
				return strings.HasSuffix(e.Path, key.Value)
			}) {
				t.Errorf("%s renamed: Parse does not say so: %v", old, err)
			}
			if schema.check(schema.root, decoded(t, changed), "$") == nil {
				t.Errorf("%s renamed: the schema accepts it", old)
			}
			key.Value = old
			walk(f.shape, n.Content[i+1])
		}
	}
	walk(fileKeys(), doc.Content[0])
	if renamed < 150 {
		t.Errorf("only %d keys were renamed: everything.yaml does not have every key", renamed)
	}
}

// TestPatternsAgree: a text that a scalar reads matches its pattern, and the
// other way round, so that an editor marks what Parse refuses.
func TestPatternsAgree(t *testing.T) {
	scalars := map[string]*scalar{
		"label": label("x"), "node": nodeName(), "duration": duration("x", 0, math.MaxInt64, 1),
		"status": statusRange(), "region": region(), "header": headerName(),
		"vantage": vantage(fromOwn, fromAll), "vip vantage": vantage(fromOthers), "user": userName(),
	}
	alphabet := []rune("abzAZ019-._:*/ $%msh,é")
	for name, s := range scalars {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			pattern := regexp.MustCompile(s.pattern)
			text := rapid.OneOf(
				rapid.StringOfN(rapid.SampledFrom(alphabet), 0, 70, -1),
				rapid.StringMatching(`[0-9]{1,3}(\.[0-9]?)?(ms|s|m|h)|[1-6][0-9]{2}(-[1-6][0-9]{2})?`),
			).Draw(t, "text")
			_, p := s.read(text)
			if p == nil && !pattern.MatchString(text) {
				t.Fatalf("%q is read, but the pattern %s refuses it", text, s.pattern)
			}
			semantic := p != nil && (strings.Contains(p.message, "ends before") || strings.Contains(p.message, "out of range") ||
				strings.Contains(p.message, "connection's own") || strings.Contains(p.message, "beside headers"))
			if p != nil && !semantic && pattern.MatchString(text) && utf8.ValidString(text) && len(text) < 15 {
				t.Fatalf("%q matches the pattern %s, but is refused: %s", text, s.pattern, p.message)
			}
		}))
	}
}

// validate is a validator for the keywords that Schema uses; an unknown keyword
// is an error, so that it cannot silently check nothing.
func validate(schema map[string]any, doc any) error {
	return (&validator{root: schema, patterns: map[string]*regexp.Regexp{}}).check(schema, doc, "$")
}

type validator struct {
	root     map[string]any
	patterns map[string]*regexp.Regexp // compiled once
}

func (v *validator) pattern(text string) *regexp.Regexp {
	if v.patterns[text] == nil {
		v.patterns[text] = regexp.MustCompile(text)
	}
	return v.patterns[text]
}

func (v *validator) check(s map[string]any, doc any, at string) error {
	for _, keyword := range slices.Sorted(keysOf(s)) {
		if err := v.keyword(keyword, s, doc, at); err != nil {
			return err
		}
	}
	return nil
}

func keysOf(m map[string]any) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (v *validator) keyword(keyword string, s map[string]any, doc any, at string) error {
	arg := s[keyword]
	object, isObject := doc.(map[string]any)
	array, isArray := doc.([]any)
	text, isText := doc.(string)
	number, isNumber := toNumber(doc)
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s: %s: %s", at, keyword, fmt.Sprintf(format, args...))
	}
	count := func() int { f, _ := arg.(float64); return int(f) }
	switch keyword {
	case "$schema", "$id", "$defs", "title", "description", "default", "examples", "additionalProperties":
	case "$ref":
		name := strings.TrimPrefix(arg.(string), "#/$defs/")
		return v.check(v.root["$defs"].(map[string]any)[name].(map[string]any), doc, at)
	case "type":
		_, isBool := doc.(bool)
		ok := map[string]bool{
			"object": isObject, "array": isArray, "string": isText, "number": isNumber,
			"integer": isNumber && number == math.Trunc(number), "boolean": isBool,
		}[arg.(string)]
		if !ok {
			return fail("%v is not %v", doc, arg)
		}
	case "properties":
		additional, open := s["additionalProperties"].(map[string]any)
		for key, item := range object {
			below := at + "." + key
			if p, ok := arg.(map[string]any)[key].(map[string]any); ok {
				if err := v.check(p, item, below); err != nil {
					return err
				}
			} else if !open {
				return fail("unknown %s", key)
			} else if err := v.check(additional, item, below); err != nil {
				return err
			}
		}
	case "propertyNames":
		for key := range object {
			if err := v.check(arg.(map[string]any), key, at+"."+key); err != nil {
				return err
			}
		}
	case "required":
		for _, key := range arg.([]any) {
			if _, ok := object[key.(string)]; isObject && !ok {
				return fail("no %s", key)
			}
		}
	case "items":
		for i, item := range array {
			if err := v.check(arg.(map[string]any), item, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case "anyOf", "oneOf":
		matches := 0
		var last error
		for _, alt := range arg.([]any) {
			if err := v.check(alt.(map[string]any), doc, at); err != nil {
				last = err
			} else {
				matches++
			}
		}
		if matches == 0 || keyword == "oneOf" && matches > 1 {
			return fail("%d match: %v", matches, last)
		}
	case "allOf":
		for _, all := range arg.([]any) {
			if err := v.check(all.(map[string]any), doc, at); err != nil {
				return err
			}
		}
	case "not":
		if v.check(arg.(map[string]any), doc, at) == nil {
			return fail("matches")
		}
	case "enum":
		if !slices.Contains(arg.([]any), doc) {
			return fail("%v", doc)
		}
	case "pattern":
		if isText && !v.pattern(arg.(string)).MatchString(text) {
			return fail("%q", text)
		}
	case "minimum", "maximum":
		limit := arg.(float64)
		if isNumber && (keyword == "minimum" && number < limit || keyword == "maximum" && number > limit) {
			return fail("%v", number)
		}
	case "minItems", "maxItems":
		if isArray && (keyword == "minItems" && len(array) < count() || keyword == "maxItems" && len(array) > count()) {
			return fail("%d", len(array))
		}
	case "minProperties", "maxProperties":
		if isObject && (keyword == "minProperties" && len(object) < count() || keyword == "maxProperties" && len(object) > count()) {
			return fail("%d", len(object))
		}
	default:
		return fail("the validator does not know this keyword")
	}
	return nil
}

func toNumber(doc any) (float64, bool) {
	switch n := doc.(type) {
	case int:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}
