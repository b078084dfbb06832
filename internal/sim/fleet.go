package sim

import (
	"fmt"
	"strings"
	"sync"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

// A fleet is what is configured, compiled for every node.
type fleet struct {
	nodes      []string // by machine
	siteOf     []int    // by machine
	sites      []string
	topologies []*steer.Topology // by machine
	layout     *health.Layout
	scopes     []health.Scope
}

// backendsPerSite is the pool of the one service at each site.
const backendsPerSite = 2

// fleets are those that were compiled before: what is compiled does not change, and every run of a size
// has the same.
var fleets sync.Map

// fleetOf returns the fleet of a size.
func fleetOf(sites, perSite, minSites int) *fleet {
	size := [3]int{sites, perSite, minSites}
	if f, ok := fleets.Load(size); ok {
		return f.(*fleet)
	}
	f, _ := fleets.LoadOrStore(size, newFleet(sites, perSite, minSites))
	return f.(*fleet)
}

// newFleet compiles a fleet of sites × perSite nodes that serve two services:
// one everywhere, one at the first two sites only.
func newFleet(sites, perSite, minSites int) *fleet {
	f := &fleet{}
	for s := range sites {
		f.sites = append(f.sites, fmt.Sprintf("s%02d", s))
		for n := range perSite {
			f.nodes = append(f.nodes, fmt.Sprintf("s%02dn%02d", s, n))
			f.siteOf = append(f.siteOf, s)
		}
	}
	cfg, err := config.Parse("sim.yaml", []byte(f.yaml(perSite, minSites)), config.Sources{})
	if err != nil {
		panic("sim: its own configuration is wrong: " + err.Error())
	}
	for _, node := range f.nodes {
		t, err := steer.Compile(cfg, nil, node)
		if err != nil {
			panic("sim: its own configuration does not compile: " + err.Error())
		}
		f.topologies = append(f.topologies, t)
	}
	f.layout = f.topologies[0].Layout
	f.scopes = f.topologies[0].Scopes()
	return f
}

// yaml writes the configuration.
func (f *fleet) yaml(perSite, minSites int) string {
	var sites, peers strings.Builder
	wide := &serviceText{port: 80, addr: 1}
	narrow := &serviceText{port: 81, addr: 2}
	for s, name := range f.sites {
		fmt.Fprintf(&sites, "  %s: {location: \"%d,%d\", nodes: {", name, 1+s%80, 1+s%170)
		for n := range perSite {
			fmt.Fprintf(&sites, "%s: 127.%d.%d.%d, ", f.nodes[s*perSite+n], 1+s/250, s%250, 1+n)
		}
		sites.WriteString("}}\n")
		wide.add(s, name)
		if s < 2 {
			narrow.add(s, name)
		}
		fmt.Fprintf(&peers, "    %s: [{address: 127.%d.%d.254, asn: 64496}]\n", name, 1+s/250, s%250)
	}
	return "cluster: {name: sim}\nsites:\n" + sites.String() +
		"services:\n  narrow:\n" + narrow.text() + "  wide:\n" + fmt.Sprintf("    min_sites: %d\n", min(minSites, len(f.sites))) + wide.text() +
		"zones:\n  sim.test: {names: {wide: {service: wide}, narrow: {service: narrow}}}\n" +
		"drain: {depreference: 5s}\nbgp:\n  asn: 64500\n  prefixes:\n" + f.prefixes() + "  peers:\n" + peers.String()
}

// prefixes writes what is announced: a prefix of which each site decides alone, one with a
// minimum, and where there are enough sites one with a standby.
func (f *fleet) prefixes() string {
	out := "    - {prefix: 192.0.2.0/24, requires: [wide]}\n" +
		"    - {prefix: 198.51.100.0/24, requires: [wide], min_sites: 1, warm_up: 2s}\n"
	if n := len(f.sites); n > 2 {
		out += fmt.Sprintf("    - {prefix: 203.0.113.0/24, requires: [wide], min_sites: 2, standby: [%s]}\n", f.sites[n-1])
	}
	return out
}

// A serviceText is a service being written.
type serviceText struct {
	port, addr     int
	backends, vips strings.Builder
}

func (t *serviceText) add(s int, site string) {
	fmt.Fprintf(&t.backends, "      %s: [", site)
	for b := range backendsPerSite {
		fmt.Fprintf(&t.backends, "\"10.%d.%d.%d:%d\", ", s/250, s%250, 10*t.addr+b, t.port)
	}
	t.backends.WriteString("]\n")
	fmt.Fprintf(&t.vips, "      %s: 198.18.%d.%d\n", site, 10*t.addr+s/250, s%250+1)
}

func (t *serviceText) text() string {
	return "    check: tcp\n    backends:\n" + t.backends.String() + "    vip:\n" + t.vips.String()
}
