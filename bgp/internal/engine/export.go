package engine

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	api "github.com/osrg/gobgp/v3/api"
)

// Attributes are what a route says about itself.
type Attributes struct {
	NextHop     netip.Addr  // same family as the prefix
	MED         uint32      // 0 = not sent
	LocalPref   uint32      // to iBGP neighbors; 0 = 100
	Prepend     int         // further times our ASN stands in the path, to eBGP neighbors; at most MaxPrepend
	Communities []uint32    // RFC 1997, high 16 bits first
	Large       [][3]uint32 // RFC 8092
	Extended    []string    // RFC 4360, "rt:64500:1" or "soo:64500:1"
}

// MaxPrepend bounds Attributes.Prepend: longer paths are dropped by many routers.
const MaxPrepend = 16

// Equal reports whether both say the same. The order of communities counts.
func (a Attributes) Equal(b Attributes) bool {
	return a.NextHop == b.NextHop && a.MED == b.MED && a.LocalPref == b.LocalPref && a.Prepend == b.Prepend &&
		slices.Equal(a.Communities, b.Communities) && slices.Equal(a.Large, b.Large) && slices.Equal(a.Extended, b.Extended)
}

// An Export is what some neighbors hear of a route.
type Export struct {
	Neighbors []netip.Prefix // never empty; the first Export of a route that has a neighbor counts
	Attributes
}

// ToAll is the Exports of a route that says the same to everybody.
func ToAll(a Attributes) []Export {
	everybody := []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	return []Export{{Neighbors: everybody, Attributes: a}}
}

// Equal reports whether both say the same to the same neighbors.
func (x Export) Equal(y Export) bool {
	return slices.Equal(x.Neighbors, y.Neighbors) && x.Attributes.Equal(y.Attributes)
}

// A plan is how routes with the same Exports are told to neighbors. GoBGP judges exports by one policy for all, so each
// plan has a tag, which its paths carry as a community inside the table and which every export replaces. A path whose
// Exports change gets another tag: GoBGP then compares what the old path sent with what the new one does, and withdraws
// from a neighbor that is no longer meant, which it does not do when a policy changes under a path.
type plan struct {
	tag     uint32
	exports []Export
}

// maxTag keeps tags inside 0:0 … 0:65535, communities that nobody may use (RFC 1997).
const maxTag = 1<<16 - 1

// key is the same for equal Exports only.
func key(exports []Export) string {
	var b strings.Builder
	for _, x := range exports {
		fmt.Fprintf(&b, "%v|%v|%d|%d|%d|%v|%v|%q\n", x.Neighbors, x.NextHop, x.MED, x.LocalPref, x.Prepend, x.Communities, x.Large, x.Extended)
	}
	return b.String()
}

// Prepare makes GoBGP ready for the Exports of all paths at once, and forgets the plans that neither they nor installed
// ones use. Announce does it for a path that was not prepared, at the price of one policy change each.
func (e *Engine) Prepare(paths, installed []Path) error {
	e.planning.Lock()
	defer e.planning.Unlock()
	used := map[string]bool{}
	var added []string
	dropped := false
	for _, list := range [][]Path{paths, installed} {
		for _, p := range list {
			k := key(p.Exports)
			used[k] = true
			if _, ok := e.plans[k]; !ok {
				if err := e.plan(k, p.Exports); err != nil {
					return err
				}
				added = append(added, k)
			}
		}
	}
	for k := range e.plans {
		if !used[k] {
			e.forget(k)
			dropped = true
		}
	}
	if len(added) == 0 && !dropped {
		return nil
	}
	err := e.setExports()
	if err != nil {
		for _, k := range added {
			e.forget(k)
		}
	}
	return err
}

// plan gives Exports a tag that no other has. The caller holds planning.
func (e *Engine) plan(k string, exports []Export) error {
	for range maxTag {
		e.lastTag = e.lastTag%maxTag + 1
		if e.tags[e.lastTag] == nil {
			e.plans[k] = &plan{tag: e.lastTag, exports: slices.Clone(exports)}
			e.tags[e.lastTag] = e.plans[k]
			return nil
		}
	}
	return fmt.Errorf("more than %d different ways to announce routes", maxTag)
}

// forget drops a plan. The caller holds planning.
func (e *Engine) forget(k string) {
	delete(e.tags, e.plans[k].tag)
	delete(e.plans, k)
}

// tagOf returns the tag of Exports, with GoBGP ready for it.
func (e *Engine) tagOf(exports []Export) (uint32, error) {
	e.planning.Lock()
	defer e.planning.Unlock()
	k := key(exports)
	if p, ok := e.plans[k]; ok {
		return p.tag, nil
	}
	if err := e.plan(k, exports); err != nil {
		return 0, err
	}
	if err := e.setExports(); err != nil {
		e.forget(k)
		return 0, err
	}
	return e.plans[k].tag, nil
}

