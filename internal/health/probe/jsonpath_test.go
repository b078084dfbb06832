package probe

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParsePath(t *testing.T) {
	for in, want := range map[string]jsonPath{
		"$":            {},
		"status":       {{"status", -1}},
		"$.status":     {{"status", -1}},
		"$.a.b[0].c":   {{"a", -1}, {"b", -1}, {"", 0}, {"c", -1}},
		"a.b[0].c":     {{"a", -1}, {"b", -1}, {"", 0}, {"c", -1}},
		"$[3][65535]":  {{"", 3}, {"", 65535}},
		"[3]":          {{"", 3}},
		`$["a.b"].c`:   {{"a.b", -1}, {"c", -1}},
		`$[""]`:        {{"", -1}},
		`$["]\""][1]`:  {{`]"`, -1}, {"", 1}},
		"$ref":         {{"$ref", -1}},
		"$.$":          {{"$", -1}},
		"größe.im-kB ": {{"größe", -1}, {"im-kB ", -1}},
	} {
		got, err := parsePath(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(step{})); diff != "" {
			t.Errorf("%s: %s", in, diff)
		}
	}
	for in, want := range map[string]string{
		"":                             "want something like $.status",
		".":                            "want a name",
		"$.":                           "want a name",
		"$..a":                         "want a name",
		"a.":                           "want a name",
		"a[":                           "want an index of 0 to 65535 in brackets",
		"a[]":                          "want an index",
		"a[-1]":                        "want an index",
		"a[65536]":                     "want an index",
		"a[*]":                         "want an index",
		"a[1":                          "want an index",
		`a["b]`:                        `want ["name"] at "[\"b]"`,
		`a["b"`:                        `want ["name"]`,
		"a]":                           "want . or [ at \"]\"",
		"a[0]b":                        "want . or [ at \"b\"",
		strings.Repeat("a.", 64) + "b": "more than 64 steps",
	} {
		if _, err := parsePath(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", in, err, want)
		}
	}
}

// FuzzParsePath: what is parsed and written again is the same path, and it finds
// what is planted at it in a document, and nothing in other documents.
func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"$.a.b[0].c", "a", `$["a.b"][7]`, "$", "a[", `["]`, "$.größe", `["\u00e9"]`, "[1][2]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, err := parsePath(s)
		if err != nil {
			return
		}
		again, err := parsePath(path.String())
		if err != nil {
			t.Fatalf("%q: written as %q: %v", s, path, err)
		}
		if diff := cmp.Diff(path, again, cmp.AllowUnexported(step{})); diff != "" {
			t.Fatalf("%q: %s", s, diff)
		}
		var doc any = json.Number("42")
		for i := len(path) - 1; i >= 0; i-- {
			if path[i].index >= 0 {
				list := make([]any, path[i].index+1)
				list[path[i].index] = doc
				doc = list
			} else {
				doc = map[string]any{path[i].name: doc}
			}
		}
		if v, ok := path.find(doc); !ok || v != json.Number("42") {
			t.Fatalf("%q: found %v in %v", s, v, doc)
		}
		for _, other := range []any{nil, "text", []any{}, map[string]any{}} {
			if v, ok := path.find(other); ok && len(path) > 0 {
				t.Fatalf("%q: found %v in %v", s, v, other)
			}
		}
	})
}
