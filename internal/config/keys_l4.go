package config

import "time"

// tcpKeys are what a listener of TCP connections is told.
func tcpKeys() *shape {
	return object(
		may("service", one(serviceName()), "The service that connections go to; with routes, those that no route takes"),
		may("routes", list(tlsRouteKeys(), 1, maxRoutes), "Where TLS connections go by the name and the protocol that the client asks for; TLS is passed through"),
		with("idle", one(duration("idle", minIdle, maxIdle, time.Millisecond)), defaultIdle, "When a connection with both directions silent is closed"),
		with("connect", one(duration("connect", minConnect, maxConnect, time.Millisecond)), defaultConnect, "How long a connection to a backend may take"),
		may("lifetime", one(duration("lifetime", minIdle, maxLifetime, time.Millisecond)), "When a connection is closed however busy it is. Default: never"),
		with("hello", one(duration("hello", minConnect, maxConnect, time.Millisecond)), defaultHello, "How long a client may take for its PROXY header, and for its TLS hello"),
		with("backlog", one(integer("backlog", 1, 65535)), defaultBacklog, "How many connections may wait to be accepted, on each processor"),
		with("keepalive", one(duration("keepalive", minIdle, maxKeepAlive, time.Second)), defaultKeepAlive, "The silence after which the kernel asks whether a peer is still there, three times"),
		may("user_timeout", one(duration("user_timeout", minIdle, maxIdle, time.Millisecond)), "How long sent bytes may stay unacknowledged. Default: the kernel's"),
		with("fast_open", one(boolean()), false, "Allow data in the first segment, from clients and to backends (TCP Fast Open)"),
		may("defer_accept", one(duration("defer_accept", time.Second, time.Minute, time.Second)), "Accept a connection when the client has sent something, or after so long. Not where the server speaks first. Default: at once"),
		may("accept_proxy", oneOrMore(one(prefix("a source")), 1, maxSources), "Sources whose connections begin with a PROXY header, version 1 or 2: it is demanded of them and refused from all others"),
		may("send_proxy", one(enum("a version", "v1", "v2")), "Begin connections to backends with a PROXY header"),
		may("source", oneOrMore(one(address("a source")), 1, 2), "The addresses that backends are connected to from, one of each family at most. Default: the kernel's choice"),
		with("transparent", one(boolean()), false, "Connect to backends from the client's address; needs CAP_NET_ADMIN, and routing that brings the answers back here"),
		may("limits", listenerLimitKeys("connections"), "What is taken"),
		may("backend_gone", one(enum("a policy", goneKeep, goneDrain, goneAbort)), "What becomes of connections to a backend that is down, drained or removed: keep, drain (reset after gone_after) or abort (reset, unless the backend is drained by order). Default: keep"),
		with("gone_after", one(duration("gone_after", minIdle, maxIdle, time.Millisecond)), defaultGoneAfter, "How long drain waits"),
	).atMostOne("source", "transparent")
}

func tlsRouteKeys() *shape {
	return object(
		may("sni", one(routeHost()), "The server name: exact, or *.example.com. Default: any, and none"),
		may("alpn", oneOrMore(one(text("a protocol", 255)), 1, maxProtocols), "Protocols of which the client offers one. Default: any"),
		need("service", one(serviceName()), "The service that connections go to"),
	)
}

// listenerLimitKeys are the limits of a listener of connections or sessions.
func listenerLimitKeys(what string) *shape {
	count := func(key string) *shape { return one(integer(key, 1, maxConnections)) }
	return object(
		may("connections", count("connections"), "How many "+what+" of this listener there may be"),
		may("service_connections", count("service_connections"), "How many "+what+" a service may have, over all listeners"),
		may("rate", count("rate"), "How many new "+what+" a second are taken, with a burst of one second"),
		may("client_connections", count("client_connections"), "How many "+what+" one client may have"),
		may("client_rate", count("client_rate"), "How many new "+what+" a second one client may open, with a burst of one second"),
		with("client_ipv4", one(integer("client_ipv4", 8, 32)), 32, "How many bits of an IPv4 address make a client"),
		with("client_ipv6", one(integer("client_ipv6", 16, 128)), 64, "How many bits of an IPv6 address make a client"),
		with("clients", one(integer("clients", 64, maxClients)), defaultClients, "How many clients are remembered; one that there is no room for is served and not counted"),
	)
}
