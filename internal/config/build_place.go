package config

import "slices"

// checkNodeZones refuses a site of which some nodes have an availability zone and others have none: what arrives at those would
// be nobody's share.
func (b *builder) checkNodeZones(site *Site, at *value) {
	named := slices.IndexFunc(site.Nodes, func(n Node) bool { return n.Zone != "" })
	if named < 0 {
		return
	}
	for node, at := range at.entry("nodes").chosen {
		i := slices.IndexFunc(site.Nodes, func(n Node) bool { return n.Name == node })
		if i >= 0 && site.Nodes[i].Zone == "" && !at.isMeant("zone") && at.sound("zone") {
			b.refuseKey(at, refuse("has no zone, and %s of the same site has: all nodes of a site have one, or none", site.Nodes[named].Name))
		}
	}
}

// checkBackendZones refuses zones that have no effect: at a site whose nodes have none, and with an algorithm whose tables are
// the same on every node.
func (b *builder) checkBackendZones(d *draft) {
	for name, at := range d.at.entry("backends").chosen {
		for _, item := range at.items {
			zone := item.entry("zone")
			if zone == nil || zone.data == nil {
				continue
			}
			switch {
			case slices.Contains(hashingWords(), d.Balance.By):
				b.refuseKey(zone, refuse("has no effect with balance %s: a flow that a router moves to a node of another zone keeps its backend", d.Balance.By))
			case !b.hasZones(name):
				b.refuseKey(zone, refuse("has no effect: no node of %s has a zone", name))
			}
		}
	}
}

// hasZones reports whether a node of a site has a zone, or was meant to have one. A site that there is not is refused elsewhere.
func (b *builder) hasZones(name string) bool {
	for site, at := range b.top.entry("sites").chosen {
		if site != name {
			continue
		}
		for _, node := range at.entry("nodes").chosen {
			if node.entry("zone") != nil || node.isMeant("zone") {
				return true
			}
		}
		return false
	}
	return true
}
