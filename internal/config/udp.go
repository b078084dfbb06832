package config

import (
	"cmp"
	"encoding/hex"
	"net/netip"
	"time"
)

// Defaults and limits of listeners of datagrams.
const (
	defaultUDPIdle     = 30 * time.Second
	defaultUDPSessions = 16384
	maxUDPSessions     = 1_000_000
	maxResponses       = 1000
	maxQUICServers     = 1000
	minGoneAfter       = 100 * time.Millisecond
	defaultSilentAfter = 2 * time.Second
	offloadNone        = "none"
	offloadKernel      = "kernel"
)

// A UDPListener forwards datagrams to one service.
type UDPListener struct {
	Service   string
	Idle      time.Duration // a session silent for so long ends; default 30s
	Responses int           // answers to a datagram; -1 = any number
	Sessions  int
	Limits    Limits // no connections, no service_connections, no client_connections
	QUIC      *QUIC  // nil = sessions by addresses alone
	Offload   bool   // the kernel carries sessions where it can

	BackendGone string        // "silent", "keep", "drain" or "abort"
	GoneAfter   time.Duration // of silent and drain
}

// QUIC says how servers write their number into connection IDs.
type QUIC struct {
	Length  int                       // of a connection ID
	Servers map[string]netip.AddrPort // by number, in bytes
}

func udpKeys() *shape {
	return object(
		need("service", one(serviceName()), "The service that datagrams go to"),
		with("idle", one(duration("idle", minIdle, maxIdle, time.Millisecond)), defaultUDPIdle, "When a session that is silent ends"),
		may("responses", one(integer("responses", 0, maxResponses)), "How many answers a datagram gets, after which its session ends: 1 for DNS, 0 for syslog. Default: any number"),
		with("sessions", one(integer("sessions", 1, maxUDPSessions)), defaultUDPSessions, "How many sessions there may be; the oldest gives way"),
		may("limits", object(
			may("rate", one(integer("rate", 1, maxConnections)), "How many new sessions a second are taken, with a burst of one second"),
			may("client_rate", one(integer("client_rate", 1, maxConnections)), "How many new sessions a second one client may begin, with a burst of one second"),
			with("client_ipv4", one(integer("client_ipv4", 8, 32)), 32, "How many bits of an IPv4 address make a client"),
			with("client_ipv6", one(integer("client_ipv6", 16, 128)), 64, "How many bits of an IPv6 address make a client"),
			with("clients", one(integer("clients", 64, maxClients)), defaultClients, "How many clients are remembered; one that there is no room for is served and not counted"),
		), "How fast sessions may begin"),
		with("offload", one(enum("a lane", offloadNone, offloadKernel)), offloadNone, "kernel: the kernel carries sessions that prove to be worth it, past firewall and sockets; needs Linux 6.6, CAP_BPF and CAP_NET_ADMIN, and sockets carry them where it cannot"),
		may("backend_gone", one(enum("a policy", goneSilent, goneKeep, goneDrain, goneAbort)), "What becomes of sessions of a backend that is down, drained or removed: silent (one ends when a datagram has had no answer for gone_after, once there is another backend), keep, drain (all end after gone_after) or abort (all end; of a backend that is drained by order, as with silent). Default: silent"),
		may("gone_after", one(duration("gone_after", minGoneAfter, maxIdle, time.Millisecond)), "How long silent and drain wait. Default: 2s for silent, 30s for drain"),
		may("quic", object(
			need("length", one(integer("length", 2, 20)), "The length of the servers' connection IDs, in bytes"),
			need("servers", list(object(
				need("address", one(addressPort()), "A backend"),
				need("id", one(serverID()), "Its number, in hexadecimal, all of one length; it follows the first byte of its connection IDs"),
			), 1, maxQUICServers), "The backends' numbers"),
		), "Keep QUIC clients that change their address with their backend, by connection ID (QUIC-LB, plaintext)"),
	)
}

// serverID is the number of a QUIC server.
func serverID() *scalar {
	return &scalar{noun: "a number", kind: kindString, pattern: `^([0-9A-Fa-f]{2}){1,16}$`, example: "0a01", read: func(s string) (any, *problem) {
		id, err := hex.DecodeString(s)
		if err != nil || len(id) == 0 || len(id) > 16 {
			return nil, refuse("%q is not a server's number: 1 to 16 bytes in hexadecimal, like 0a01", clip(s))
		}
		return string(id), nil
	}}
}

