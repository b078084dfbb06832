package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pharos-lb/pharos/cluster"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/health/probe"
)

// This file is the part of the status that speaks of the fleet: who is heard,
// who is trusted, and what operators ordered.

// fillSafety adds what this node doubts and what stands above its verdicts.
func (n *Node) fillSafety(out *admin.Status) {
	out.Overrides = n.overrides(false).Overrides
	out.Doubt = n.decider.doubting.Load().text
	if view := n.decider.view.Load(); view != nil {
		out.Sites, out.Heard, out.Minority = view.Sites, view.Heard, view.Minority
	}
	if err := n.state.trouble(); err != nil {
		out.StateTrouble = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
}

// members are the nodes that this one knows of.
func (n *Node) members() []admin.MemberStatus {
	out := []admin.MemberStatus{}
	digest := n.decider.acks.Load().digest
	abstains := map[string]string{}
	if seen := n.decider.observers.Load(); seen != nil {
		for _, o := range *seen {
			if o.Abstains != health.AbstainNot {
				abstains[o.Name] = o.Abstains.String()
			}
		}
	}
	for _, m := range n.gossip.Members() {
		row := admin.MemberStatus{
			Name: m.Name, Site: m.Site, Version: m.Version, State: m.State.String(), Self: m.Self,
			Heard:      m.Self || m.Reported && m.Age <= health.FreshFor && abstains[m.Name] != health.AbstainNeverHeard.String(),
			AgeSeconds: m.Age.Seconds(), Config: hashText(m.Config),
			OverridesInSync: m.Overrides == digest, Signed: m.Signed, Abstains: abstains[m.Name], Keys: m.Keys,
		}
		if m.Reported {
			row.Config = hashText(m.ReportedConfig)
		}
		out = append(out, row)
	}
	return asConfigured(out, n.setup.Load().Config, abstains)
}

// asConfigured adds the configured nodes that gossip has never met, leaves out
// those that are neither configured nor there any more, and sorts by name.
func asConfigured(members []admin.MemberStatus, c *config.Config, abstains map[string]string) []admin.MemberStatus {
	configured := map[string]bool{}
	for _, site := range c.Sites {
		for _, node := range site.Nodes {
			configured[node.Name] = true
		}
	}
	gone := []string{cluster.StateLeft.String(), cluster.StateDead.String(), cluster.StateHearsay.String()}
	members = slices.DeleteFunc(members, func(m admin.MemberStatus) bool {
		return !configured[m.Name] && slices.Contains(gone, m.State)
	})
	for i := range members {
		if m := &members[i]; !m.Self && !configured[m.Name] {
			m.Abstains = "not in the configuration here"
		}
	}
	for _, site := range c.Sites {
		for _, node := range site.Nodes {
			if !slices.ContainsFunc(members, func(m admin.MemberStatus) bool { return m.Name == node.Name }) {
				members = append(members, admin.MemberStatus{
					Name: node.Name, Site: site.Name, State: admin.MemberAbsent, AgeSeconds: -1, Abstains: abstains[node.Name],
				})
			}
		}
	}
	slices.SortFunc(members, func(a, b admin.MemberStatus) int { return strings.Compare(a.Name, b.Name) })
	return members
}

// fleetTroubles lists what is odd about this node's trust, the orders and the others.
func fleetTroubles(st *admin.Status, s *Setup) (out []string) {
	if st.Doubt != "" {
		out = append(out, "this node doubts itself: "+st.Doubt)
	}
	if st.Minority {
		out = append(out, fmt.Sprintf("only %d of %d sites are heard: verdicts on other sites are frozen", st.Heard, st.Sites))
	}
	if st.StateTrouble != "" {
		out = append(out, "state cannot be saved: "+st.StateTrouble)
	}
	for _, o := range st.Overrides {
		text := fmt.Sprintf("override: %s %s", o.Scope, o.Text())
		if o.Unknown {
			text += " (nothing here is called so)"
		}
		out = append(out, text)
	}
	out = append(out, silentNodes(st, s)...)
	for _, m := range st.Members {
		if m.Heard && m.Config != st.Config.Hash {
			out = append(out, fmt.Sprintf("node %s runs another configuration (%s)", m.Name, m.Config))
		}
		if m.Heard && !m.Self && versionsApart(m.Version, st.Version) {
			out = append(out, fmt.Sprintf("node %s runs pharos %s: more than one minor version from ours", m.Name, m.Version))
		}
		known := m.Self && (st.Doubt != "" || m.Abstains == health.AbstainNeverHeard.String()) // said, or not asked yet
		if m.Heard && m.Abstains != "" && !known {
			out = append(out, fmt.Sprintf("what node %s finds does not count: %s", m.Name, m.Abstains))
		}
	}
	return out
}

// versionsApart reports whether two versions, "v1.4.2", differ by more than one
// minor version. Versions of another form are not compared.
func versionsApart(a, b string) bool {
	majorA, minorA, okA := minorOf(a)
	majorB, minorB, okB := minorOf(b)
	if !okA || !okB {
		return false
	}
	return majorA != majorB || minorA > minorB+1 || minorB > minorA+1
}

func minorOf(version string) (major, minor int, ok bool) {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return 0, 0, false
	}
	major, errMajor := strconv.Atoi(parts[0])
	minor, errMinor := strconv.Atoi(parts[1])
	return major, minor, errMajor == nil && errMinor == nil
}

