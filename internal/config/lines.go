package config

import (
	"strings"
	"unicode/utf8"
)

// mask begins what replaces a secret in an error.
const mask = "*"

// masked is as long as what it hides, so that carets behind it stay in place.
func masked(text string) string { return strings.Repeat("*", utf8.RuneCountInString(text)) }

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

// clamp returns the position inside the file nearest to line, column.
func (l lines) clamp(line, column int) (int, int) {
	line = min(max(line, 1), len(l))
	return line, min(max(column, 1), len([]rune(l[line-1]))+1)
}

// hide masks the value that begins at line, column: to the end of its token on
// that line, and every continuation line. It would rather hide too much.
func (l lines) hide(line, column int, value string) {
	if line < 1 || line > len(l) {
		return
	}
	runes := []rune(l[line-1])
	at := min(max(column-1, 0), len(runes))
	rest := string(runes[at:])
	if strings.HasPrefix(rest, mask) {
		return // hidden already
	}
	for _, token := range []string{value, `"` + value + `"`, "'" + value + "'"} {
		if after, ok := strings.CutPrefix(rest, token); ok && value != "" {
			l[line-1] = string(runes[:at]) + masked(token) + after
			return
		}
	}
	// A block, folded, escaped or multi-line value: everything from here to the
	// first line that is indented no deeper than this one.
	indent := indentOf(l[line-1])
	l[line-1] = string(runes[:at]) + masked(rest)
	for next := line; next < len(l); next++ {
		if strings.TrimSpace(l[next]) != "" && indentOf(l[next]) <= indent {
			break
		}
		l[next] = masked(l[next])
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
	for _, word := range []string{"pass", "secret", "token", "private", "auth", "cookie"} {
		if strings.Contains(key, word) {
			return true
		}
	}
	return misspelt && nearest(key, func(yield func(string) bool) {
		_ = yield("password") && yield("secret") && yield("token")
	}) != ""
}

func indentOf(line string) int { return len(line) - len(strings.TrimLeft(line, " \t")) }
