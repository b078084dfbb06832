package config

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

func (b *builder) buildBGP() {
	at := b.top.section("bgp")
	b.cfg.BGP = BGP{
		ASN:    get[uint32](at, "asn"),
		Port:   uint16(get[int](at, "port")),
		Listen: get[bool](at, "listen"),
		Lease:  get[time.Duration](at, "lease"),
	}
	if b.top.entry("bgp") == nil {
		return
	}
	if b.cfg.BGP.Listen {
		b.claim(at, "port", Bind{Host: bindNode, Port: b.cfg.BGP.Port}, nil)
	}
	peered := make(map[string]bool)
	for site, at := range at.entry("peers").chosen {
		peered[site] = true
		seen := make(map[netip.AddrPort]bool)
		for _, item := range at.items {
			peer := b.peer(site, item)
			key := netip.AddrPortFrom(peer.Address, peer.Port)
			if peer.Address.IsValid() && seen[key] {
				b.refuse(item.entry("address"), refuse("%s is already a peer of %s", peer.Address, site))
			}
			seen[key] = true
			b.cfg.BGP.Peers = append(b.cfg.BGP.Peers, peer)
		}
	}
	slices.SortFunc(b.cfg.BGP.Peers, func(x, y Peer) int {
		return cmp.Or(strings.Compare(x.Site, y.Site), x.Address.Compare(y.Address), cmp.Compare(x.Port, y.Port))
	})
	seen := make(map[netip.Prefix]*value)
	for _, item := range at.list("prefixes") {
		prefix := b.prefix(item, peered)
		if first := seen[prefix.Prefix]; first != nil && prefix.Prefix.IsValid() {
			b.refuse(item.entry("prefix"), refuse("%s is already %s", prefix.Prefix, first.path()))
		}
		seen[prefix.Prefix] = item
		b.cfg.BGP.Prefixes = append(b.cfg.BGP.Prefixes, prefix)
	}
}

func (b *builder) peer(site string, at *value) Peer {
	peer := Peer{
		Site:     site,
		Address:  get[netip.Addr](at, "address"),
		ASN:      get[uint32](at, "asn"),
		Port:     uint16(get[int](at, "port")),
		Hold:     get[time.Duration](at, "hold"),
		Multihop: get[int](at, "multihop"),
		Passive:  get[bool](at, "passive"),
	}
	if at.entry("port") == nil {
		peer.Port = b.cfg.BGP.Port
	}
	if peer.Passive && !b.cfg.BGP.Listen {
		b.refuse(at.entry("passive"), refuse("a passive session can never begin: bgp.listen is false"))
	}
	password, from := b.readSecretOf(at, "password")
	const longest = 80 // bytes of a TCP MD5 key in Linux (TCP_MD5SIG_MAXKEYLEN)
	if len(password) > longest {
		b.refuse(from, refuse("the password has %d bytes: TCP MD5 takes at most %d", len(password), longest))
	}
	peer.Password = NewSecret(password)
	return peer
}

func (b *builder) prefix(at *value, peered map[string]bool) Prefix {
	prefix := Prefix{
		Prefix:      get[netip.Prefix](at, "prefix"),
		Requires:    slices.Sorted(slices.Values(b.names(at.list("requires")))),
		Communities: each[Community](at.list("communities")),
		Sites:       slices.Sorted(slices.Values(b.names(at.list("sites")))),
	}
	for _, item := range at.list("sites") {
		site, ok := item.data.(string)
		if !ok {
			continue
		}
		if !peered[site] {
			b.refuse(item, refuse("%s has no peers to announce to: add bgp.peers.%s", site, site))
		}
		for _, name := range prefix.Requires {
			if d := b.services[name]; d != nil {
				b.refuseForeign(d, item, site, false)
			}
		}
	}
	if at.entry("sites") == nil {
		prefix.Sites = slices.Sorted(maps.Keys(peered))
		b.refuseNowhere(at, prefix)
	}
	return prefix
}

// refuseNowhere refuses a prefix that no site could ever announce.
func (b *builder) refuseNowhere(at *value, prefix Prefix) {
	if bgp := b.top.entry("bgp"); bgp.entry("peers") == nil {
		if bgp.isMeant("peers") {
			return
		}
		b.refuse(at, refuse("there is nobody to announce to: add bgp.peers"))
		return
	}
	serves := func(site string) bool {
		return !slices.ContainsFunc(prefix.Requires, func(name string) bool {
			d := b.services[name]
			return d != nil && len(d.pools) > 0 && d.pools[site] == nil
		})
	}
	if len(prefix.Sites) > 0 && !slices.ContainsFunc(prefix.Sites, serves) {
		b.refuse(at, refuse("no site with peers has backends of %s: it would never be announced", listed(prefix.Requires)))
	}
}
