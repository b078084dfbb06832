package config

import "time"

// The keys of the file. This table and its siblings for services (keys_service.go) and for
// traffic (keys_traffic.go) are the only description of the format: the walker reads by it, the
// defaults are taken from it, and the JSON Schema is made of it.

func fileKeys() *shape {
	return object(
		may("cluster", clusterKeys(), "How the nodes gossip"),
		need("sites", dict(label("a site"), siteKeys(), 1, maxSites), "The places with nodes, by name"),
		may("networks", dict(label("a network"), networkKeys(), 0, maxNetworks),
			"Your own networks, by name; what they say of a client overrides the geo data"),
		may("geo", geoKeys(), "The geo data"),
		may("services", dict(label("a service"), serviceKeys(), 0, maxServices), "What users reach, by name"),
		may("zones", dict(dnsName("a zone", false), zoneKeys(), 0, maxZones), "The DNS zones this fleet is authoritative for, by name"),
		may("dns", dnsKeys(), "Where and how DNS is answered"),
		may("listeners", list(listenerKeys(), 0, maxListeners), "Where each site takes traffic in"),
		may("limits", intakeKeys(), "What all listeners of a node take together"),
		may("vips", vipsKeys(), "Have pharos put the VIPs on an interface of each node. Default: they are there already"),
		may("bgp", bgpKeys(), "What is announced and to whom"),
		may("drain", drainKeys(), "The stages in which something is taken out by order"),
		may("admin", adminKeys(), "The admin API"),
		may("tests", list(testKeys(), 0, maxTests), "Assertions that `pharos validate` checks"),
	)
}

func clusterKeys() *shape {
	return object(
		with("name", one(label("a cluster's name")), defaultClusterName, "The cluster; members of others are refused"),
		with("port", one(port()), defaultClusterPort, "Gossip port, UDP and TCP, on every node's address"),
		may("secret_file", one(fileName("a file", maxPath)),
			"A file with the gossip key: 16, 24 or 32 bytes in base64. Needed as soon as a node is not on loopback. With several keys, one a line, the first is used to send"),
		may("secret", one(secret("the gossip key")), "The gossip key as ${NAME}; secret_file is the better place"),
		with("wait", one(duration("wait", minWait, maxWait, time.Millisecond)), defaultWait,
			"How long a starting node may stay silent while it waits for its first verdicts"),
		may("sign_key_file", one(nodeFile()),
			"A file with this node's Ed25519 seed in base64; {node} stands for the node's name. Needed as soon as a node has a public_key"),
		may("seeds", seedKeys(), "Where to look for nodes besides the sites"),
		may("canaries", list(one(addressPort()), 1, maxCanaries),
			"Addresses with ports outside the fleet: a node that reaches none of them doubts itself, not the others"),
		may("overrides_file", one(fileName("a file", maxPath)), "A file with standing orders, for automation"),
	).atMostOne("secret_file", "secret")
}

func seedKeys() *shape {
	s := object(
		may("dns", one(dnsName("a DNS name", false)), "A name with the nodes' addresses (A, AAAA), or with SRV records if it begins with _"),
		may("file", one(fileName("a file", maxPath)), "A file with one address:port a line"),
	)
	s.least = 1 // the builder says so
	return s
}

func siteKeys() *shape {
	return object(
		need("location", one(location()), `Where the site is: an IATA code (FRA), a cloud region (aws:us-east-1) or coordinates ("1.35,103.99")`),
		may("country", one(country()), "The site's country, when it is not that of its location"),
		may("vip_interface", one(text("an interface", maxInterface)), "The interface that the VIPs go on at this site. Default: vips.interface"),
		need("nodes", dict(nodeName(), nodeKeys(), 1, maxNodes),
			"The machines that run pharos: name to address"),
	)
}

func vipsKeys() *shape {
	return object(
		may("interface", one(text("an interface", maxInterface)), "The interface, like lo or a dummy; sites and nodes may have their own"),
		with("linger", one(duration("linger", 0, maxLinger, time.Millisecond)), defaultLinger,
			"How long a VIP stays after it is no longer wanted, or after its connections have ended in a stop"),
	)
}

