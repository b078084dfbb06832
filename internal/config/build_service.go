package config

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// vipAnycast is the key beside the sites in a service's vip.
const vipAnycast = "anycast"

func (b *builder) buildServices() {
	owners := make(map[netip.Addr]vipOwner)
	for name, at := range b.top.entry("services").chosen {
		d := &draft{Service: Service{Name: name}, at: at}
		b.services[name] = d
		b.order = append(b.order, d)
		b.buildPools(d)
		b.buildAddresses(d, owners)
		b.buildPolicy(d)
		b.buildMinSites(d)
		b.buildBalance(d)
		b.checkBackendZones(d)
		b.buildTransport(d)
		d.Panic = get[float64](d.at, "panic")
		b.buildOverflow(d)
		d.BackendGone, d.GoneAfter = get[string](d.at, "backend_gone"), get[time.Duration](d.at, "gone_after")
		d.Check = b.check(d)
	}
}

func (b *builder) buildPools(d *draft) {
	d.pools = make(map[string]*value)
	for site, at := range d.at.entry("backends").chosen {
		d.pools[site] = at
		pool := Pool{Site: site}
		seen := make(map[netip.AddrPort]bool, len(at.items))
		for _, item := range at.items {
			backend := Backend{Weight: defaultWeight}
			where := item
			if ap, ok := item.data.(netip.AddrPort); ok {
				backend.Address = ap
			} else if where = item.entry("address"); where != nil {
				backend = Backend{Address: get[netip.AddrPort](item, "address"), Weight: get[int](item, "weight"), Zone: get[string](item, "zone")}
			}
			if !backend.Address.IsValid() {
				continue
			}
			if seen[backend.Address] {
				b.refuse(where, refuse("%s is already in this pool", backend.Address))
			}
			seen[backend.Address] = true
			pool.Backends = append(pool.Backends, backend)
		}
		d.Pools = append(d.Pools, pool)
	}
	slices.SortFunc(d.Pools, func(x, y Pool) int { return strings.Compare(x.Site, y.Site) })
}

func (b *builder) buildMinSites(d *draft) {
	d.MinSites = get[int](d.at, "min_sites")
	if at := d.at.entry("min_sites"); at != nil && len(d.pools) > 0 && d.MinSites > len(d.pools) {
		b.refuse(at, refuse("%d is more sites than %s has backends at (%d)", d.MinSites, d.Name, len(d.pools)))
	}
}

// buildOverflow reads where a site's work goes that its own pool has nobody for: sites with a VIP to forward to.
func (b *builder) buildOverflow(d *draft) {
	at := d.at.entry("overflow")
	if at == nil || at.data == false {
		return
	}
	d.Overflow.On = true
	for _, item := range at.list("to") {
		name, ok := item.data.(string)
		switch {
		case !ok:
		case slices.Contains(d.Overflow.To, name):
			b.refuse(item, refuse("%s is listed twice", name))
		case d.vips[name] == nil && slices.ContainsFunc(b.cfg.Sites, func(s Site) bool { return s.Name == name }):
			b.refuse(item, refuse("%s has no VIP at %s to forward to: add vip.%s", d.Name, name, name))
		default:
			d.Overflow.To = append(d.Overflow.To, name)
		}
	}
	if at.entry("to") == nil && !at.isMeant("to") && !d.hasVIP() {
		b.refuseKey(at, refuse("%s has no VIP of any site to forward to", d.Name))
	}
}

// A vipOwner is whose address it is: a site's, or everybody's.
type vipOwner struct {
	site string // vipAnycast for a shared one
	at   *value
}

func (b *builder) buildAddresses(d *draft, owners map[netip.Addr]vipOwner) {
	d.vips = make(map[string]*value)
	at := d.at.entry("vip")
	if at == nil {
		return
	}
	for site, at := range at.chosen {
		d.vips[site] = at
		if d.pools[site] == nil && d.at.entry("backends") != nil {
			b.refuseKey(at, refuse("%s has no backends at %s to serve this VIP: add backends.%s", d.Name, site, site))
		}
		d.VIPs = append(d.VIPs, VIP{Site: site, Addresses: b.ownAddresses(d, site, at.items, owners)})
	}
	slices.SortFunc(d.VIPs, func(x, y VIP) int { return strings.Compare(x.Site, y.Site) })
	d.Anycast = b.ownAddresses(d, vipAnycast, at.list(vipAnycast), owners)
}

