package route

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/pharos-lb/pharos/forward"
)

// A Split shares requests out between services by weight. Who is recognised by the same
// key gets the same service, as long as the weights stay; when they change, only as many
// move as have to.
type Split struct {
	// Shares with at least one weight above 0.
	Shares []Share
	// Key is what a client is recognised by; the zero Key means its address.
	Key forward.Key

	seeds []uint64
}

// A Share is one service's part.
type Share struct {
	Service string
	Weight  int // 0 … 1,000,000
}

const maxWeight = 1_000_000

// Pick returns the service of a key: the one whose hash with the key, taken as a time of
// arrival at the rate of its weight, comes first (weighted rendezvous hashing).
func (s *Split) Pick(key uint64) string {
	best, soonest := "", math.Inf(1)
	for i := range s.Shares {
		share := &s.Shares[i]
		if share.Weight == 0 {
			continue
		}
		x := spread(key ^ s.seeds[i])
		u := (float64(x>>11) + 0.5) / (1 << 53) // in (0, 1)
		if at := -math.Log(u) / float64(share.Weight); at < soonest {
			best, soonest = share.Service, at
		}
	}
	return best
}

// spread mixes the bits of x (the finaliser of SplitMix64).
func spread(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (s *Split) compile() error {
	total := 0
	var errs []error
	if len(s.Shares) > MaxShares {
		errs = append(errs, fmt.Errorf("split between %d services: at most %d are allowed", len(s.Shares), MaxShares))
	}
	s.seeds = make([]uint64, len(s.Shares))
	for i, share := range s.Shares {
		if share.Service == "" {
			errs = append(errs, errors.New("split: a service is missing"))
		}
		if share.Weight < 0 || share.Weight > maxWeight {
			errs = append(errs, fmt.Errorf("split: weight %d is out of range", share.Weight))
		}
		if slices.ContainsFunc(s.Shares[:i], func(o Share) bool { return o.Service == share.Service }) {
			errs = append(errs, fmt.Errorf("split: service %q is there twice", share.Service))
		}
		total += share.Weight
		s.seeds[i] = forward.Key{}.Bytes([]byte(share.Service))
	}
	if total <= 0 {
		errs = append(errs, errors.New("split: no service has a weight"))
	}
	return errors.Join(errs...)
}

// checkAction checks what becomes of a request.
func (c *Rule) checkAction() error {
	var errs []error
	actions := 0
	if c.Service != "" {
		actions++
	}
	if c.Split != nil {
		actions++
		split := *c.Split // it is compiled, and the caller's stays as it is
		c.Split = &split
		errs = append(errs, split.compile())
	}
	if c.Redirect != nil {
		actions++
		errs = append(errs, c.Redirect.check(c))
	}
	if c.Respond != nil {
		actions++
		if s := c.Respond.Status; s < 200 || s > 599 {
			errs = append(errs, fmt.Errorf("respond: status %d is not one of an answer", s))
		}
		if !isValue(c.Respond.ContentType) {
			errs = append(errs, errors.New("respond: the content type has control characters"))
		}
	}
	switch {
	case actions == 0:
		errs = append(errs, errors.New("service is missing"))
	case actions > 1:
		errs = append(errs, errors.New("has more than one of service, split, redirect and respond"))
	}
	if c.Rewrite != (Rewrite{}) {
		if c.Redirect != nil || c.Respond != nil {
			errs = append(errs, errors.New("rewrite is for requests that reach a service"))
		}
		if c.Rewrite.Host != "" && !validAuthority(c.Rewrite.Host) {
			errs = append(errs, fmt.Errorf("rewrite: host %q is not a host name or address", c.Rewrite.Host))
		}
		errs = append(errs, c.checkReplacement(c.Rewrite.Path, c.Rewrite.Prefix))
	}
	errs = append(errs, c.Request.compile(), c.Response.compile())
	return errors.Join(errs...)
}

func (r *Redirect) check(c *Rule) error {
	var errs []error
	switch r.Status {
	case 0, 301, 302, 303, 307, 308:
	default:
		errs = append(errs, fmt.Errorf("redirect: status %d is not 301, 302, 303, 307 or 308", r.Status))
	}
	if r.Scheme != "" && r.Scheme != "http" && r.Scheme != "https" {
		errs = append(errs, fmt.Errorf("redirect: scheme %q is neither http nor https", r.Scheme))
	}
	if r.Host != "" && !validHost(strings.ToLower(r.Host)) {
		errs = append(errs, fmt.Errorf("redirect: host %q is not a host name or address", r.Host))
	}
	if r.Scheme == "" && r.Host == "" && r.Port == 0 && r.Path == "" && r.Prefix == "" {
		errs = append(errs, errors.New("redirect: would lead to itself: give a scheme, host, port, path or prefix"))
	}
	return errors.Join(append(errs, c.checkReplacement(r.Path, r.Prefix))...)
}

// checkReplacement checks what a path is replaced by.
func (c *Rule) checkReplacement(path, prefix string) error {
	if path != "" && prefix != "" {
		return errors.New("replaces both the path and its prefix")
	}
	if prefix != "" && (c.Pattern != "" || c.Exact) {
		return errors.New("replaces a prefix, but the route's path is none")
	}
	for _, p := range []string{path, prefix} {
		if p == "" {
			continue
		}
		if p[0] != '/' || strings.ContainsAny(p, "?#") || strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return fmt.Errorf("path %q is none: it begins with a slash and has neither ?, # nor spaces", p)
		}
		if c.Pattern == "" || p == prefix {
			if wrong := CheckPath([]byte(p)); wrong != "" {
				return fmt.Errorf("path %q: %s", p, wrong)
			}
		}
	}
	return nil
}

