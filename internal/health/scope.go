package health

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ScopeKind says what an override speaks of.
type ScopeKind uint8

// The kinds of scope.
const (
	ScopeSite    ScopeKind = iota + 1 // site/fra
	ScopeService                      // service/web
	ScopePool                         // pool/web/fra
	ScopeBackend                      // backend/web/fra/10.0.1.10:8080
	ScopePrefix                       // prefix/192.0.2.0/24
)

// scopeForms are the kinds as text: the word before the first slash and how the
// whole is written. Indexed by kind.
var scopeForms = [...]struct{ word, form string }{
	ScopeSite:    {"site", "site/SITE"},
	ScopeService: {"service", "service/SERVICE"},
	ScopePool:    {"pool", "pool/SERVICE/SITE"},
	ScopeBackend: {"backend", "backend/SERVICE/SITE/ADDRESS:PORT"},
	ScopePrefix:  {"prefix", "prefix/ADDRESS/BITS"},
}

// maxScopeLen is the longest text of a scope or of a pattern for scopes, in
// bytes: two labels, an address and the slashes fit twice.
const maxScopeLen = 400

// ErrScope is wrapped by every error about text that names no scope.
var ErrScope = errors.New("not a scope")

// String returns "site", "service", "pool", "backend" or "prefix", and "none"
// for any other value.
func (k ScopeKind) String() string {
	if k == 0 || int(k) >= len(scopeForms) {
		return "none"
	}
	return scopeForms[k].word
}

// A Scope is one thing that can be overridden. Only the fields of its Kind are
// set. Scopes are comparable; the zero Scope is none and is never valid.
type Scope struct {
	Kind    ScopeKind
	Service string         // of a service, pool or backend
	Site    string         // of a site, pool or backend
	Backend netip.AddrPort // of a backend; never an IPv4 address written as IPv6, no zone
	Prefix  netip.Prefix   // of a prefix; no bit set beyond its length
}

// String returns "site/fra", "service/web", "pool/web/fra",
// "backend/web/fra/10.0.1.10:8080", "backend/web/fra/[2001:db8::1]:8080" or
// "prefix/192.0.2.0/24"; "none" for the zero Scope. ParseScope reads it.
func (s Scope) String() string {
	switch s.Kind {
	case ScopeSite:
		return "site/" + s.Site
	case ScopeService:
		return "service/" + s.Service
	case ScopePool:
		return "pool/" + s.Service + "/" + s.Site
	case ScopeBackend:
		return "backend/" + s.Service + "/" + s.Site + "/" + s.Backend.String()
	case ScopePrefix:
		return "prefix/" + s.Prefix.String()
	default:
		return "none"
	}
}

// ParseScope reads what String writes. Addresses may be in any spelling, names
// only as a configuration has them (1 to 63 lower-case letters, digits and
// hyphens). Every error wraps ErrScope and says what would be right.
func ParseScope(text string) (Scope, error) {
	parts, kind, err := splitScope(text)
	if err != nil {
		return Scope{}, err
	}
	s := Scope{Kind: kind}
	switch kind {
	case ScopeSite:
		s.Site = parts[0]
	case ScopeService:
		s.Service = parts[0]
	case ScopePool:
		s.Service, s.Site = parts[0], parts[1]
	case ScopeBackend:
		s.Service, s.Site = parts[0], parts[1]
		at, err := netip.ParseAddrPort(parts[2])
		if err != nil {
			return Scope{}, fmt.Errorf("%w: %q: %q is not an address and port, like 10.0.1.10:8080 or [2001:db8::1]:8080", ErrScope, clip(text), clip(parts[2]))
		}
		s.Backend = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	case ScopePrefix:
		p, err := netip.ParsePrefix(parts[0] + "/" + parts[1])
		if err != nil {
			return Scope{}, fmt.Errorf("%w: %q is not a prefix, like prefix/192.0.2.0/24", ErrScope, clip(text))
		}
		if p != p.Masked() {
			return Scope{}, fmt.Errorf("%w: %q has bits set beyond its length; is prefix/%s meant?", ErrScope, clip(text), p.Masked())
		}
		s.Prefix = p
	}
	if err := s.check(); err != nil {
		return Scope{}, err
	}
	return s, nil
}