// exportsOf returns the Exports of the first tag among communities.
func (e *Engine) exportsOf(communities []uint32) []Export {
	e.planning.Lock()
	defer e.planning.Unlock()
	for _, c := range communities {
		if p := e.tags[c]; p != nil {
			return p.exports
		}
	}
	return nil
}

// setExports replaces GoBGP's policies by those of all plans. The assignments, which go by name, stay, and so does
// what was sent. The caller holds planning.
func (e *Engine) setExports() error {
	request := &api.SetPoliciesRequest{Policies: []*api.Policy{importPolicy()}}
	exports := &api.Policy{Name: exportName}
	plans := make([]*plan, 0, len(e.plans))
	for _, p := range e.plans {
		plans = append(plans, p)
	}
	slices.SortFunc(plans, func(a, b *plan) int { return int(a.tag) - int(b.tag) })
	for _, p := range plans {
		tagged := fmt.Sprintf("tag-%d", p.tag)
		request.DefinedSets = append(request.DefinedSets, &api.DefinedSet{
			DefinedType: api.DefinedType_COMMUNITY, Name: tagged, List: []string{"^" + community(p.tag) + "$"},
		})
		for i, x := range p.exports {
			name := fmt.Sprintf("%s-%d", tagged, i)
			neighbors := &api.DefinedSet{DefinedType: api.DefinedType_NEIGHBOR, Name: name}
			for _, n := range x.Neighbors {
				neighbors.List = append(neighbors.List, n.String())
			}
			request.DefinedSets = append(request.DefinedSets, neighbors)
			exports.Statements = append(exports.Statements, &api.Statement{
				Name: name,
				Conditions: &api.Conditions{
					RouteType:    api.Conditions_ROUTE_TYPE_LOCAL,
					CommunitySet: &api.MatchSet{Type: api.MatchSet_ANY, Name: tagged},
					NeighborSet:  &api.MatchSet{Type: api.MatchSet_ANY, Name: name},
				},
				Actions: e.actions(x.Attributes),
			})
		}
	}
	request.Policies = append(request.Policies, exports)
	if err := e.server.SetPolicies(context.Background(), request); err != nil {
		return fmt.Errorf("set export policies: %w", err)
	}
	return nil
}

// actions make a bare path say a. They replace the tag.
func (e *Engine) actions(a Attributes) *api.Actions {
	out := &api.Actions{
		RouteAction: api.RouteAction_ACCEPT,
		Community:   &api.CommunityAction{Type: api.CommunityAction_REPLACE},
	}
	for _, c := range a.Communities {
		out.Community.Communities = append(out.Community.Communities, community(c))
	}
	if len(a.Large) > 0 {
		out.LargeCommunity = &api.CommunityAction{Type: api.CommunityAction_REPLACE}
		for _, l := range a.Large {
			out.LargeCommunity.Communities = append(out.LargeCommunity.Communities, fmt.Sprintf("%d:%d:%d", l[0], l[1], l[2]))
		}
	}
	if len(a.Extended) > 0 {
		out.ExtCommunity = &api.CommunityAction{Type: api.CommunityAction_REPLACE}
		for _, x := range a.Extended {
			out.ExtCommunity.Communities = append(out.ExtCommunity.Communities, dotted(x))
		}
	}
	if a.MED != 0 {
		out.Med = &api.MedAction{Type: api.MedAction_REPLACE, Value: int64(a.MED)}
	}
	if a.LocalPref != 0 {
		out.LocalPref = &api.LocalPrefAction{Value: a.LocalPref}
	}
	if a.Prepend > 0 {
		out.AsPrepend = &api.AsPrependAction{Asn: e.opts.ASN, Repeat: uint32(a.Prepend)}
	}
	if a.NextHop.IsValid() {
		out.Nexthop = &api.NexthopAction{Address: a.NextHop.String()}
	}
	return out
}

// dotted writes the 4-byte ASN of an extended community as two halves: GoBGP cuts it to 65535 otherwise.
func dotted(x string) string {
	parts := strings.Split(x, ":")
	if len(parts) != 3 {
		return x
	}
	if asn, err := strconv.ParseUint(parts[1], 10, 32); err == nil && asn > 65535 {
		parts[1] = fmt.Sprintf("%d.%d", asn>>16, asn&0xffff)
	}
	return strings.Join(parts, ":")
}

func community(c uint32) string {
	return strconv.Itoa(int(c>>16)) + ":" + strconv.Itoa(int(c&0xffff))
}
