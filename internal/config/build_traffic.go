package config

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

func (b *builder) buildDNS() {
	at := b.top.section("dns")
	b.cfg.DNS = DNS{
		UDPSize:    uint16(get[int](at, "udp_size")),
		TCPMax:     get[int](at, "tcp_max"),
		TCPIdle:    get[time.Duration](at, "tcp_idle"),
		Shared:     get[bool](at, "shared"),
		ECS:        get[bool](at, "ecs"),
		ServerName: get[string](at, "server_name"),
	}
	for _, item := range at.list("listen") {
		if bind, ok := item.data.(Bind); ok {
			b.cfg.DNS.Listen = append(b.cfg.DNS.Listen, bind)
			b.claims = append(b.claims, claim{bind: bind, over: overTCP | overUDP, at: item, addresses: b.addressesOf(bind, nil)})
		}
	}
	if at.entry("listen") == nil {
		b.cfg.DNS.Listen = defaultListen()
		b.claim(at, "listen", b.cfg.DNS.Listen[0], nil, overTCP|overUDP)
	}
}

func (b *builder) buildAdmin() {
	at := b.top.section("admin")
	b.cfg.Admin = Admin{Socket: get[string](at, "socket"), Listen: get[Bind](at, "listen")}
	if socket := b.resolve(b.cfg.Admin.Socket); b.cfg.Admin.Socket != "" {
		if len(socket) > maxSocket {
			b.refuse(at.entry("socket"), refuse("%s is %d bytes long: a unix socket's name has at most %d", clip(socket), len(socket), maxSocket))
		}
		b.cfg.Admin.Socket = socket
	}
	token, from := b.readSecretOf(at, "token")
	listen := at.entry("listen")
	switch {
	case from == nil && listen != nil && !at.isMeant("token_file", "token"):
		b.refuse(listen, refuse("the TCP API needs a token: add token_file"))
	case from != nil && listen == nil && !at.isMeant("listen"):
		b.refuseKey(from, refuse("a token has no effect without listen: the unix socket is guarded by its permissions"))
	case token != "" && len(token) < minToken:
		b.refuse(from, refuse("the token has fewer than %d characters: make one with `head -c 24 /dev/urandom | base64`", minToken))
	}
	b.cfg.Admin.Token = NewSecret(token)
	if listen != nil && listen.data != nil {
		b.claim(at, "listen", b.cfg.Admin.Listen, nil, overTCP)
	}
}

func (b *builder) buildListeners() {
	if at := b.top.entry("listeners"); at != nil {
		for _, item := range at.items {
			b.buildListener(item)
		}
		b.checkUDPServices(at)
	}
	for _, d := range b.order {
		b.checkGone(d)
	}
}

func (b *builder) buildListener(at *value) {
	listener := Listener{Bind: get[Bind](at, "bind")}
	var served []*draft
	serve := func(name string) string {
		if d := b.services[name]; d != nil {
			d.listened = true
			served = append(served, d)
		}
		return name
	}
	if tcp := at.entry("tcp"); tcp != nil {
		listener.TCP = b.buildTCP(tcp, serve)
	}
	over := overTCP
	if udp := at.entry("udp"); udp != nil {
		listener.UDP, over = b.buildUDP(udp, serve), overUDP
	}
	for _, d := range served {
		d.carried = true
	}
	if http := at.entry("http"); http != nil {
		listener.HTTP = b.buildHTTP(http, serve)
		if listener.HTTP.HTTP3 {
			over |= overUDP
			if at.entry("tls") == nil && !at.isMeant("tls") {
				b.refuseKey(http.entry("http3"), refuse("HTTP/3 is spoken over TLS only: give the listener tls"))
			}
		}
	}
	if tls := at.entry("tls"); tls != nil {
		listener.TLS = b.buildTLS(tls)
		if at.entry("tcp") != nil {
			b.refuseKey(tls, refuse("only http can terminate TLS: tcp passes it through as it is"))
		}
	}
	b.cfg.Listeners = append(b.cfg.Listeners, listener)
	if !at.given("bind") {
		return
	}
	if listener.Bind.Host == bindVIP && len(served) > 0 && !slices.ContainsFunc(served, (*draft).hasVIP) {
		b.refuse(at.entry("bind"), refuse("%s has no VIP to listen at: add services.%s.vip", served[0].Name, served[0].Name))
	}
	b.claim(at, "bind", listener.Bind, served, over)
}

func (d *draft) hasVIP() bool { return d.at.entry("vip") != nil || d.at.isMeant("vip") }

// What a port is claimed over.
const (
	overTCP = 1 << iota
	overUDP
)

// A claim is a port that something will listen on, on which addresses, and
// what says so.
type claim struct {
	bind      Bind
	over      int
	at        *value
	addresses map[netip.Addr]bool // nil = every address
}

func (b *builder) claim(at *value, key string, bind Bind, served []*draft, over int) {
	if e := at.entry(key); e != nil {
		if e.data == nil && e.items == nil {
			return // refused already
		}
		at = e
	} else {
		at = at.section(key)
	}
	b.claims = append(b.claims, claim{bind: bind, over: over, at: at, addresses: b.addressesOf(bind, served)})
}

