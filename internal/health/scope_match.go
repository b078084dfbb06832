package health

import (
	"fmt"
	"slices"
	"strings"
)

// IsPattern reports whether text has a wildcard in it, so that it may match
// more than one scope.
func IsPattern(text string) bool { return strings.ContainsAny(text, "*?") }

// MatchScopes returns the scopes of known that pattern names, sorted and without
// repetition. A pattern is a scope as ParseScope reads it, in which "*" stands
// for any text, even none, and "?" for one character, both within one part:
// "pool/*/fra", "backend/web/fra/*", "site/*". The kind is always written out.
//
// What is empty, malformed or matches nothing is an error that wraps ErrScope:
// an operator's slip must never come to mean everything.
func MatchScopes(pattern string, known []Scope) ([]Scope, error) {
	if err := CheckScopePattern(pattern); err != nil {
		return nil, err
	}
	parts, kind, err := splitScope(pattern)
	if err != nil {
		return nil, err
	}
	var exact Scope
	if !IsPattern(pattern) {
		if exact, err = ParseScope(pattern); err != nil {
			return nil, err
		}
	}
	var found []Scope
	for _, s := range known {
		if s.Kind == kind && (s == exact || exact == Scope{} && matchParts(parts, s)) {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: nothing matches %q%s", ErrScope, clip(pattern), hint(kind, known))
	}
	slices.SortFunc(found, Scope.Compare)
	return slices.Compact(found), nil
}

// CheckScopePattern refuses what MatchScopes could not take, whatever scopes
// there are. The error wraps ErrScope.
func CheckScopePattern(pattern string) error {
	if !IsPattern(pattern) {
		_, err := ParseScope(pattern)
		return err
	}
	if _, _, err := splitScope(pattern); err != nil {
		return err
	}
	if strings.Contains(pattern, "**") {
		return fmt.Errorf("%w: %q: there is no **; a * stays within one part, between two slashes", ErrScope, clip(pattern))
	}
	return nil
}

// matchParts reports whether each part of a pattern matches that of s.
func matchParts(parts []string, s Scope) bool {
	_, rest, _ := strings.Cut(s.String(), "/")
	names := strings.Split(rest, "/")
	if len(names) != len(parts) {
		return false
	}
	for i, p := range parts {
		if !MatchGlob(p, names[i]) {
			return false
		}
	}
	return true
}

// MatchGlob reports whether the whole of text matches pattern, in which "*"
// stands for any bytes but a slash, even none, and "?" for one such byte; every
// other byte stands for itself. It never fails and takes at most
// len(pattern) × len(text) steps.
func MatchGlob(pattern, text string) bool {
	p, t := 0, 0
	star, resume := -1, 0 // the last "*" and the text after what it stands for
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, t
			p++
		case p < len(pattern) && (pattern[p] == text[t] || pattern[p] == '?' && text[t] != '/'):
			p++
			t++
		case star >= 0 && text[resume] != '/':
			resume++
			p, t = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// hint lists a few scopes that there are.
func hint(kind ScopeKind, known []Scope) string {
	const most = 5
	var names []string
	more := 0
	for _, s := range known {
		switch {
		case s.Kind != kind:
		case len(names) == most:
			more++
		default:
			names = append(names, s.String())
		}
	}
	switch {
	case len(names) == 0:
		return fmt.Sprintf(": there is no %s", kind)
	case more > 0:
		return fmt.Sprintf(": there are %s and %d more", strings.Join(names, ", "), more)
	default:
		return ": there is " + strings.Join(names, ", ")
	}
}
