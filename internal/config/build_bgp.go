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
	if socket := get[string](at, "gobgp_socket"); socket != "" {
		b.cfg.BGP.Socket = b.resolve(socket)
	}
	if b.cfg.BGP.Listen {
		b.claim(at, "port", Bind{Host: bindNode, Port: b.cfg.BGP.Port}, nil, overTCP)
	}
	d := at.section("depreference")
	b.cfg.BGP.Depreference = Depreference{
		Prepend: get[int](d, "prepend"), MED: get[uint32](d, "med"), LocalPref: get[uint32](d, "local_pref"),
	}
	b.cfg.BGP.Restart = b.restart(at.entry("graceful_restart"))
	groups := b.groups(at)
	peered := make(map[string]bool)
	for site, at := range at.entry("peers").chosen {
		peered[site] = true
		b.peersOf(site, at, groups)
	}
	slices.SortFunc(b.cfg.BGP.Peers, func(x, y Peer) int {
		return cmp.Or(strings.Compare(x.Site, y.Site), x.Address.Compare(y.Address), comparePrefixes(x.From, y.From), cmp.Compare(x.Port, y.Port))
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
	b.refuseRestart(at.entry("graceful_restart"))
}

// restart reads graceful restart, which is a promise about what pharos cannot see.
func (b *builder) restart(at *value) time.Duration {
	if at == nil {
		return 0
	}
	d := get[time.Duration](at, "time")
	if !get[bool](at, "traffic_outlives_pharos") {
		b.refuse(at, refuse("routers would go on sending here when pharos has died: that is right only where what answers on the announced addresses goes on without it; if it does, say traffic_outlives_pharos: true"))
	}
	return d
}

// refuseRestart refuses graceful restart where the promise is plainly not kept, or of no use.
func (b *builder) refuseRestart(at *value) {
	if at == nil || b.cfg.BGP.Restart == 0 {
		return
	}
	for _, p := range b.cfg.BGP.Prefixes {
		for _, c := range b.claims {
			for _, a := range slices.SortedFunc(maps.Keys(c.addresses), netip.Addr.Compare) {
				if c.bind.Host != bindNode && p.Prefix.IsValid() && p.Prefix.Contains(a) {
					b.refuse(at, refuse("pharos itself listens on %s, which is in %s (%s): nobody answers there when it dies", a, p.Prefix, c.at.path()))
					return
				}
			}
		}
	}
	for _, p := range b.cfg.BGP.Peers {
		if p.BFD.Interval > 0 {
			b.refuse(at, refuse("peer %s has bfd, which ends with pharos: the router then drops the routes at once; take one of the two out", p.Address))
			return
		}
	}
}

// A peerGroup is what peers share.
type peerGroup struct {
	at       *value
	password Secret
}

func (b *builder) groups(at *value) map[string]*peerGroup {
	out := make(map[string]*peerGroup)
	for name, at := range at.entry("groups").chosen {
		out[name] = &peerGroup{at: at, password: b.peerPassword(at)}
	}
	return out
}

// peerPassword reads the password that is written in one place.
func (b *builder) peerPassword(at *value) Secret {
	password, from := b.readSecretOf(at, "password")
	const longest = 80 // bytes of a TCP MD5 key in Linux (TCP_MD5SIG_MAXKEYLEN)
	if len(password) > longest {
		b.refuse(from, refuse("the password has %d bytes: TCP MD5 takes at most %d", len(password), longest))
	}
	return NewSecret(password)
}

// peersOf reads the peers of one site.
func (b *builder) peersOf(site string, at *value, groups map[string]*peerGroup) {
	var seen []netip.Prefix
	for _, item := range at.items {
		peer := b.peer(site, item, groups)
		where := item.entry("address")
		if where == nil {
			where = item.entry("from")
		}
		b.refuseShared(where, site, peer.Within(), seen)
		if peer.Within().Bits() > 0 { // else it is refused for that
			seen = append(seen, peer.Within())
		}
		b.refuseOtherFamily(item, where, peer)
		b.cfg.BGP.Peers = append(b.cfg.BGP.Peers, peer)
	}
}

// refuseShared refuses a peer that stands for a router which another one stands for.
func (b *builder) refuseShared(at *value, site string, within netip.Prefix, seen []netip.Prefix) {
	if within.Bits() <= 0 {
		return
	}
	for _, other := range seen {
		switch {
		case within == other && within.IsSingleIP():
			b.refuse(at, refuse("%s is already a peer of %s", within.Addr(), site))
			return
		case within.Overlaps(other):
			b.refuse(at, refuse("%s and %s have addresses in common: each router can be one peer only", shortPrefix(within), shortPrefix(other)))
			return
		}
	}
}

// shortPrefix writes a prefix of one address as that address.
func shortPrefix(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// refuseOtherFamily refuses a peer that a node of its site has no address to speak with.
func (b *builder) refuseOtherFamily(at, where *value, peer Peer) {
	i := slices.IndexFunc(b.cfg.Sites, func(s Site) bool { return s.Name == peer.Site })
	if i < 0 || !peer.Within().IsValid() {
		return
	}
	for _, n := range b.cfg.Sites[i].Nodes {
		if n.Of(peer.Is4()).IsValid() {
			continue
		}
		b.refuse(where, refuse("node %s has no %s address to speak with it: give it a second_address", n.Name, familyName(peer.Within().Addr())))
		return
	}
}

func familyName(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// Of returns the node's address of a family; zero = it has none.
func (n Node) Of(is4 bool) netip.Addr {
	switch {
	case n.Address.Is4() == is4:
		return n.Address
	case n.Second.IsValid() && n.Second.Is4() == is4:
		return n.Second
	}
	return netip.Addr{}
}

func (b *builder) peer(site string, at *value, groups map[string]*peerGroup) Peer {
	peer := Peer{Site: site, Address: get[netip.Addr](at, "address"), From: get[netip.Prefix](at, "from"), Group: get[string](at, "group"), Password: b.peerPassword(at)}
	group := groups[peer.Group]
	if peer.Group != "" && group == nil {
		p := refuse("there is no group %s in bgp.groups", peer.Group)
		if near := nearest(peer.Group, maps.Keys(groups)); near != "" {
			p.try(near)
		}
		b.refuse(at.entry("group"), p)
	}
	// in is where a key is: the peer's own place, or its group's.
	in := func(key string) *value {
		if group != nil && at.entry(key) == nil && group.at.entry(key) != nil {
			return group.at
		}
		return at
	}
	peer.ASN = get[uint32](in("asn"), "asn")
	if in("asn").entry("asn") == nil && !at.isMeant("asn") && (group == nil || !group.at.isMeant("asn")) {
		b.refuse(at, refuse("asn is missing: the router's AS number, here or in its group"))
	}
	peer.Port = uint16(get[int](in("port"), "port"))
	if in("port").entry("port") == nil {
		peer.Port = b.cfg.BGP.Port
	}
	peer.Hold = get[time.Duration](in("hold"), "hold")
	peer.Multihop = get[int](in("multihop"), "multihop")
	peer.TTLSecurity = get[int](in("ttl_security"), "ttl_security")
	peer.Passive = get[bool](in("passive"), "passive")
	peer.Look = get[bool](in("look"), "look")
	peer.MaxPrefixes = get[int](in("max_prefixes"), "max_prefixes")
	peer.BFD = b.bfd(in("bfd").entry("bfd"), &peer)
	if !peer.Password.IsSet() && group != nil {
		peer.Password = group.password
	}
	peer.Attributes = attributes(at)
	if group != nil {
		peer.Attributes = peer.over(attributes(group.at))
	}
	b.checkFrom(at, in, &peer)
	b.checkPeer(at, in, &peer)
	return peer
}

// checkFrom is what is special of a prefix of peers.
func (b *builder) checkFrom(at *value, in func(string) *value, peer *Peer) {
	if at.entry("from") == nil {
		if at.entry("max_peers") != nil {
			b.refuse(at.entry("max_peers"), refuse("is for a prefix of peers: it goes with from"))
		}
		return
	}
	peer.MaxPeers = defaultMaxPeers
	if at.entry("max_peers") != nil {
		peer.MaxPeers = get[int](at, "max_peers")
	}
	if from := peer.From; from.IsValid() && from.Bits() == 0 {
		b.refuse(at.entry("from"), refuse("%s would let everybody in: write the network that the routers are in", from))
	}
	peer.Passive = true
	if !b.cfg.BGP.Listen {
		b.refuse(at.entry("from"), refuse("its routers can never connect: bgp.listen is false"))
		peer.Passive = false // said
	}
	for _, key := range []string{"bfd", "look", "port", "passive"} {
		if where := in(key).entry(key); where != nil {
			b.refuse(where, refuse("is for a peer with an address, and this is a prefix of peers (from)"))
		}
	}
	peer.BFD, peer.Look = BFD{}, false
}

// checkPeer refuses keys of a peer that do not go together.
func (b *builder) checkPeer(at *value, in func(string) *value, peer *Peer) {
	where := func(key string) *value { return in(key).entry(key) }
	if peer.Passive && !b.cfg.BGP.Listen {
		b.refuse(where("passive"), refuse("a passive session can never begin: bgp.listen is false"))
	}
	internal := peer.ASN == b.cfg.BGP.ASN
	switch {
	case peer.ASN == 0 || b.cfg.BGP.ASN == 0:
	case peer.TTLSecurity > 0 && peer.Multihop > 0:
		b.refuse(where("ttl_security"), refuse("cannot be together with multihop: it says itself how far away the router may be"))
	case internal && (peer.TTLSecurity > 0 || peer.Multihop > 0):
		key := "multihop"
		if peer.TTLSecurity > 0 {
			key = "ttl_security"
		}
		b.refuse(where(key), refuse("is for eBGP: AS %d is this fleet's own, and iBGP sessions may have any number of hops", peer.ASN))
	case internal && in("prepend").entry("prepend") != nil:
		b.refuse(where("prepend"), refuse("is for eBGP: a router of AS %d would take the path for a loop; use local_pref", peer.ASN))
	case !internal && in("local_pref").entry("local_pref") != nil:
		b.refuse(where("local_pref"), refuse("is for iBGP: AS %d would not hear it; use med or prepend", peer.ASN))
	}
}

func (b *builder) bfd(at *value, peer *Peer) BFD {
	if at == nil {
		return BFD{}
	}
	d := BFD{
		Interval: get[time.Duration](at, "interval"), Multiplier: get[int](at, "multiplier"),
		Multihop: peer.Multihop > 0, MinTTL: get[int](at, "min_ttl"), Strict: get[bool](at, "strict"),
	}
	if at.entry("multihop") != nil {
		d.Multihop = get[bool](at, "multihop")
	}
	if d.MinTTL > 0 && !d.Multihop {
		b.refuse(at.entry("min_ttl"), refuse("is for multihop BFD: a single hop takes nothing but 255"))
	}
	return d
}

func attributes(at *value) Attributes {
	list := at.list("communities")
	return Attributes{
		MED: get[uint32](at, "med"), LocalPref: get[uint32](at, "local_pref"), Prepend: get[int](at, "prepend"),
		Communities: each[Community](list), Large: each[LargeCommunity](list), Extended: each[string](list),
	}
}

// over returns a's numbers where it has some, else b's, and the communities of both.
func (a Attributes) over(b Attributes) Attributes {
	return Attributes{
		MED: cmp.Or(a.MED, b.MED), LocalPref: cmp.Or(a.LocalPref, b.LocalPref), Prepend: cmp.Or(a.Prepend, b.Prepend),
		Communities: slices.Concat(a.Communities, b.Communities),
		Large:       slices.Concat(a.Large, b.Large),
		Extended:    slices.Concat(a.Extended, b.Extended),
	}
}

func (b *builder) prefix(at *value, peered map[string]bool) Prefix {
	prefix := Prefix{
		Prefix:     get[netip.Prefix](at, "prefix"),
		Requires:   slices.Sorted(slices.Values(b.names(at.list("requires")))),
		Attributes: attributes(at),
		Sites:      slices.Sorted(slices.Values(b.names(at.list("sites")))),
	}
	b.required(at, &prefix)
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
	b.refuseNoHop(at, prefix)
	for _, item := range at.list("to") {
		prefix.To = append(prefix.To, b.to(item, prefix.Prefix))
	}
	b.prefixRules(at, &prefix)
	return prefix
}

// refuseNoHop refuses a prefix that a node has no next hop for.
func (b *builder) refuseNoHop(at *value, prefix Prefix) {
	if !prefix.Prefix.IsValid() {
		return
	}
	for _, site := range b.cfg.Sites {
		if !slices.Contains(prefix.Sites, site.Name) {
			continue
		}
		for _, n := range site.Nodes {
			if !n.Of(prefix.Prefix.Addr().Is4()).IsValid() {
				b.refuse(at.entry("prefix"), refuse("node %s has no %s address to be the next hop: give it a second_address, or leave %s out of sites",
					n.Name, familyName(prefix.Prefix.Addr()), site.Name))
				return
			}
		}
	}
}

// to reads what some peers hear of a prefix.
func (b *builder) to(at *value, prefix netip.Prefix) PeerRoute {
	to := PeerRoute{Deny: get[bool](at, "deny"), NextHop: get[netip.Addr](at, "next_hop"), Attributes: attributes(at)}
	if hop := to.NextHop; hop.IsValid() && prefix.IsValid() && hop.Is4() != prefix.Addr().Is4() {
		b.refuse(at.entry("next_hop"), refuse("%s is of the other family than %s", hop, prefix))
	}
	for _, item := range at.list("peers") {
		name, ok := item.data.(string)
		if !ok {
			continue
		}
		meant := b.peersNamed(name)
		if len(meant) == 0 {
			b.refuse(item, refuse("%s is no peer: write the address of one, a prefix with the addresses of some, or the name of a group that has some", clip(name)))
		}
		to.Peers = append(to.Peers, meant...)
	}
	slices.SortFunc(to.Peers, comparePrefixes)
	to.Peers = slices.Compact(to.Peers)
	return to
}

// peersNamed are the peers that an address, a prefix or a group stands for; none = it is a mistake.
func (b *builder) peersNamed(name string) (out []netip.Prefix) {
	in, err := netip.ParsePrefix(name)
	if a, errAddr := netip.ParseAddr(name); errAddr == nil {
		in, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	for _, p := range b.cfg.BGP.Peers {
		within := p.Within()
		if err == nil && in.Bits() <= within.Bits() && in.Contains(within.Addr()) || err != nil && p.Group == name {
			out = append(out, within)
		}
	}
	return out
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
