package config

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// mask replaces each character of a secret in an error.
const mask = "*"

// lines is the text of the file as YAML counts it, for the lines above the
// carets. Secrets are masked in it before anything is printed.
type lines []string

// splitLines breaks at every line break that YAML 1.1 knows, so that line
// numbers agree with the parser's.
func splitLines(text string) lines {
	text = strings.TrimPrefix(text, "\uFEFF")
	var all lines
	start := 0
	for i, r := range text {
		width := 0
		switch r {
		case '\n', '\u0085', '\u2028', '\u2029':
			width = len(string(r))
		case '\r':
			width = 1
			if strings.HasPrefix(text[i:], "\r\n") {
				continue // the \n ends the line
			}
		default:
			continue
		}
		all = append(all, strings.TrimSuffix(text[start:i], "\r"))
		start = i + width
	}
	return append(all, strings.TrimSuffix(text[start:], "\r"))
}

// length returns the number of characters of a line.
func (l lines) length(line int) int { return utf8.RuneCountInString(l[line-1]) }

// A span is where a secret begins, and its text as YAML read it; "" if that
// does not say how it was written.
type span struct {
	line, column int
	text         string
}

// hide masks each span: to the end of its token on the line, or the rest of the
// line and every continuation line. It would rather hide too much. Each line is
// taken apart once, however many secrets it has.
func (l lines) hide(spans []span) {
	slices.SortFunc(spans, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	for len(spans) > 0 {
		line := spans[0].line
		n := 0
		for n < len(spans) && spans[n].line == line {
			n++
		}
		if line >= 1 && line <= len(l) {
			l.hideInLine(line, spans[:n])
		}
		spans = spans[n:]
	}
}

func (l lines) hideInLine(line int, spans []span) {
	indent := indentOf(l[line-1])
	runes := []rune(l[line-1])
	for _, s := range spans {
		at := min(max(s.column-1, 0), len(runes))
		if n := tokenLength(runes[at:], s.text); n > 0 {
			fill(runes[at : at+n])
			continue
		}
		// A block, folded, escaped or multi-line value: everything from here to
		// the first line that is indented no deeper than this one.
		fill(runes[at:])
		for next := line; next < len(l); next++ {
			if strings.TrimSpace(l[next]) != "" && indentOf(l[next]) <= indent {
				break
			}
			l[next] = strings.Repeat(mask, l.length(next+1))
		}
		break
	}
	l[line-1] = string(runes)
}

// tokenLength returns how many characters a value takes if it is written here
// plain or quoted, without escapes; 0 if it is not.
func tokenLength(runes []rune, text string) int {
	if text == "" {
		return 0
	}
	for _, token := range []string{text, `"` + text + `"`, "'" + text + "'"} {
		want := []rune(token)
		if len(want) <= len(runes) && slices.Equal(runes[:len(want)], want) {
			return len(want)
		}
	}
	return 0
}

// fill masks characters one by one, so that carets behind them stay in place.
func fill(runes []rune) {
	for i := range runes {
		runes[i] = '*'
	}
}

// hideKeys masks, in a line that could not be parsed, what follows a key that
// names a secret.
func hideKeys(line string) string {
	for _, word := range []string{"password", "secret", "token"} {
		if at := strings.Index(strings.ToLower(line), word); at >= 0 && at+len(word) <= len(line) {
			return line[:at+len(word)] + ": ***"
		}
	}
	return line
}

// namesSecret reports whether a value under the key must not be shown, although
// the key is in the wrong place or, with misspelt, not quite a secret's.
func namesSecret(key string, misspelt bool) bool {
	key = strings.ToLower(key)
	if strings.HasSuffix(key, "_file") {
		return false
	}
	for _, word := range []string{"pass", "secret", "token", "private", "auth", "cookie", "key"} {
		if strings.Contains(key, word) {
			return true
		}
	}
	return misspelt && nearest(key, func(yield func(string) bool) {
		_ = yield("password") && yield("secret") && yield("token")
	}) != ""
}

func indentOf(line string) int { return len(line) - len(strings.TrimLeft(line, " \t")) }
