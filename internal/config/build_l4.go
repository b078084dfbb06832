package config

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// What becomes of connections to a backend that is out of use.
const (
	goneSilent = "silent" // of sessions, the default
	goneKeep   = "keep"
	goneDrain  = "drain"
	goneAbort  = "abort"
)

// A TCPListener forwards connections to one service, or by TLS hello to several.
type TCPListener struct {
	Service     string // with Routes: of what no route takes; may be empty
	Routes      []TLSRoute
	Idle        time.Duration // both directions silent; default 10m
	Connect     time.Duration // to a backend; default 2s
	Lifetime    time.Duration // 0 = no limit
	Hello       time.Duration // for PROXY header and TLS hello; default 5s
	Backlog     int
	KeepAlive   time.Duration
	UserTimeout time.Duration // 0 = the kernel's
	FastOpen    bool
	DeferAccept time.Duration  // 0 = at once
	AcceptProxy []netip.Prefix // sources that begin with a PROXY header
	SendProxy   string         // "", "v1" or "v2"
	Sources     []netip.Addr   // one of each family at most
	Transparent bool
	Limits      Limits
	BackendGone string // "keep", "drain" or "abort"
	GoneAfter   time.Duration
}

// A TLSRoute sends TLS connections to a service.
type TLSRoute struct {
	SNI     string   // exact, or "*.example.com"; "" = any and none
	ALPN    []string // nil = any
	Service string
}

// Limits are what a listener takes; 0 = no limit.
type Limits struct {
	Connections, ServiceConnections, Rate int
	ClientConnections, ClientRate         int
	ClientIPv4, ClientIPv6                int // bits of an address that make a client
	Clients                               int // remembered
}

func (b *builder) buildTCP(at *value, serve func(string) string) *TCPListener {
	l := &TCPListener{
		Service:     serve(get[string](at, "service")),
		Idle:        get[time.Duration](at, "idle"),
		Connect:     get[time.Duration](at, "connect"),
		Lifetime:    get[time.Duration](at, "lifetime"),
		Hello:       get[time.Duration](at, "hello"),
		Backlog:     get[int](at, "backlog"),
		KeepAlive:   get[time.Duration](at, "keepalive"),
		UserTimeout: get[time.Duration](at, "user_timeout"),
		FastOpen:    get[bool](at, "fast_open"),
		DeferAccept: get[time.Duration](at, "defer_accept"),
		SendProxy:   get[string](at, "send_proxy"),
		Transparent: get[bool](at, "transparent"),
		Limits:      buildLimits(at.section("limits")),
		BackendGone: get[string](at, "backend_gone"),
		GoneAfter:   get[time.Duration](at, "gone_after"),
		Sources:     b.buildSources(at),
	}
	if l.BackendGone == "" {
		l.BackendGone = goneKeep
	}
	if l.BackendGone != goneDrain {
		b.checkGoneAfter(at, l.BackendGone)
	}
	for _, item := range at.list("accept_proxy") {
		if p, ok := item.data.(netip.Prefix); ok {
			l.AcceptProxy = append(l.AcceptProxy, p)
		}
	}
	if at.entry("service") == nil && at.entry("routes") == nil && !at.isMeant("service", "routes") {
		b.refuse(at, refuse("names no service: add service, or routes"))
	}
	b.buildTLSRoutes(l, at, serve)
	return l
}

func (b *builder) buildTLSRoutes(l *TCPListener, at *value, serve func(string) string) {
	seen := make(map[string]bool)
	for _, item := range at.list("routes") {
		route := TLSRoute{SNI: get[string](item, "sni"), Service: serve(get[string](item, "service"))}
		for _, p := range item.list("alpn") {
			if name, ok := p.data.(string); ok {
				route.ALPN = append(route.ALPN, name)
			}
		}
		if item.sound("sni", "alpn") && len(route.ALPN) == 0 {
			if seen[route.SNI] {
				b.refuse(item, refuse("a route for %q with any protocol is already in this listener", route.SNI))
			}
			seen[route.SNI] = true
		}
		l.Routes = append(l.Routes, route)
	}
}

// buildSources returns the source addresses, one of each family at most.
func (b *builder) buildSources(at *value) []netip.Addr {
	var all []netip.Addr
	for _, item := range at.list("source") {
		addr, ok := item.data.(netip.Addr)
		if !ok {
			continue
		}
		if slices.ContainsFunc(all, func(a netip.Addr) bool { return a.Is4() == addr.Is4() }) {
			b.refuse(item, refuse("there is a source of this family already"))
			continue
		}
		all = append(all, addr)
	}
	return all
}

func buildLimits(at *value) Limits {
	return Limits{
		Connections:        get[int](at, "connections"),
		ServiceConnections: get[int](at, "service_connections"),
		Rate:               get[int](at, "rate"),
		ClientConnections:  get[int](at, "client_connections"),
		ClientRate:         get[int](at, "client_rate"),
		ClientIPv4:         get[int](at, "client_ipv4"),
		ClientIPv6:         get[int](at, "client_ipv6"),
		Clients:            get[int](at, "clients"),
	}
}

// checkGoneAfter refuses a time that a listener's policy does not wait for.
func (b *builder) checkGoneAfter(at *value, policy string) {
	if at.given("gone_after") && at.sound("backend_gone") && !at.isMeant("backend_gone") {
		b.refuse(at.entry("gone_after"), refuse("says nothing with backend_gone: %s, which waits for nothing: leave it out", policy))
	}
}

// checkGone reads what becomes of what a service has open to backends that are gone, and refuses what would say nothing.
func (b *builder) checkGone(d *draft) {
	policy, after := d.at.entry("backend_gone"), d.at.entry("gone_after")
	switch {
	case !d.at.sound("backend_gone", "gone_after"):
	case policy != nil && !d.carried:
		b.refuseKey(policy, refuse("says nothing of a service that no tcp or udp listener forwards to: requests of http are always let end"))
	case d.BackendGone == goneDrain:
		d.GoneAfter = cmp.Or(d.GoneAfter, defaultGoneAfter)
	case after != nil && !d.at.isMeant("backend_gone"):
		b.refuseKey(after, refuse("is for backend_gone: drain"))
	}
}
