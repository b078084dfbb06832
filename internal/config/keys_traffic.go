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
