package config

import (
	"cmp"
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
		b.buildCheck(d)
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
				backend = Backend{Address: get[netip.AddrPort](item, "address"), Weight: get[int](item, "weight")}
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

func (b *builder) buildCheck(d *draft) {
	at := d.at.section("check")
	word, short := at.data.(string)
	check := Check{
		Kind:    CheckTCP,
		Every:   get[time.Duration](at, "every"),
		Timeout: get[time.Duration](at, "timeout"),
		Jitter:  get[float64](at, "jitter"),
		Rise:    get[int](at, "rise"),
		Fall:    get[int](at, "fall"),
		Recheck: get[time.Duration](at, "recheck"),
		VIPPort: uint16(get[int](at, "vip_port")),
	}
	if short {
		check.Kind = CheckKind(word)
	}
	for _, kind := range []CheckKind{CheckTCP, CheckHTTP, CheckHTTPS} {
		if at.entry(string(kind)) != nil {
			check.Kind = kind
		}
	}
	if check.Kind != CheckTCP {
		check.HTTP = b.httpCheck(at.section(string(check.Kind)))
	}
	if at.entry("timeout") == nil {
		check.Timeout = min(check.Every, defaultTimeout)
	} else if at.sound("every", "timeout") && check.Timeout > check.Every {
		b.refuse(at.entry("timeout"), refuse("%s is longer than every (%s): a probe must end before the next begins", plain(check.Timeout), plain(check.Every)))
	}
	if at.entry("recheck") == nil {
		check.Recheck = min(check.Every, defaultRecheck)
	} else if at.sound("every", "recheck") && check.Recheck > check.Every {
		b.refuse(at.entry("recheck"), refuse("%s is longer than every (%s): rechecks come faster", plain(check.Recheck), plain(check.Every)))
	}
	d.Check = check
}

func (b *builder) httpCheck(at *value) HTTPCheck {
	check := HTTPCheck{
		Method: get[string](at, "method"),
		Path:   get[string](at, "path"),
		Host:   get[string](at, "host"),
		Body:   get[string](at, "body"),
		Status: each[StatusRange](at.list("status")),
	}
	if check.Status == nil {
		check.Status = defaultStatus()
	}
	if at.shape.field("sni") != nil {
		check.SNI = cmp.Or(get[string](at, "sni"), hostOnly(check.Host))
		check.Insecure = get[bool](at, "insecure")
	}
	seen := make(map[string]bool)
	for name, header := range at.entry("headers").chosen {
		text, _ := header.data.(string)
		if low := strings.ToLower(name); seen[low] {
			b.refuseKey(header, refuse("%s is given twice: case does not matter in headers", name))
		} else {
			seen[low] = true
		}
		check.Headers = append(check.Headers, Header{Name: name, Value: text})
	}
	slices.SortFunc(check.Headers, func(x, y Header) int { return strings.Compare(x.Name, y.Name) })
	if check.Method == "HEAD" && check.Body != "" {
		b.refuse(at.entry("body"), refuse("a HEAD request has no body to search: use method GET"))
	}
	return check
}

// hostOnly returns a Host header without its port, as TLS wants it; addresses
// are no server names (RFC 6066).
func hostOnly(host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	name, _, _ := strings.Cut(host, ":")
	return strings.TrimSuffix(name, ".")
}

// checkVIPs checks what a steered service needs at each site, and that the other
// sites can know which port of a VIP to probe.
func (b *builder) checkVIPs() {
	for _, d := range b.order {
		if d.named != nil && !d.at.isMeant("vip") {
			for _, pool := range d.Pools {
				if d.vips[pool.Site] == nil {
					b.refuseKey(d.pools[pool.Site], refuse("%s is answered with the VIPs of %s, which has none at %s: add vip.%s",
						plainName(d.named.FQDN), d.Name, pool.Site, pool.Site))
				}
			}
		}
		if len(d.VIPs) > 0 && len(b.cfg.Sites) > 1 && !d.listened && d.at.section("check").entry("vip_port") == nil && !d.onePort() {
			b.refuseKey(d.at.entry("vip"), refuse("the port to probe the VIPs at is not known: no listener serves %s and its backends have several ports; set check.vip_port", d.Name))
		}
	}
}

// onePort reports whether all backends have the same port.
func (d *draft) onePort() bool {
	port := uint16(0)
	for _, pool := range d.Pools {
		for _, backend := range pool.Backends {
			if port != 0 && backend.Address.Port() != port {
				return false
			}
			port = backend.Address.Port()
		}
	}
	return true
}
