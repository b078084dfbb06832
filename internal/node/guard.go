package node

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/steer"
)

// maxRemovedShare is the share of the services, zones, names, sites or prefixes
// that a reload may remove without being told so: larger removals are more
// often mistakes.
const maxRemovedShare = 1.0 / 3

// An inventory is the names of one kind of thing in a configuration.
type inventory struct {
	kind, kinds string
	names       []string
}

const kindPrefix = "prefix"

// inventories lists what a reload can add and remove.
func inventories(c *config.Config) []inventory {
	var services, zones, names, sites, prefixes []string
	for _, s := range c.Services {
		services = append(services, s.Name)
	}
	for _, z := range c.Zones {
		zones = append(zones, z.Name)
		for _, n := range z.Names {
			names = append(names, n.FQDN)
		}
	}
	for _, s := range c.Sites {
		sites = append(sites, s.Name)
	}
	for _, p := range c.BGP.Prefixes {
		prefixes = append(prefixes, p.Prefix.String())
	}
	return []inventory{
		{"service", "services", services},
		{"zone", "zones", zones},
		{"steered name", "steered names", names},
		{"site", "sites", sites},
		{kindPrefix, "prefixes", prefixes},
	}
}

// checkAllowed refuses what a reload would take away without being told so, and
// says how to tell it.
func checkAllowed(old, next *Setup, plan *steer.Plan, allow admin.Allowed) error {
	var errs []error
	lost := errors.Join(checkRemoval(old.Config, next.Config), checkListeners(old, next, plan))
	if lost != nil && !allow.Remove {
		errs = append(errs, fmt.Errorf("%w\nif that is meant, reload with --allow-remove", lost))
	}
	if lost := checkWithdrawal(old, next, plan); lost != nil && !allow.Withdraw {
		errs = append(errs, fmt.Errorf("%w\nif that is meant, reload with --allow-withdraw", lost))
	}
	return errors.Join(errs...)
}

// checkRemoval refuses to lose much at once without being told so. Prefixes are
// the business of checkWithdrawal.
func checkRemoval(old, next *config.Config) error {
	now := inventories(next)
	var errs []error
	for i, was := range inventories(old) {
		if was.kind == kindPrefix {
			continue
		}
		gone := missing(was.names, now[i].names)
		if float64(len(gone)) > maxRemovedShare*float64(len(was.names)) {
			errs = append(errs, fmt.Errorf("this would remove %d of %d %s (%s)", len(gone), len(was.names), was.kinds, listSome(gone)))
		}
	}
	return errors.Join(errs...)
}

// checkWithdrawal refuses a configuration that withdraws a route that is announced
// from here now, that leaves a prefix with no site to announce it, wherever that was
// before, or that drops a large share of the prefixes.
func checkWithdrawal(old, next *Setup, plan *steer.Plan) error {
	var errs []error
	var gone []string
	for i := range old.Config.BGP.Prefixes {
		p := &old.Config.BGP.Prefixes[i]
		after := prefixOf(next.Config, p.Prefix)
		if after == nil {
			gone = append(gone, p.Prefix.String())
		}
		if len(p.Sites) > 0 && (after == nil || len(after.Sites) == 0) {
			errs = append(errs, fmt.Errorf("no site would announce %s any more (%s did)", p.Prefix, listSome(p.Sites)))
			continue
		}
		if plan != nil && plan.Announces(p.Prefix) && !next.mayAnnounce(p.Prefix) {
			errs = append(errs, fmt.Errorf("this would withdraw %s, which is announced from here now", p.Prefix))
		}
	}
	if all := len(old.Config.BGP.Prefixes); float64(len(gone)) > maxRemovedShare*float64(all) {
		errs = append(errs, fmt.Errorf("this would remove %d of %d prefixes (%s)", len(gone), all, listSome(gone)))
	}
	return errors.Join(errs...)
}

// checkListeners refuses a configuration that takes away the listener that a
// route leads to that is announced from here now.
func checkListeners(old, next *Setup, plan *steer.Plan) error {
	if plan == nil {
		return nil
	}
	var errs []error
	for _, r := range plan.Routes {
		after := prefixOf(next.Config, r.Prefix)
		if !r.Announce || after == nil || !next.mayAnnounce(r.Prefix) {
			continue
		}
		for _, service := range after.Requires {
			if old.listens(service) && !next.listens(service) {
				errs = append(errs, fmt.Errorf("this would close the last listener of service %s, which %s leads to", service, r.Prefix))
			}
		}
	}
	return errors.Join(errs...)
}

// mayAnnounce reports whether this node has somebody to announce a prefix to.
func (s *Setup) mayAnnounce(prefix netip.Prefix) bool {
	_, _, speaks := s.speakerConfig()
	return speaks && slices.ContainsFunc(s.Config.BGP.Prefixes, func(p config.Prefix) bool {
		return p.Prefix == prefix && slices.Contains(p.Sites, s.Self.Site.Name)
	})
}

// prefixOf returns a prefix of a configuration, nil if it has none such.
func prefixOf(c *config.Config, prefix netip.Prefix) *config.Prefix {
	for i := range c.BGP.Prefixes {
		if c.BGP.Prefixes[i].Prefix == prefix {
			return &c.BGP.Prefixes[i]
		}
	}
	return nil
}

// listens reports whether this node forwards to a service.
func (s *Setup) listens(service string) bool {
	for _, l := range s.l4Listeners() {
		if l.Service == service {
			return true
		}
	}
	for _, l := range s.l7Listeners() {
		for _, r := range l.Routes {
			if slices.Contains(r.Services(), service) {
				return true
			}
		}
	}
	return false
}

// describe says what differs between two configurations, for the operator who
// has just reloaded.
func describe(old, next *config.Config) []string {
	out := []string{}
	now := inventories(next)
	for i, was := range inventories(old) {
		for _, name := range missing(now[i].names, was.names) {
			out = append(out, "added "+was.kind+" "+name)
		}
		for _, name := range missing(was.names, now[i].names) {
			out = append(out, "removed "+was.kind+" "+name)
		}
	}
	services := map[string]config.Service{}
	for _, s := range old.Services {
		services[s.Name] = s
	}
	for _, s := range next.Services {
		if was, ok := services[s.Name]; ok && !reflect.DeepEqual(was, s) {
			out = append(out, "changed service "+s.Name)
		}
	}
	for _, part := range []struct {
		name     string
		was, now any
	}{
		{"sites", old.Sites, next.Sites},
		{"zones", old.Zones, next.Zones},
		{"listeners", old.Listeners, next.Listeners},
		{"networks", old.Networks, next.Networks},
		{"geo", old.Geo, next.Geo},
		{"limits", old.Limits, next.Limits},
		{"dns", old.DNS, next.DNS},
		{"bgp", old.BGP, next.BGP},
	} {
		if !reflect.DeepEqual(part.was, part.now) {
			out = append(out, "changed "+part.name)
		}
	}
	return out
}

// missing returns what of a is not in b.
func missing(a, b []string) []string {
	have := make(map[string]bool, len(b))
	for _, s := range b {
		have[s] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return have[s] })
}

// listSome names a few and counts the rest.
func listSome(names []string) string {
	const show = 5
	names = slices.Sorted(slices.Values(names))
	if len(names) <= show {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:show], ", "), len(names)-show)
}