// splitScope tells the kind of a scope, or of a pattern for scopes, and returns
// the parts after it, as many as the kind has.
func splitScope(text string) ([]string, ScopeKind, error) {
	if text == "" {
		return nil, 0, fmt.Errorf("%w: it is empty; nothing never means everything", ErrScope)
	}
	if len(text) > maxScopeLen {
		return nil, 0, fmt.Errorf("%w: %d bytes, at most %d", ErrScope, len(text), maxScopeLen)
	}
	word, rest, _ := strings.Cut(text, "/")
	for kind, f := range scopeForms {
		if f.word != word || word == "" {
			continue
		}
		parts := strings.Split(rest, "/")
		if len(parts) != strings.Count(f.form, "/") {
			return nil, 0, fmt.Errorf("%w: %q: write %s", ErrScope, clip(text), f.form)
		}
		if slices.Contains(parts, "") {
			return nil, 0, fmt.Errorf("%w: %q: a part is empty, and nothing never means everything; write %s", ErrScope, clip(text), f.form)
		}
		return parts, ScopeKind(kind), nil
	}
	return nil, 0, fmt.Errorf("%w: %q: it begins with site/, service/, pool/, backend/ or prefix/", ErrScope, clip(text))
}

// check returns what is wrong with a scope that did not come from ParseScope.
func (s Scope) check() error {
	service, site := false, false // which names the kind has
	switch s.Kind {
	case ScopeSite:
		site = true
	case ScopeService:
		service = true
	case ScopePool:
		service, site = true, true
	case ScopeBackend:
		service, site = true, true
		if a := s.Backend.Addr(); !a.IsValid() || a.Is4In6() || a.Zone() != "" || s.Backend.Port() == 0 {
			return fmt.Errorf("%w: backend address %q is without port, with a zone, or IPv4 written as IPv6", ErrScope, s.Backend)
		}
	case ScopePrefix:
		if !s.Prefix.IsValid() || s.Prefix != s.Prefix.Masked() || s.Prefix.Addr().Is4In6() {
			return fmt.Errorf("%w: prefix %q is not in its plain form", ErrScope, s.Prefix)
		}
	default:
		return fmt.Errorf("%w: kind %d does not exist", ErrScope, s.Kind)
	}
	if service != (s.Service != "") || site != (s.Site != "") ||
		(s.Kind == ScopeBackend) != (s.Backend != netip.AddrPort{}) || (s.Kind == ScopePrefix) != (s.Prefix != netip.Prefix{}) {
		return fmt.Errorf("%w: a field that a %s has is missing, or one that it has not is set", ErrScope, s.Kind)
	}
	for _, name := range [...]string{s.Service, s.Site} {
		if name != "" && !isLabel(name) {
			return fmt.Errorf("%w: %q is not a name: 1 to 63 lower-case letters, digits and hyphens, beginning with a letter", ErrScope, clip(name))
		}
	}
	return nil
}

// Compare orders scopes by kind (site, service, pool, backend, prefix), service,
// site, backend and prefix.
func (s Scope) Compare(o Scope) int {
	if s.Kind != o.Kind {
		return int(s.Kind) - int(o.Kind)
	}
	if c := strings.Compare(s.Service, o.Service); c != 0 {
		return c
	}
	if c := strings.Compare(s.Site, o.Site); c != 0 {
		return c
	}
	if c := s.Backend.Compare(o.Backend); c != 0 {
		return c
	}
	if c := s.Prefix.Addr().Compare(o.Prefix.Addr()); c != 0 {
		return c
	}
	return s.Prefix.Bits() - o.Prefix.Bits()
}

// isLabel reports whether s is a name as a configuration has them.
func isLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[len(s)-1] == '-' {
		return false
	}
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return true
}

// clip shortens text that somebody else wrote, for an error.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