func nodeKeys() *shape {
	return object(
		need("address", one(address("a node's address")), "The address that gossip and BGP use"),
		may("second_address", one(address("a node's address")), "Its address of the other family: for BGP peers of that family, and the next hop of prefixes of that family"),
		may("vip_interface", one(text("an interface", maxInterface)), "The interface that the VIPs go on at this node. Default: the site's"),
		may("zone", one(label("a zone")), "The availability zone that the node is in, where the site has several: its work goes to backends there first"),
		may("public_key", one(publicKey()), "The node's Ed25519 key in base64: reports in its name count only if they are signed with it"),
	).orShort(address("a node's address"))
}

func networkKeys() *shape {
	return object(
		need("prefixes", list(one(prefix("a prefix")), 1, maxNetPrefixes), "The network's prefixes; the longest that matches wins"),
		may("country", one(country()), "The country its clients are in. Default: that of location"),
		may("region", one(region()), "The region, as in the ISO 3166-2 code after the hyphen; needs country"),
		may("location", one(location()), "Where its clients are: an IATA code, a cloud region or coordinates"),
	)
}

func geoKeys() *shape {
	return object(
		may("databases", oneOrMore(one(fileName("a file", maxPath)), 0, maxDatabases),
			"MaxMind, DB-IP or IPinfo files (.mmdb); later ones fill what earlier ones leave unknown. Default: the embedded country data"),
	)
}

// The answers of a steered name.
const (
	answerSteered = "steered"
	answerAnycast = "anycast"
)

func zoneKeys() *shape {
	s := object(
		may("file", one(fileName("a file", maxPath)),
			"The zone's ordinary records: an RFC 1035 master file. A zone with names needs none: its SOA is then made up"),
		may("records", one(longText("records")), "The zone's ordinary records, inline"),
		may("names", dict(relativeName(), nameKeys(), 0, maxNames),
			"The steered names, relative to the zone; @ is the zone itself, * may be the first label"),
	).atMostOne("file", "records")
	s.least = 1 // names or records; the builder says so
	return s
}

func nameKeys() *shape {
	return object(
		need("service", one(serviceName()), "The service whose addresses are the answer"),
		with("ttl", one(duration("ttl", minTTL, maxTTL, time.Second)), defaultTTL, "How long resolvers may keep the answer"),
		with("answer", one(enum("an answer", answerSteered, answerAnycast)), defaultAnswer,
			"steered: the VIPs of the sites that the policy chooses; anycast: the service's anycast addresses, for everybody"),
	)
}

func dnsKeys() *shape {
	return object(
		with("listen", oneOrMore(one(bind("a place to listen", false)), 1, maxBinds), []string{":53"},
			`Where queries come in, UDP and TCP: ":53", "192.0.2.1:53" or "node:53" (this node's address)`),
		with("udp_size", one(integer("udp_size", 512, 4096)), defaultUDPSize, "The largest UDP answer, in bytes"),
		with("tcp_max", one(integer("tcp_max", 1, 100_000)), defaultTCPMax, "TCP connections at a time"),
		with("tcp_idle", one(duration("tcp_idle", minIdle, maxDNSIdle, time.Millisecond)), defaultTCPIdle,
			"How long a TCP connection may be silent"),
		with("ecs", one(boolean()), defaultECS, "Heed EDNS Client Subnet: steer by the client's network rather than the resolver's address"),
		with("shared", one(boolean()), defaultShared, "Let other processes of this user answer on the same addresses, the kernel spreading the queries; without it an address that is taken is an error"),
		may("server_name", one(text("a server name", 64)), "What NSID and id.server say. Default: the node's name"),
	)
}

func adminKeys() *shape {
	return object(
		with("socket", one(fileName("a socket's name", maxSocket)), defaultSocket, "The unix socket of the admin API"),
		may("listen", one(bind("a place to listen", false)), "A TCP address for the admin API; needs a token. Default: none"),
		may("token_file", one(fileName("a file", maxPath)), "A file with the bearer token of the TCP API"),
		may("token", one(secret("the token")), "The bearer token as ${NAME}; token_file is the better place"),
	).atMostOne("token_file", "token")
}

func testKeys() *shape {
	return object(
		need("name", one(dnsName("a steered name", true)), "A steered name, fully qualified"),
		with("type", one(enum("a type", "A", "AAAA")), defaultType, "The type of the question"),
		need("from", one(from()), `Where the client is: an address, a prefix, DE, US-CA, "continent:EU" or "network:NAME"`),
		may("when", object(
			may("down", oneOrMore(one(siteName()), 0, maxSites), "Sites that are down"),
		), "What is wrong at the time"),
		need("expect", oneOrMore(one(siteName()), 1, maxSites), "The site that is answered, or several of which any is right"),
	)
}
