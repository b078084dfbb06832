package l4

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Route takes TLS clients by what they ask for in their hello.
type Route struct {
	// SNI is the server name: exact, "*.example.com" for every name below at any
	// depth, or "" for any name and for none.
	SNI string
	// ALPN are protocols of which the client has to offer one; none = any.
	ALPN []string
	// Service takes the connections.
	Service string
}

// routes finds the service for a hello. The most specific name wins; of routes
// for one name those with a protocol come first, in their order.
type routes struct {
	exact map[string][]Route
	below map[string][]Route // by what follows the asterisk, ".example.com"
	any   []Route
}

// compileRoutes returns nil if there are none.
func compileRoutes(list []Route) (*routes, error) {
	if len(list) == 0 {
		return nil, nil
	}
	r := &routes{exact: make(map[string][]Route), below: make(map[string][]Route)}
	var errs []error
	for _, route := range list {
		name := strings.ToLower(strings.TrimSuffix(route.SNI, "."))
		suffix, wild := strings.CutPrefix(name, "*")
		switch {
		case route.Service == "":
			errs = append(errs, fmt.Errorf("route for %q: service is missing", route.SNI))
		case strings.Contains(suffix, "*") || wild && !strings.HasPrefix(suffix, "."):
			errs = append(errs, fmt.Errorf("route for %q: want a name, or *. and a name", route.SNI))
		case name == "":
			r.any = append(r.any, route)
		case wild:
			r.below[suffix] = append(r.below[suffix], route)
		default:
			r.exact[name] = append(r.exact[name], route)
		}
	}
	specificFirst := func(list []Route) {
		slices.SortStableFunc(list, func(a, b Route) int {
			return min(len(b.ALPN), 1) - min(len(a.ALPN), 1)
		})
	}
	for _, list := range r.exact {
		specificFirst(list)
	}
	for _, list := range r.below {
		specificFirst(list)
	}
	specificFirst(r.any)
	return r, errors.Join(errs...)
}

// find returns the service for a name and the protocols that a client offers; ""
// if no route takes them.
func (r *routes) find(name string, protocols []string) string {
	if service := choose(r.exact[name], protocols); service != "" {
		return service
	}
	for i := 0; i < len(name); i++ {
		if name[i] == '.' && i > 0 {
			if service := choose(r.below[name[i:]], protocols); service != "" {
				return service
			}
		}
	}
	return choose(r.any, protocols)
}

func choose(list []Route, protocols []string) string {
	for _, route := range list {
		if len(route.ALPN) == 0 {
			return route.Service
		}
		for _, p := range route.ALPN {
			if slices.Contains(protocols, p) {
				return route.Service
			}
		}
	}
	return ""
}
