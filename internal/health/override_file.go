package health

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of a file of overrides.
const (
	// MaxOverridesFile is the largest file, in bytes.
	MaxOverridesFile = 1 << 20
	// MaxOverrideFor is the longest time that an order may be given for; without
	// one it stands until it is cleared.
	MaxOverrideFor = 366 * 24 * time.Hour
)

// A Wanted is one line of a file of overrides.
type Wanted struct {
	// Line is its number, from 1.
	Line int
	// Pattern names the scopes, for MatchScopes.
	Pattern string
	Order   Order
	// For is how long the order stands; 0 = until it is cleared.
	For    time.Duration
	Reason string
}

// ParseOverridesFile reads the overrides that automation wants, one a line:
//
//	SCOPE-PATTERN ORDER [for=DURATION] [REASON …]
//	site/fra        drain  for=2h  maintenance of the power supply
//	backend/web/*/* none
//
// The order is drain, down, up or none. Empty lines and what follows a "#" at the
// start of a line or after a blank are passed over. A file is taken whole or not
// at all: with any mistake nothing is returned but the errors, each with its
// line, joined. A pattern may be given once.
func ParseOverridesFile(r io.Reader) ([]Wanted, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxOverridesFile+1))
	if err != nil {
		return nil, fmt.Errorf("read overrides: %w", err)
	}
	if len(data) > MaxOverridesFile {
		return nil, fmt.Errorf("overrides: more than %d bytes", MaxOverridesFile)
	}
	if !utf8.Valid(data) {
		return nil, errors.New("overrides: the file is not UTF-8")
	}
	var list []Wanted
	var mistakes []error
	seen := make(map[string]int)
	number := 0
	for line := range bytes.Lines(data) {
		number++
		w, ok, err := parseWanted(withoutComment(string(line)))
		if !ok {
			continue
		}
		if first := seen[w.Pattern]; err == nil && first != 0 {
			err = fmt.Errorf("%s is already given in line %d", w.Pattern, first)
		}
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("line %d: %w", number, err))
			continue
		}
		seen[w.Pattern], w.Line = number, number
		list = append(list, w)
	}
	if len(list) > MaxOverrides {
		mistakes = append(mistakes, fmt.Errorf("%d overrides, at most %d", len(list), MaxOverrides))
	}
	if len(mistakes) > 0 {
		return nil, errors.Join(mistakes...)
	}
	return list, nil
}

// withoutComment cuts a comment off: a "#" that begins a word.
func withoutComment(line string) string {
	for i := range len(line) {
		if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			return line[:i]
		}
	}
	return line
}

// parseWanted reads one line; ok is false if there is nothing on it.
func parseWanted(line string) (w Wanted, ok bool, err error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return w, false, nil
	}
	w.Pattern = words[0]
	if err := CheckScopePattern(w.Pattern); err != nil {
		return w, true, err
	}
	if len(words) == 1 {
		return w, true, fmt.Errorf("%s: the order is missing: drain, down, up or none", clip(w.Pattern))
	}
	if w.Order, err = ParseOrder(words[1]); err != nil {
		return w, true, err
	}
	words = words[2:]
	if len(words) > 0 {
		if text, is := strings.CutPrefix(words[0], "for="); is {
			if w.For, err = parseFor(text); err != nil {
				return w, true, err
			}
			words = words[1:]
		}
	}
	if w.Order == OrderNone && w.For != 0 {
		return w, true, errors.New("none is for good: it takes no for=")
	}
	w.Reason = strings.Join(words, " ")
	return w, true, checkText("reason", w.Reason, MaxOverrideReason)
}

// parseFor reads how long an order stands.
func parseFor(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("for=%s: not a duration: write a number and a unit, like 30m or 2h", clip(text))
	}
	return d, CheckOverrideFor(d)
}

// CheckOverrideFor refuses a time to stand that is not from one second to
// MaxOverrideFor.
func CheckOverrideFor(d time.Duration) error {
	if d < time.Second || d > MaxOverrideFor {
		return fmt.Errorf("for %s: want 1s to %s", d, MaxOverrideFor)
	}
	return nil
}
