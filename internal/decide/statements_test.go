package decide

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

// manyNodes is a site of three nodes and one of one node that announce a prefix together.
const manyNodes = `
cluster: {name: t}
sites:
  a: {location: FRA, nodes: {a1: 127.9.1.1, a2: 127.9.1.4, a3: 127.9.1.5}}
  b: {location: SIN, nodes: {b1: 127.9.1.2}}
services:
  web:
    check: {tcp: {}}
    backends: {a: ["10.0.0.1:80"], b: ["10.0.0.3:80"]}
    vip: {a: 192.0.2.1, b: 192.0.2.2}
bgp:
  asn: 64500
  prefixes: [{prefix: 192.0.2.0/24, requires: [web], min_sites: 1, flap_half_life: 0s}]
  peers: {a: [{address: 127.9.1.254, asn: 64496}], b: [{address: 127.9.1.253, asn: 64496}]}
`

// A council is every node of the fleet, each with its own probes, that hear each other.
type council struct {
	t     *testing.T
	nodes map[string]*bench
	plans map[string]*steer.Plan
	mute  map[string]bool
}

func newCouncil(t *testing.T) *council {
	c := &council{t: t, nodes: map[string]*bench{}, plans: map[string]*steer.Plan{}, mute: map[string]bool{}}
	for _, name := range []string{"a1", "a2", "a3", "b1"} {
		o := Options{Name: name, Topology: topologyOf(t, manyNodes, name), Epoch: epoch0}
		b := &bench{Core: New(o), now: t0, states: make([]health.Status, len(o.Topology.Layout.Targets))}
		b.SetReady(true)
		b.all(health.StatusUp)
		c.nodes[name] = b
	}
	c.pass(2 * time.Minute)
	return c
}

// pass lets time go by, a quarter of a second at a time; what a node says is heard at once.
func (c *council) pass(d time.Duration) {
	const step = 250 * time.Millisecond
	for ; d > 0; d -= step {
		for _, name := range []string{"a1", "a2", "a3", "b1"} {
			report, s := c.nodes[name].look(step)
			c.plans[name] = s.Plan
			if report == nil || c.mute[name] {
				continue
			}
			for other, b := range c.nodes {
				if other != name {
					b.Merge(report, 0, b.now)
				}
			}
		}
	}
}

// says has a node find its site's backend up or down.
func (c *council) says(s health.Status, names ...string) {
	for _, name := range names {
		c.nodes[name].all(s)
	}
}

func (c *council) announces(name string) bool {
	return c.plans[name].Routes[0].Announce
}

// b stays while nobody else serves the prefix, and may go when somebody does. Whether site a serves it is what most of
// its nodes say that are heard; where they are even nobody counts on it.
func TestNodesOfASiteStateDifferently(t *testing.T) {
	for _, tc := range []struct {
		name   string
		happen func(*council)
		b      bool // goes on, because a does not serve for certain
	}{
		{"all of a serve", func(*council) {}, false},
		{"one of three does not", func(c *council) { c.says(health.StatusDown, "a1") }, false},
		{"two of three do not", func(c *council) { c.says(health.StatusDown, "a1", "a2") }, true},
		{"none does", func(c *council) { c.says(health.StatusDown, "a1", "a2", "a3") }, true},
		{"one serves, one does not, one is silent", func(c *council) {
			c.mute["a3"] = true
			c.pass(health.FreshFor + 2*time.Second)
			c.says(health.StatusDown, "a1")
		}, true},
		{"one serves, two are silent", func(c *council) { c.mute["a1"], c.mute["a2"] = true, true }, false},
		{"all of a are silent", func(c *council) { c.mute["a1"], c.mute["a2"], c.mute["a3"] = true, true, true }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCouncil(t)
			for name := range c.nodes {
				if !c.announces(name) {
					t.Fatalf("%s does not announce to begin with: %+v", name, c.plans[name].Routes[0])
				}
			}
			tc.happen(c)
			c.pass(health.FreshFor + 5*time.Second)
			c.says(health.StatusDown, "b1")
			c.pass(2 * time.Minute)
			if got := c.announces("b1"); got != tc.b {
				t.Errorf("b announces %v, want %v: %+v", got, tc.b, c.plans["b1"].Routes[0])
			}
		})
	}
}

// A site announces as long as one of its nodes does, and is answered with; it does not when none does.
func TestOneNodeAnnouncesForItsSite(t *testing.T) {
	c := newCouncil(t)
	for _, step := range []struct {
		lost []string // whose VIP is not on the machine
		want steer.Reason
	}{
		{nil, steer.ReasonNone},
		{[]string{"a1"}, steer.ReasonNone},
		{[]string{"a1", "a2"}, steer.ReasonNone},
		{[]string{"a1", "a2", "a3"}, steer.ReasonAway},
		{[]string{"a2", "a3"}, steer.ReasonNone},
	} {
		for _, name := range []string{"a1", "a2", "a3"} {
			var missing []netip.Addr
			if slices.Contains(step.lost, name) {
				missing = append(missing, netip.MustParseAddr("192.0.2.1"))
			}
			c.nodes[name].SetMissing(missing)
		}
		c.pass(5 * time.Second)
		for name, p := range c.plans {
			if got := p.Services[0].Sites[0].Why; got != step.want {
				t.Errorf("without the VIP at %v: %s says of the site %q, want %q", step.lost, name, got, step.want)
			}
		}
	}
}
