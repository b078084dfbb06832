package config

func listenerKeys() *shape {
	return object(
		need("bind", one(bind("a place to listen", true)),
			`Where traffic comes in: "vip:443" (this site's VIPs of the services it serves), "node:443", ":443" or an address`),
		may("tcp", tcpKeys(), "Forward TCP connections"),
		may("udp", udpKeys(), "Forward datagrams"),
		may("http", httpKeys(), "Forward HTTP requests"),
		may("tls", tlsKeys(), "Terminate TLS; for http only"),
	).pick("tcp", "udp", "http")
}

func intakeKeys() *shape {
	return object(
		with("connections", one(integer("connections", 1, maxConnections)), defaultConnections,
			"How many client connections there may be, over all tcp listeners, as many over all http listeners, and as many over HTTP/3"),
		may("rate", one(integer("rate", 1, maxConnections)), "How many new connections a second are taken, by tcp, http and HTTP/3 together, with a burst of one second"),
		may("session_rate", one(integer("session_rate", 1, maxConnections)), "How many new UDP sessions a second are taken over all udp listeners, with a burst of one second. Default: any number"),
	)
}
