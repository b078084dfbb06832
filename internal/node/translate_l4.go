package node

import (
	"net/netip"

	"github.com/pharos-lb/pharos/forward/l4"
	"github.com/pharos-lb/pharos/forward/l4/udp"
	"github.com/pharos-lb/pharos/internal/config"
)

// tcpListener is a configured listener at one of its addresses; gone is what services say of backends that are gone.
func tcpListener(at netip.AddrPort, bind config.Bind, c *config.TCPListener, gone map[string]l4.Departure) l4.Listener {
	l := l4.Listener{
		Address: at, Overflow: overflows(bind), Service: c.Service,
		Idle: c.Idle, Connect: c.Connect, Lifetime: c.Lifetime, Hello: c.Hello,
		Backlog: c.Backlog, KeepAlive: c.KeepAlive, UserTimeout: c.UserTimeout,
		FastOpen: c.FastOpen, DeferAccept: c.DeferAccept,
		AcceptProxy: c.AcceptProxy, SendProxy: proxyVersion(c.SendProxy),
		Sources: c.Sources, Transparent: c.Transparent,
		Limits: forwardLimits(c.Limits), BackendGone: l4.Departure{Policy: gonePolicy(c.BackendGone), After: c.GoneAfter},
		ServiceGone: gone,
	}
	for _, r := range c.Routes {
		l.Routes = append(l.Routes, l4.Route{SNI: r.SNI, ALPN: r.ALPN, Service: r.Service})
	}
	return l
}

// overflows reports whether other sites listen at their VIPs as this one does at this listener: only
// then there is somebody to hand on to.
func overflows(b config.Bind) bool { return b.Host == "vip" || b.Host == "" && !b.Addr.IsValid() }

func forwardLimits(c config.Limits) l4.Limits {
	return l4.Limits{
		Connections: c.Connections, ServiceConnections: c.ServiceConnections, Rate: c.Rate,
		ClientConnections: c.ClientConnections, ClientRate: c.ClientRate,
		ClientBits4: c.ClientIPv4, ClientBits6: c.ClientIPv6, Table: c.Clients,
	}
}

func proxyVersion(word string) l4.ProxyVersion {
	switch word {
	case "v1":
		return l4.Proxy1
	case "v2":
		return l4.Proxy2
	}
	return l4.ProxyNone
}

func gonePolicy(word string) l4.Gone {
	switch word {
	case "drain":
		return l4.GoneDrain
	case "abort":
		return l4.GoneAbort
	}
	return l4.GoneKeep
}

func udpGonePolicy(word string) udp.Gone {
	switch word {
	case "keep":
		return udp.GoneKeep
	case "drain":
		return udp.GoneDrain
	case "abort":
		return udp.GoneAbort
	}
	return udp.GoneSilent
}

// leaving are the services that say themselves what becomes of work whose backend is gone.
func (s *Setup) leaving() map[string]*config.Service {
	out := make(map[string]*config.Service)
	for i := range s.Config.Services {
		if own := &s.Config.Services[i]; own.BackendGone != "" {
			out[own.Name] = own
		}
	}
	return out
}

// departures are what leaving say, for TCP.
func (s *Setup) departures() map[string]l4.Departure {
	out := make(map[string]l4.Departure)
	for name, own := range s.leaving() {
		out[name] = l4.Departure{Policy: gonePolicy(own.BackendGone), After: own.GoneAfter}
	}
	return out
}

func (s *Setup) udpListeners() []udp.Listener {
	var out []udp.Listener
	leaving := s.leaving()
	for i := range s.Config.Listeners {
		l := &s.Config.Listeners[i]
		if l.UDP == nil {
			continue
		}
		for _, a := range s.addresses(l.Bind, s.Config.Served(l)) {
			u := udp.Listener{
				Overflow: overflows(l.Bind), Address: wildcard(a), Service: l.UDP.Service, Idle: l.UDP.Idle, Responses: l.UDP.Responses, Sessions: l.UDP.Sessions,
				Limits: udp.Limits{
					Rate: l.UDP.Limits.Rate, ClientRate: l.UDP.Limits.ClientRate, ClientBits4: l.UDP.Limits.ClientIPv4,
					ClientBits6: l.UDP.Limits.ClientIPv6, Table: l.UDP.Limits.Clients,
				},
				Offload: l.UDP.Offload, BackendGone: udpGonePolicy(l.UDP.BackendGone), GoneAfter: l.UDP.GoneAfter,
			}
			if own := leaving[u.Service]; own != nil {
				u.BackendGone, u.GoneAfter = udpGonePolicy(own.BackendGone), own.GoneAfter
			}
			if q := l.UDP.QUIC; q != nil {
				u.QUIC = &udp.QUIC{Length: q.Length, Servers: q.Servers}
			}
			out = append(out, u)
		}
	}
	return out
}
