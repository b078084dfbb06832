package config

import "time"

func listenerKeys() *shape {
	return object(
		need("bind", one(bind("a place to listen", true)),
			`Where traffic comes in: "vip:443" (this site's VIPs of the services it serves), "node:443", ":443" or an address`),
		may("tcp", object(
			need("service", one(serviceName()), "The service that connections go to"),
			with("idle", one(duration("idle", minIdle, maxIdle, time.Millisecond)), defaultIdle, "When a connection with both directions silent is closed"),
			with("connect", one(duration("connect", minConnect, maxConnect, time.Millisecond)), defaultConnect, "How long a connection to a backend may take"),
		), "Forward TCP connections"),
		may("http", object(
			need("routes", list(routeKeys(), 1, maxRoutes), "Where requests go; the most specific host, then the longest path wins"),
			with("idle", one(duration("idle", minIdle, maxIdle, time.Millisecond)), defaultHTTPIdle, "How long a connection may wait for its next request"),
		), "Forward HTTP requests"),
	).pick("tcp", "http")
}

func routeKeys() *shape {
	return object(
		may("host", one(routeHost()), "The Host header: exact, or *.example.com. Default: any"),
		with("path", one(urlPath("a path", false)), defaultURLPath, "The beginning of the path, in whole segments"),
		need("service", one(serviceName()), "The service that requests go to"),
	)
}

func bgpKeys() *shape {
	return object(
		need("asn", one(asn()), "This fleet's AS number"),
		with("port", one(port()), defaultBGPPort, "The port that is listened on, and the peers' unless they say otherwise"),
		with("listen", one(boolean()), defaultBGPListen, "Accept sessions from peers"),
		with("lease", one(duration("lease", minLease, maxLease, time.Millisecond)), defaultLease,
			"When the BGP process withdraws everything because the rest of pharos is silent"),
		may("prefixes", list(prefixKeys(), 0, maxPrefixes), "What is announced"),
		may("peers", dict(siteName(), list(peerKeys(), 1, maxPeers), 0, maxSites), "The routers, by site"),
	)
}

func prefixKeys() *shape {
	return object(
		need("prefix", one(announced()), "The prefix to announce"),
		need("requires", oneOrMore(one(serviceName()), 1, maxServices), "Services: a site announces the prefix while it can serve all of them"),
		may("communities", oneOrMore(one(community()), 0, maxCommunities), `Standard communities, like "64500:100"`),
		may("sites", oneOrMore(one(siteName()), 1, maxSites), "Sites that may announce it. Default: every site with peers"),
	)
}

func peerKeys() *shape {
	return object(
		need("address", one(address("a peer's address")), "The router's address"),
		need("asn", one(asn()), "The router's AS number"),
		may("port", one(port()), "The router's port. Default: bgp.port"),
		may("password_file", one(fileName("a file", maxPath)), "A file with the TCP MD5 password (RFC 2385)"),
		may("password", one(secret("the password")), "The TCP MD5 password as ${NAME}; password_file is the better place"),
		with("hold", one(duration("hold", minHold, maxHold, time.Second)), defaultHold, "Hold time: the session fails when the router is silent for so long"),
		may("multihop", one(integer("multihop", 2, 255)), "The TTL towards a router that is not directly connected. Default: directly connected"),
		with("passive", one(boolean()), false, "Wait for the router to connect"),
	).atMostOne("password_file", "password")
}

// announced is a prefix that may be announced: never a default route.
func announced() *scalar {
	s := prefix("a prefix")
	read := s.read
	s.read = func(text string) (any, *problem) {
		if text == "0.0.0.0/0" || text == "::/0" {
			return nil, refuse("%s is the default route, which is never announced: write the prefix that holds the anycast addresses", text)
		}
		return read(text)
	}
	return s
}
