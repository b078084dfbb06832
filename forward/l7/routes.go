package l7

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// A Route sends requests to a service.
type Route struct {
	// Host is exact ("www.example.com"), "*.example.com" for every name below
	// example.com at any depth, or "" for any. Case and a port do not matter.
	Host string
	// Path is a prefix on whole segments: "/api" covers "/api" and "/api/x" but
	// not "/apis". "" means "/".
	Path string
	// Service names the pool. A service that no plan knows is not an error:
	// requests for it get 503.
	Service string
}

// A table finds routes. Immutable.
type table struct {
	exact    map[string]*paths
	wildcard map[string]*paths // by the part behind "*."
	any      *paths
}

// paths are the routes of one host.
type paths struct {
	routes  map[string]*Route // by path without a trailing slash; "" is the root
	longest int
}

// newTable compiles routes. All mistakes are returned at once.
func newTable(routes []Route) (*table, error) {
	t := &table{exact: make(map[string]*paths), wildcard: make(map[string]*paths), any: newPaths()}
	var errs []error
	for i := range routes {
		if err := t.add(routes[i]); err != nil {
			errs = append(errs, fmt.Errorf("route %d: %w", i+1, err))
		}
	}
	return t, errors.Join(errs...)
}

func newPaths() *paths { return &paths{routes: make(map[string]*Route)} }

func (t *table) add(r Route) error {
	if r.Service == "" {
		return errors.New("service is missing")
	}
	p, err := t.host(r.Host)
	if err != nil {
		return err
	}
	path := strings.TrimRight(r.Path, "/")
	if path != "" && path[0] != '/' {
		return fmt.Errorf("path %q does not start with a slash", r.Path)
	}
	if f := checkPath([]byte(path)); f.bad() {
		return fmt.Errorf("path %q: %s", r.Path, f.text)
	}
	path = string(plainPath(nil, []byte(path)))
	if _, twice := p.routes[path]; twice {
		return fmt.Errorf("host %q and path %q are routed twice", r.Host, r.Path)
	}
	p.routes[path] = &r
	p.longest = max(p.longest, len(path))
	return nil
}

// host returns the paths of a host pattern, made if need be.
func (t *table) host(pattern string) (*paths, error) {
	if pattern == "" {
		return t.any, nil
	}
	hosts, name := t.exact, strings.ToLower(strings.TrimSuffix(pattern, "."))
	if below, ok := strings.CutPrefix(name, "*."); ok {
		hosts, name = t.wildcard, below
	}
	if !validHost(name) {
		return nil, fmt.Errorf("host %q is neither a host name nor a wildcard below one", pattern)
	}
	p := hosts[name]
	if p == nil {
		p = newPaths()
		hosts[name] = p
	}
	return p, nil
}

func validHost(name string) bool {
	if inner, ok := strings.CutPrefix(name, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		return err == nil && addr.Is6() && strings.HasSuffix(inner, "]")
	}
	for i := range len(name) {
		if !in(name[i], hostLow, hostHigh) {
			return false
		}
	}
	return name != "" && len(name) <= maxHost
}

// match returns the route of a request, nil if there is none. scratch is space
// for a host name and a path. It does not allocate.
func (t *table) match(hostname, path []byte, scratch *[maxHost + maxTarget]byte) *Route {
	path = plainPath(scratch[maxHost:maxHost], path)
	host := scratch[:0:maxHost]
	for _, c := range hostname {
		host = append(host, lowered(c))
	}
	host = bytes.TrimSuffix(host, []byte("."))
	if len(t.exact) > 0 {
		if r := t.exact[string(host)].match(path); r != nil {
			return r
		}
	}
	if len(t.wildcard) > 0 {
		for dot := bytes.IndexByte(host, '.'); dot >= 0; dot = bytes.IndexByte(host, '.') {
			host = host[dot+1:]
			if r := t.wildcard[string(host)].match(path); r != nil {
				return r
			}
		}
	}
	return t.any.match(path)
}

// match returns the route with the longest path that covers path.
func (p *paths) match(path []byte) *Route {
	if p == nil || len(p.routes) == 0 {
		return nil
	}
	if len(path) > p.longest {
		// Cut to a whole segment that is no longer than any route.
		if path[p.longest] == '/' {
			path = path[:p.longest]
		} else {
			path = path[:max(bytes.LastIndexByte(path[:p.longest], '/'), 0)]
		}
	}
	for {
		if n := len(path); n > 0 && path[n-1] == '/' {
			path = path[:n-1]
			continue
		}
		if r := p.routes[string(path)]; r != nil || len(path) == 0 {
			return r
		}
		path = path[:max(bytes.LastIndexByte(path, '/'), 0)]
	}
}

// plainPath returns path as it is compared: escaped unreserved characters
// decoded and repeated slashes as one. It appends to dst only if something
// changes. "*" is the root.
func plainPath(dst, path []byte) []byte {
	if string(path) == "*" {
		return nil
	}
	if bytes.IndexByte(path, '%') < 0 && !bytes.Contains(path, []byte("//")) {
		return path
	}
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '/' && len(dst) > 0 && dst[len(dst)-1] == '/' {
			continue
		}
		if c == '%' {
			decoded := byte(hexValue(path[i+1])<<4 | hexValue(path[i+2]))
			if in(decoded, hostLow, hostHigh) { // the unreserved characters of RFC 3986
				c = decoded
				i += 2
			}
		}
		dst = append(dst, c)
	}
	return dst
}
