package config

import "time"

func listenerKeys() *shape {
	return object(
		need("bind", one(bind("a place to listen", true)),
			`Where traffic comes in: "vip:443" (this site's VIPs of the services it serves), "node:443", ":443" or an address`),
		may("tcp", tcpKeys(), "Forward TCP connections"),
		may("udp", udpKeys(), "Forward datagrams"),
		may("http", object(
			need("routes", list(routeKeys(), 1, maxRoutes), "Where requests go; the most specific host, then the longest path wins"),
			with("idle", one(duration("idle", minIdle, maxIdle, time.Millisecond)), defaultHTTPIdle, "How long a connection may wait for its next request"),
		), "Forward HTTP requests"),
		may("tls", tlsKeys(), "Terminate TLS; for http only"),
	).pick("tcp", "udp", "http")
}

func routeKeys() *shape {
	return object(
		may("host", one(routeHost()), "The Host header: exact, or *.example.com. Default: any"),
		with("path", one(urlPath("a path", false)), defaultURLPath, "The beginning of the path, in whole segments"),
		need("service", one(serviceName()), "The service that requests go to"),
	)
}
