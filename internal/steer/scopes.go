package steer

import (
	"slices"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// A whereabouts is where a scope is in a topology; only what its kind has is set.
type whereabouts struct {
	place  // of a service, pool or backend; position of a pool or backend
	site   int
	target int // of a backend
}

// find returns where a scope is; ok is false if there is no such thing.
func (t *Topology) find(s health.Scope) (at whereabouts, ok bool) {
	switch s.Kind {
	case health.ScopeSite:
		at.site, ok = t.sites[s.Site]
	case health.ScopeService:
		at.service, ok = t.services[s.Service]
	case health.ScopePool, health.ScopeBackend:
		site, known := t.sites[s.Site]
		if at.service, ok = t.services[s.Service]; !ok || !known {
			return at, false
		}
		sites := t.Services[at.service].Sites
		at.position = slices.IndexFunc(sites, func(ss ServiceSite) bool { return ss.Site == site })
		ok = at.position >= 0
		if ok && s.Kind == health.ScopeBackend {
			at.target, ok = t.Layout.Index(health.Target{Kind: health.KindBackend, Service: s.Service, Site: s.Site, Addr: s.Backend})
		}
	case health.ScopePrefix:
		ok = slices.ContainsFunc(t.Config.BGP.Prefixes, func(p config.Prefix) bool { return p.Prefix == s.Prefix })
	}
	return at, ok
}

// Scopes returns everything that can be overridden, sorted: every site, service, service at a
// site, backend and prefix.
func (t *Topology) Scopes() []health.Scope {
	var scopes []health.Scope
	for i := range t.Config.Sites {
		scopes = append(scopes, health.Scope{Kind: health.ScopeSite, Site: t.Config.Sites[i].Name})
	}
	for i := range t.Services {
		service := t.Services[i].Config.Name
		scopes = append(scopes, health.Scope{Kind: health.ScopeService, Service: service})
		for position := range t.Services[i].Sites {
			scopes = append(scopes, health.Scope{Kind: health.ScopePool, Service: service, Site: t.SiteName(i, position)})
		}
	}
	for _, target := range t.Layout.Targets {
		if target.Kind == health.KindBackend {
			scopes = append(scopes, health.Scope{Kind: health.ScopeBackend, Service: target.Service, Site: target.Site, Backend: target.Addr})
		}
	}
	for _, p := range t.Config.BGP.Prefixes {
		scopes = append(scopes, health.Scope{Kind: health.ScopePrefix, Prefix: p.Prefix})
	}
	slices.SortFunc(scopes, health.Scope.Compare)
	return slices.Compact(scopes)
}

// UnknownScopes returns the scopes of orders that stand on nothing here, in the order given: Decide
// ignores them, and they count again when the config has the thing (again).
func (t *Topology) UnknownScopes(overrides []health.Override) []health.Scope {
	var unknown []health.Scope
	for i := range overrides {
		if _, ok := t.find(overrides[i].Scope); !ok && overrides[i].Order != health.OrderNone {
			unknown = append(unknown, overrides[i].Scope)
		}
	}
	return unknown
}