func (b *builder) addressesOf(bind Bind, served []*draft) map[netip.Addr]bool {
	switch {
	case bind.Addr.IsValid():
		return map[netip.Addr]bool{bind.Addr: true}
	case bind.Host == bindNode:
		return setOf(b.nodeAddrs)
	case bind.Host == bindVIP:
		all := make(map[netip.Addr]bool)
		for _, d := range served {
			for _, addr := range d.addresses {
				all[addr] = true
			}
		}
		return all
	}
	return nil
}

func setOf(addrs []netip.Addr) map[netip.Addr]bool {
	all := make(map[netip.Addr]bool, len(addrs))
	for _, addr := range addrs {
		all[addr] = true
	}
	return all
}

// checkClaims refuses two claims of one port on a common address.
func (b *builder) checkClaims() {
	byPort := make(map[uint16][]claim)
	for _, late := range b.claims {
		for _, early := range byPort[late.bind.Port] {
			addr, clash := common(early.addresses, late.addresses)
			if !clash || early.over&late.over == 0 {
				continue
			}
			what := "on every address"
			if addr.IsValid() {
				what = "on " + addr.String()
			}
			// The clash is shown at what the operator wrote, not at a default.
			at, other := late, early
			if b.isDefault(at.at) {
				at, other = early, late
			}
			b.refuse(at.at, refuse("port %d %s is already taken by %s (%q)", at.bind.Port, what, other.at.path(), other.bind.String()))
			break
		}
		byPort[late.bind.Port] = append(byPort[late.bind.Port], late)
	}
}

// isDefault reports whether a claim is that of a key which is not in the file; an item of a list is.
func (b *builder) isDefault(at *value) bool {
	return at.key != nil && at.parent.entry(at.key.Value) != at
}

// common returns an address of both sets; a nil set has every address. The
// address is the least, and invalid when both sets have every address.
func common(x, y map[netip.Addr]bool) (addr netip.Addr, ok bool) {
	if x == nil || y == nil {
		both := x
		if both == nil {
			both = y
		}
		if len(both) == 1 {
			for addr := range both {
				return addr, true
			}
		}
		return netip.Addr{}, both == nil || len(both) > 0
	}
	if len(x) > len(y) {
		x, y = y, x
	}
	for a := range maps.Keys(x) {
		if y[a] && (!ok || a.Less(addr)) {
			addr, ok = a, true
		}
	}
	return addr, ok
}

func (b *builder) buildTests() {
	at := b.top.entry("tests")
	if at == nil {
		return
	}
	for _, item := range at.items {
		when := item.section("when")
		test := Test{
			Name:   get[string](item, "name"),
			Type:   get[string](item, "type"),
			From:   get[string](item, "from"),
			Down:   b.names(when.list("down")),
			Expect: b.names(item.list("expect")),
			Line:   item.node.Line,
		}
		b.cfg.Tests = append(b.cfg.Tests, test)
		if test.Name != "" {
			b.checkTest(test, item)
		}
	}
}

// checkTest refuses a test that could never pass.
func (b *builder) checkTest(test Test, at *value) {
	n := b.find(test.Name)
	if n == nil && b.misspeltNames() {
		return
	}
	if n == nil {
		b.refuse(at.entry("name"), b.refuseMissing("steered name", strings.TrimSuffix(test.Name, "."), b.steeredNames, len(b.steered)))
		return
	}
	if n.Anycast {
		b.refuse(at.entry("name"), refuse("%s is answered with anycast addresses, the same for everybody: there is no site to expect", plainName(n.FQDN)))
		return
	}
	d := b.services[n.Service]
	if d == nil || !at.sound("type") {
		return
	}
	for _, item := range at.list("expect") {
		b.refuseForeign(d, item, item.data, false)
		site, _ := item.data.(string)
		i := slices.IndexFunc(d.VIPs, func(v VIP) bool { return v.Site == site })
		if i < 0 || len(d.VIPs[i].Addresses) == 0 {
			continue
		}
		if !slices.ContainsFunc(d.VIPs[i].Addresses, func(a netip.Addr) bool { return a.Is4() == (test.Type == "A") }) {
			b.refuse(item, refuse("%s has no VIP at %s for type %s", d.Name, site, strings.ToUpper(test.Type)))
		}
	}
}

// misspeltNames reports whether steered names may be under a key that was refused.
func (b *builder) misspeltNames() bool {
	zones := b.top.entry("zones")
	return b.top.isMeant("zones") ||
		zones != nil && slices.ContainsFunc(zones.entries, func(zone *value) bool { return zone.isMeant("names") })
}

// steeredNames yields the steered names as an operator writes them.
func (b *builder) steeredNames(yield func(string) bool) {
	for name := range b.steered {
		if !yield(strings.TrimSuffix(name, ".")) {
			return
		}
	}
}