// AppendPath appends the path that a request for s.Path is rewritten to, or redirected
// to: by path, or by prefix in the place of the rule's own. Without either it is raw.
// What groups of a pattern make of it has to be checked by CheckPath.
func (c *Rule) AppendPath(dst []byte, path, prefix string, raw []byte, s *Space) []byte {
	switch {
	case path != "" && c.pattern != nil:
		return c.pattern.Expand(dst, []byte(path), s.Path, c.pattern.FindSubmatchIndex(s.Path))
	case path != "":
		return append(dst, path...)
	case prefix != "":
		rest := s.Path[min(len(c.compiled.path), len(s.Path)):]
		dst = append(dst, strings.TrimRight(prefix, "/")...)
		if len(rest) == 0 && strings.TrimRight(prefix, "/") == "" {
			return append(dst, '/')
		}
		return append(dst, rest...)
	}
	return append(dst, raw...)
}

// compile checks an edit and makes it ready.
func (e *Edit) compile() error {
	var errs []error
	e.gone = nil
	for _, name := range e.Remove {
		errs = append(errs, checkEdited(name))
		e.gone = append(e.gone, strings.ToLower(name))
	}
	for i, h := range slices.Concat(e.Set, e.Add) {
		errs = append(errs, checkEdited(h.Name))
		if !isValue(h.Value) || strings.TrimSpace(h.Value) != h.Value {
			errs = append(errs, fmt.Errorf("the value of header %q has control characters, or spaces around it", h.Name))
		}
		if i < len(e.Set) {
			e.gone = append(e.gone, strings.ToLower(h.Name))
		}
	}
	return errors.Join(errs...)
}

// checkEdited refuses the fields that routes must not touch.
func checkEdited(name string) error {
	if !isToken(name) {
		return fmt.Errorf("header %q is none", name)
	}
	if Owned(name) {
		return fmt.Errorf("header %q is the connection's own and cannot be changed", name)
	}
	return nil
}

// Owned reports whether a field is the engine's: what frames a message, what belongs to
// one connection, and what says who the client is.
func Owned(name string) bool {
	switch name = strings.ToLower(name); name {
	case "host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect",
		"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "pharos-overflow":
		return true
	}
	return strings.HasPrefix(name, "proxy-")
}

func validAuthority(host string) bool {
	name, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		name, port = host[:i], host[i+1:]
		if port == "" || len(port) > 5 || strings.Trim(port, "0123456789") != "" {
			return false
		}
	}
	return validHost(strings.ToLower(name))
}

func isValue(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !isUnreserved(c) && !strings.ContainsRune("!#$%&'*+^`|", rune(c)) || c == 0 || c >= 0x80 {
			return false
		}
	}
	return s != ""
}
