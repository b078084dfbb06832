package decide

import "github.com/pharos-lb/pharos/internal/health"

// WriteAll gives orders in this node's name and returns them as they are to be
// told to the others: all or, with an error, none. They count as acknowledged
// here once SetDurable was called with the digest that follows.
func (c *Core) WriteAll(orders []health.Override) ([]health.Override, error) {
	trial := clone(c.overrides)
	written := make([]health.Override, 0, len(orders))
	for _, v := range orders {
		v.Writer = c.name
		w, err := trial.Write(v)
		if err != nil {
			return nil, err
		}
		written = append(written, w)
	}
	c.overrides = trial
	c.setOrders()
	return written, nil
}

// adopt writes again, in this node's name, the registers whose writers are not in
// the fleet any more: where every node signs, nobody could prove them otherwise.
// Only the first node of the fleet does it, so that they do not outbid each other.
func (c *Core) adopt() {
	first := c.name
	for name := range c.topology.Fleet.Sites {
		first = min(first, name)
	}
	if c.name != first {
		return
	}
	for _, v := range c.overrides.All() {
		if _, known := c.topology.Fleet.Sites[v.Writer]; known {
			continue
		}
		v.Writer = c.name
		if _, known := c.siteNames()[v.Keeper]; !known && v.Scope.Site == "" {
			v.Keeper = c.SelfSite()
		}
		c.overrides.Write(v) // what cannot be written stays as it was
	}
	c.setOrders()
}

// siteNames returns the sites of the fleet.
func (c *Core) siteNames() map[string]bool {
	sites := map[string]bool{}
	for _, site := range c.topology.Fleet.Sites {
		sites[site] = true
	}
	return sites
}

// Holds reports whether v is what its scope's register holds: whether no other
// order has overtaken it.
func (c *Core) Holds(v health.Override) bool {
	held, ok := c.overrides.Get(v.Scope)
	return ok && held.Compare(v) == 0
}

// Standing returns the orders in force, sorted by scope. Not to be changed.
func (c *Core) Standing() []health.Override { return c.facts.Overrides }

// With returns the orders that would stand if these were given: a preview.
func (c *Core) With(orders []health.Override) []health.Override {
	trial := clone(c.overrides)
	for _, v := range orders {
		v.Writer = c.name
		trial.Write(v) // one that cannot be written will be refused, so it changes nothing
	}
	return trial.Standing()
}

// MergeOverrides takes registers that others hold and reports whether any
// replaced ours, and how many were refused.
func (c *Core) MergeOverrides(all []health.Override) (changed bool, refused int) {
	for _, v := range all {
		newer, err := c.overrides.Merge(v)
		changed = changed || newer
		if err != nil {
			refused++
		}
	}
	if changed {
		c.setOrders()
	}
	return changed, refused
}

// Overrides returns every register, cleared ones too, and their digest.
func (c *Core) Overrides() ([]health.Override, uint64) {
	return c.overrides.All(), c.overrides.Digest()
}

// SetDurable says that the overrides with this digest are on disk: from now on
// the reports say so.
func (c *Core) SetDurable(digest uint64) { c.durable = digest }

// Durable returns the digest that the reports carry.
func (c *Core) Durable() uint64 { return c.durable }

// Acknowledged counts the nodes of the fleet that hold exactly the overrides
// with this digest on disk, as far as their newest reports say, and all nodes.
func (c *Core) Acknowledged(digest uint64) (k, n int) {
	for name := range c.topology.Fleet.Sites {
		n++
		switch r := c.ledger.Held(name); {
		case name == c.name:
			if c.durable == digest {
				k++
			}
		case r != nil && r.Overrides == digest:
			k++
		}
	}
	return k, n
}

// clone returns a set with the same registers.
func clone(o *health.Overrides) *health.Overrides {
	c := health.NewOverrides()
	for _, v := range o.All() {
		c.Merge(v) // it was good enough for o
	}
	return c
}
