package config

import (
	"slices"
	"strings"
	"time"
)

// prefixRules fills in when a prefix is announced, besides its services.
func (b *builder) prefixRules(at *value, prefix *Prefix) {
	prefix.MinSites = get[int](at, "min_sites")
	prefix.WarmUp = get[time.Duration](at, "warm_up")
	prefix.HalfLife = get[time.Duration](at, "flap_half_life")
	prefix.Standby = b.announcing(at, "standby", prefix)
	prefix.StandbyAnnounce = get[string](at, "standby_mode") == StandbyAnnounce
	prefix.LocalOnly = b.announcing(at, "local_only", prefix)
	prefix.Need = get[int](at, "need")
	for site, item := range at.entry("capacity").chosen {
		if units, ok := item.data.(int); ok {
			b.refuseSilent(item, site, prefix)
			prefix.Capacity = append(prefix.Capacity, SiteCapacity{Site: site, Units: units})
		}
	}
	slices.SortFunc(prefix.Capacity, func(x, y SiteCapacity) int { return strings.Compare(x.Site, y.Site) })
	if len(prefix.Sites) == 0 { // said already
		return
	}
	if prefix.MinSites > len(prefix.Sites) {
		b.refuse(at.entry("min_sites"), refuse("%d is more sites than announce it (%d)", prefix.MinSites, len(prefix.Sites)))
	}
	if len(prefix.Standby) > 0 && len(prefix.Standby) == len(prefix.Sites) {
		b.refuse(at.entry("standby"), refuse("every site is a standby: leave out those that announce it first"))
	}
	if at.entry("standby") == nil {
		for _, key := range [...]string{"standby_mode", "need", "capacity"} {
			if entry := at.entry(key); entry != nil {
				b.refuse(entry, refuse("it says when standby sites are needed, and there are none: add standby"))
			}
		}
		return
	}
	all := 0
	for _, site := range prefix.Sites {
		all += prefix.CapacityOf(site)
	}
	if prefix.Need > all {
		b.refuse(at.entry("need"), refuse("all sites together have %d", all))
	}
}

// announcing returns a list of sites that have to announce the prefix.
func (b *builder) announcing(at *value, key string, prefix *Prefix) []string {
	for _, item := range at.list(key) {
		if site, ok := item.data.(string); ok {
			b.refuseSilent(item, site, prefix)
		}
	}
	return slices.Sorted(slices.Values(b.names(at.list(key))))
}

// refuseSilent refuses a site that never announces the prefix.
func (b *builder) refuseSilent(item *value, site string, prefix *Prefix) {
	if len(prefix.Sites) > 0 && !slices.Contains(prefix.Sites, site) {
		b.refuse(item, refuse("%s does not announce %s: its sites are %s", site, prefix.Prefix, listed(prefix.Sites)))
	}
}

// CapacityOf returns what a site can take of the prefix.
func (p *Prefix) CapacityOf(site string) int {
	for _, c := range p.Capacity {
		if c.Site == site {
			return c.Units
		}
	}
	return 1
}

// buildDrain fills in the stages of a drain.
func (b *builder) buildDrain() {
	at := b.top.section("drain")
	b.cfg.Drain = Drain{
		Depreference: get[time.Duration](at, "depreference"),
		TrafficBelow: get[float64](at, "traffic_below"),
		Connections:  get[time.Duration](at, "connections"),
		Stop:         get[time.Duration](at, "stop"),
	}
}