func (b *builder) buildUDP(at *value, serve func(string) string) *UDPListener {
	l := &UDPListener{
		Service: serve(get[string](at, "service")), Idle: get[time.Duration](at, "idle"),
		Responses: -1, Sessions: get[int](at, "sessions"), Offload: get[string](at, "offload") == offloadKernel,
	}
	if at.given("responses") {
		l.Responses = get[int](at, "responses")
	}
	l.Limits = buildSessionLimits(at.section("limits"))
	b.buildUDPGone(l, at)
	quic := at.entry("quic")
	if l.Offload && (l.Responses >= 0 || quic != nil) {
		b.refuse(at.entry("offload"), refuse("kernel goes neither with responses nor with quic, which look at every datagram: leave out the one or the other"))
	}
	if quic == nil {
		return l
	}
	l.QUIC = &QUIC{Length: get[int](quic, "length"), Servers: make(map[string]netip.AddrPort)}
	size := 0
	for _, item := range quic.list("servers") {
		id := get[string](item, "id")
		if !item.given("id") || !item.given("address") {
			continue
		}
		switch _, twice := l.QUIC.Servers[id]; {
		case twice:
			b.refuse(item.entry("id"), refuse("another server has this number"))
		case size != 0 && len(id) != size:
			b.refuse(item.entry("id"), refuse("is %d bytes long, others are %d: all are of one length", len(id), size))
		case quic.given("length") && 1+len(id) > l.QUIC.Length:
			b.refuse(item.entry("id"), refuse("does not fit into connection IDs of %d bytes after the first", l.QUIC.Length))
		}
		size = len(id)
		l.QUIC.Servers[id] = get[netip.AddrPort](item, "address")
	}
	return l
}

func buildSessionLimits(at *value) Limits {
	return Limits{
		Rate: get[int](at, "rate"), ClientRate: get[int](at, "client_rate"),
		ClientIPv4: get[int](at, "client_ipv4"), ClientIPv6: get[int](at, "client_ipv6"), Clients: get[int](at, "clients"),
	}
}

// buildUDPGone reads what becomes of sessions of backends that are out of use.
func (b *builder) buildUDPGone(l *UDPListener, at *value) {
	l.BackendGone, l.GoneAfter = cmp.Or(get[string](at, "backend_gone"), goneSilent), get[time.Duration](at, "gone_after")
	switch l.BackendGone {
	case goneSilent:
		l.GoneAfter = cmp.Or(l.GoneAfter, defaultSilentAfter)
	case goneDrain:
		l.GoneAfter = cmp.Or(l.GoneAfter, defaultGoneAfter)
	default:
		b.checkGoneAfter(at, l.BackendGone)
	}
}

// checkUDPServices refuses services of which other sites could not tell whether
// their VIP works: a listener of datagrams answers no TCP connection.
func (b *builder) checkUDPServices(at *value) {
	streams := make(map[string]bool)
	for _, l := range b.cfg.Listeners {
		if l.TCP != nil {
			streams[l.TCP.Service] = true
			for _, r := range l.TCP.Routes {
				streams[r.Service] = true
			}
		}
		if l.HTTP != nil {
			for i := range l.HTTP.Routes {
				for _, s := range l.HTTP.Routes[i].Services() {
					streams[s] = true
				}
			}
		}
	}
	for _, item := range at.items {
		udp := item.entry("udp")
		if udp == nil {
			continue
		}
		d := b.services[get[string](udp, "service")]
		if d == nil || !d.hasVIP() || streams[d.Name] || d.Check.VIPPort != 0 || d.at.isMeant("check") {
			continue
		}
		switch d.Check.Kind {
		case CheckUDP, CheckDNS, CheckICMP:
		default:
			b.refuse(udp.entry("service"), refuse("other sites probe the VIPs of %s by its check, which gets no answer from a udp listener: "+
				"make it udp, dns or icmp, or set services.%s.check.vip_port to a TCP port that answers", d.Name, d.Name))
		}
	}
}