// silentNodes are configured but do not gossip with us.
func silentNodes(st *admin.Status, s *Setup) (out []string) {
	heard := map[string]bool{st.Node: true}
	for _, m := range st.Members {
		heard[m.Name] = heard[m.Name] || m.Heard
	}
	for _, site := range s.Config.Sites {
		for _, node := range site.Nodes {
			if !heard[node.Name] {
				out = append(out, fmt.Sprintf("node %s is not heard from", node.Name))
			}
		}
	}
	return out
}

// ordersByScope are the standing orders, for display.
type ordersByScope map[health.Scope]health.Override

func ordersOn(standing []health.Override) ordersByScope {
	out := make(ordersByScope, len(standing))
	for _, v := range standing {
		out[v.Scope] = v
	}
	return out
}

// strictness is which order counts where several cover one thing, as package steer has it: the one that takes most away.
var strictness = map[health.Order]int{health.OrderUp: 1, health.OrderDrain: 2, health.OrderDown: 3}

// strictest returns the text of the order that counts of those on these scopes, of equal ones the first; "" for none.
func (o ordersByScope) strictest(scopes ...health.Scope) string {
	var best health.Override
	for _, s := range scopes {
		if v := o[s]; strictness[v.Order] > strictness[best.Order] {
			best = v
		}
	}
	if best.Order == health.OrderNone {
		return ""
	}
	return admin.NewOverrideStatus(best).Text()
}

// onPool returns the order that counts on a service at a site, the narrowest of equal ones.
func (o ordersByScope) onPool(service, site string) string {
	return o.strictest(poolScopes(service, site)...)
}

// onTarget is onPool for one target of the pool.
func (o ordersByScope) onTarget(t health.Target) string {
	return o.strictest(append([]health.Scope{backendScope(t)}, poolScopes(t.Service, t.Site)...)...)
}

// onBackend returns the order on a backend itself.
func (o ordersByScope) onBackend(t health.Target) string { return o.strictest(backendScope(t)) }

func (o ordersByScope) onPrefix(p netip.Prefix) string {
	return o.strictest(health.Scope{Kind: health.ScopePrefix, Prefix: p})
}

func backendScope(t health.Target) health.Scope {
	return health.Scope{Kind: health.ScopeBackend, Service: t.Service, Site: t.Site, Backend: t.Addr}
}

// poolScopes are what covers a service at a site, the narrowest first.
func poolScopes(service, site string) []health.Scope {
	return []health.Scope{
		{Kind: health.ScopePool, Service: service, Site: site},
		{Kind: health.ScopeService, Service: service},
		{Kind: health.ScopeSite, Site: site},
	}
}

// maxBlind is how many checks that cannot run are named.
const maxBlind = 10

// blind lists this node's own checks that say nothing, because they cannot run here.
func blind(states []probe.State) (out []string) {
	n := 0
	for _, s := range states {
		if !s.Last.Inconclusive || decided(s.Status) {
			continue
		}
		if n++; n <= maxBlind {
			out = append(out, fmt.Sprintf("the check of %s cannot tell: %s", s.Target, s.Last.Err))
		}
	}
	if n > maxBlind {
		out = append(out, fmt.Sprintf("%d more checks cannot tell", n-maxBlind))
	}
	return out
}