// ownAddresses collects addresses and refuses those that another site has: an
// address at several sites is anycast, and must be written so.
func (b *builder) ownAddresses(d *draft, site string, items []*value, owners map[netip.Addr]vipOwner) []netip.Addr {
	var all []netip.Addr
	for _, item := range items {
		addr, ok := item.data.(netip.Addr)
		if !ok {
			continue
		}
		if slices.Contains(all, addr) {
			b.refuse(item, refuse("%s is listed twice", addr))
			continue
		}
		owner, taken := owners[addr]
		if taken && owner.site != site {
			b.refuse(item, refuse("%s is already %s: an address belongs to one site, or to anycast", addr, owner.at.path()))
			continue
		}
		if !taken {
			owners[addr] = vipOwner{site: site, at: item}
		}
		all = append(all, addr)
	}
	d.addresses = append(d.addresses, all...)
	return all
}

func (b *builder) buildPolicy(d *draft) {
	items := d.at.list("policy")
	if items == nil {
		d.Policy = defaultPolicy()
		return
	}
	seen := make(map[PolicyKind]bool)
	for i, item := range items {
		step := Policy{}
		if word, ok := item.data.(string); ok {
			step.Kind = PolicyKind(word)
		} else if len(item.entries) > 0 {
			args := item.entries[0]
			step = b.policyWith(d, PolicyKind(args.key.Value), args)
		} else {
			continue
		}
		if seen[step.Kind] {
			b.refuse(item, refuse("%s is already a step of this policy", step.Kind))
		}
		seen[step.Kind] = true
		if step.Kind == PolicyWeighted && i != len(items)-1 {
			b.refuse(item, refuse("weighted makes the choice, so it must be the last step"))
		}
		d.Policy = append(d.Policy, step)
	}
}

func (b *builder) policyWith(d *draft, kind PolicyKind, args *value) Policy {
	step := Policy{Kind: kind}
	switch kind {
	case PolicyGeo:
		for where, at := range args.chosen {
			rule := GeoRule{Where: where, Sites: b.names(at.items)}
			for _, item := range at.items {
				b.refuseForeign(d, item, item.data, false)
			}
			step.Rules = append(step.Rules, rule)
		}
		slices.SortFunc(step.Rules, func(x, y GeoRule) int { return strings.Compare(x.Where, y.Where) })
	case PolicyFailover:
		step.Order = b.names(args.items)
		for _, item := range args.items {
			b.refuseForeign(d, item, item.data, false)
		}
	case PolicyWeighted:
		positive := false
		for site, at := range args.chosen {
			b.refuseForeign(d, at, site, true)
			weight, ok := at.data.(int)
			positive = positive || weight > 0 || !ok
			step.Weights = append(step.Weights, SiteWeight{Site: site, Weight: weight})
		}
		if !positive && len(step.Weights) > 0 && len(step.Weights) == len(d.pools) {
			b.refuseKey(args, refuse("every weight is 0: give at least one site a share"))
		}
		slices.SortFunc(step.Weights, func(x, y SiteWeight) int { return strings.Compare(x.Site, y.Site) })
	}
	return step
}

// refuseForeign refuses a site at which the service has no backends.
func (b *builder) refuseForeign(d *draft, at *value, data any, atKey bool) {
	site, ok := data.(string)
	if !ok || d.pools[site] != nil || len(d.pools) == 0 {
		return
	}
	p := refuse("%s has no backends at %s, only at %s", d.Name, site, listed(slices.Sorted(maps.Keys(d.pools))))
	if len(d.pools) > 8 {
		p = refuse("%s has no backends at %s", d.Name, site)
	}
	if atKey {
		b.refuseKey(at, p)
	} else {
		b.refuse(at, p)
	}
}
