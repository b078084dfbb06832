package probe

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// JSONMatch is one condition on a JSON body: the value at Path, as text, is Value.
// A path is "$.a.b[0].c", with or without "$."; a name that holds any of . [ ] " or
// is empty is written in brackets and as a JSON string, `$["a.b"]`. Text is the value of a
// string, and else what the body says: 1.0 is not 1. An object or array matches
// nothing.
type JSONMatch struct{ Path, Value string }

// maxSteps is how deep a path may go, maxIndex the largest array index in it.
const (
	maxSteps = 64
	maxIndex = 1<<16 - 1
)

// step is one step of a path: into an object by name or into an array by index.
type step struct {
	name  string
	index int // -1: by name
}

// jsonPath is the way to a value in a JSON document; empty for the whole.
type jsonPath []step

// parsePath parses "$.a.b[0].c".
func parsePath(s string) (jsonPath, error) {
	bad := func(rest, what string) (jsonPath, error) {
		return nil, fmt.Errorf("path %.60q: %s at %.20q", s, what, rest)
	}
	if s == "" {
		return nil, errors.New("path \"\": want something like $.status")
	}
	rest := s
	if s[0] == '$' && (len(s) == 1 || s[1] == '.' || s[1] == '[') {
		rest = s[1:]
	} else if s[0] != '[' {
		rest = "." + s
	}
	path := jsonPath{}
	for rest != "" {
		if len(path) == maxSteps {
			return bad(rest, fmt.Sprintf("more than %d steps", maxSteps))
		}
		var next step
		var n int
		switch {
		case rest[0] == '.':
			n = 1 + strings.IndexAny(rest[1:]+".", `.[]"`)
			next = step{rest[1:n], -1}
			if n == 1 {
				return bad(rest, "want a name")
			}
		case strings.HasPrefix(rest, `["`):
			quoted, err := strconv.QuotedPrefix(rest[1:])
			if err != nil || !strings.HasPrefix(rest[1+len(quoted):], "]") {
				return bad(rest, `want ["name"]`)
			}
			name, err := strconv.Unquote(quoted)
			if err != nil {
				return bad(rest, `want ["name"]`)
			}
			n, next = len(quoted)+2, step{name, -1}
		case rest[0] == '[':
			digits, _, closed := strings.Cut(rest[1:], "]")
			index, err := strconv.ParseUint(digits, 10, 16)
			if err != nil || !closed {
				return bad(rest, fmt.Sprintf("want an index of 0 to %d in brackets", maxIndex))
			}
			n, next = len(digits)+2, step{"", int(index)}
		default:
			return bad(rest, "want . or [")
		}
		path, rest = append(path, next), rest[n:]
	}
	return path, nil
}

// String returns p as parsePath reads it.
func (p jsonPath) String() string {
	var b strings.Builder
	b.WriteByte('$')
	for _, s := range p {
		switch {
		case s.index >= 0:
			fmt.Fprintf(&b, "[%d]", s.index)
		case s.name == "" || strings.ContainsAny(s.name, `.[]"`):
			fmt.Fprintf(&b, "[%s]", strconv.Quote(s.name))
		default:
			b.WriteString("." + s.name)
		}
	}
	return b.String()
}

// find returns what is at p in v, which is what encoding/json makes of a document.
func (p jsonPath) find(v any) (any, bool) {
	for _, s := range p {
		switch in := v.(type) {
		case map[string]any:
			inner, ok := in[s.name]
			if !ok || s.index >= 0 {
				return nil, false
			}
			v = inner
		case []any:
			if s.index < 0 || s.index >= len(in) {
				return nil, false
			}
			v = in[s.index]
		default:
			return nil, false
		}
	}
	return v, true
}
