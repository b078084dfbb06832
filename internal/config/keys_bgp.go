package config

import "time"

func bgpKeys() *shape {
	return object(
		need("asn", one(asn()), "This fleet's AS number"),
		with("port", one(port()), defaultBGPPort, "The port that is listened on, and the peers' unless they say otherwise"),
		with("listen", one(boolean()), defaultBGPListen, "Accept sessions from peers"),
		with("lease", one(duration("lease", minLease, maxLease, time.Millisecond)), defaultLease,
			"When the BGP process withdraws everything because the rest of pharos is silent"),
		may("gobgp_socket", one(fileName("a socket's name", maxSocket)), "A unix socket on which the gobgp command line can ask the BGP process; changes are refused. Default: none"),
		may("graceful_restart", restartKeys(), "Routers keep the routes for a while when pharos dies without a word (RFC 4724). Default: they withdraw at once"),
		may("depreference", depreferenceKeys(), "What a site adds to a route while another site should be taken"),
		may("prefixes", list(prefixKeys(), 0, maxPrefixes), "What is announced"),
		may("groups", dict(label("a group of peers"), object(sessionKeys()...).atMostOne("password_file", "password"), 0, maxGroups),
			"What several peers share, by name"),
		may("peers", dict(siteName(), list(peerKeys(), 1, maxPeers), 0, maxSites), "The routers, by site"),
	)
}

func restartKeys() *shape {
	return object(
		with("time", one(duration("time", time.Second, maxRestart, time.Second)), defaultRestart, "For how long"),
		with("traffic_outlives_pharos", one(boolean()), false,
			"Must be true: what answers on the announced addresses goes on when pharos dies. Else the routers would send into nothing"),
	)
}

func depreferenceKeys() *shape {
	return object(
		with("prepend", one(integer("prepend", 0, maxPrepend)), defaultPrepend, "How often the AS number is added to the path, for eBGP peers"),
		with("med", one(number32("med", 0)), defaultMED, "What is added to the MED"),
		with("local_pref", one(number32("local_pref", 1)), defaultLocalPref, "The local preference instead, for iBGP peers"),
	)
}

// attributeKeys are what a route says of itself.
func attributeKeys() []field {
	return []field{
		may("communities", oneOrMore(one(community()), 0, maxCommunities),
			`Communities: "64500:100", "64500:1:2" (large), "rt:64500:1" or "soo:64500:1" (extended), or a name like no-export`),
		may("med", one(number32("med", 1)), "The multi-exit discriminator. Default: none"),
		may("local_pref", one(number32("local_pref", 1)), "The local preference, for iBGP peers. Default: 100"),
		may("prepend", one(integer("prepend", 1, maxPrepend)), "How often the AS number is added to the path, for eBGP peers. Default: never"),
	}
}

func prefixKeys() *shape {
	return object(append([]field{
		need("prefix", one(announced()), "The prefix to announce"),
		need("requires", oneOrMore(one(requirement()), 1, maxServices),
			`What a site must be able to do to announce the prefix: serve a service ("web"), take connections at a listener on the prefix's addresses ("listener:443"), answer DNS there ("dns:www.example.com")`),
		may("sites", oneOrMore(one(siteName()), 1, maxSites), "Sites that may announce it. Default: every site with peers"),
		may("to", list(toKeys(), 0, maxTo), "What some peers hear instead; the first that means a peer counts"),
	}, append(announceKeys(), attributeKeys()...)...)...)
}

func toKeys() *shape {
	return object(append([]field{
		need("peers", oneOrMore(one(text("a peer", maxPeerName)), 1, maxPeers), "The peers: addresses, prefixes that hold their addresses, or groups"),
		with("deny", one(boolean()), false, "They do not hear of the prefix"),
		may("next_hop", one(address("a next hop")), "The next hop. Default: the node's address"),
	}, attributeKeys()...)...)
}

// sessionKeys are what peers can share.
func sessionKeys() []field {
	return append([]field{
		may("asn", one(asn()), "The router's AS number; here or in its group"),
		may("port", one(port()), "The router's port. Default: bgp.port"),
		may("password_file", one(fileName("a file", maxPath)), "A file with the TCP MD5 password (RFC 2385)"),
		may("password", one(secret("the password")), "The TCP MD5 password as ${NAME}; password_file is the better place"),
		with("hold", one(duration("hold", minHold, maxHold, time.Second)), defaultHold, "Hold time: the session fails when the router is silent for so long"),
		may("multihop", one(integer("multihop", 2, 255)), "The TTL towards a router that is not directly connected. Default: directly connected"),
		may("ttl_security", one(integer("ttl_security", 1, 254)),
			"At most so many hops away (RFC 5082): packets from further away are dropped by the kernel. The router must be set alike. Default: not checked"),
		with("passive", one(boolean()), false, "Wait for the router to connect"),
		with("look", one(boolean()), false, "Show what the router sends of this fleet's prefixes, for `pharos status`: never installed, never passed on"),
		with("max_prefixes", one(integer("max_prefixes", 1, 1_000_000)), defaultMaxPrefixes,
			"How many prefixes of each family the router may send; more end its session for a minute"),
		may("bfd", bfdKeys(), "Bidirectional forwarding detection (RFC 5880): a silent router is noticed in interval × multiplier. Default: none"),
	}, attributeKeys()...)
}

func bfdKeys() *shape {
	return object(
		with("interval", one(duration("interval", minBFDInterval, maxBFDInterval, time.Millisecond)), defaultBFDInterval,
			"Between packets, both ways; the slower side's counts"),
		with("multiplier", one(integer("multiplier", 2, 255)), defaultBFDMultiplier, "How many intervals of silence end the session"),
		may("multihop", one(boolean()), "Multihop BFD (RFC 5883, UDP 4784). Default: when the peer has multihop"),
		may("min_ttl", one(integer("min_ttl", 1, 255)), "Drop multihop packets that arrive with less. Default: any; a single hop takes 255 only"),
		with("strict", one(boolean()), false, "Do not start the BGP session before BFD is up"),
	)
}

func peerKeys() *shape {
	return object(append([]field{
		may("address", one(address("a peer's address")), "The router's address"),
		may("from", one(prefix("a prefix of peers")), "Instead of address: every router of the AS that connects from this prefix is a peer"),
		may("max_peers", one(integer("max_peers", 1, maxFrom)), "How many routers of `from` at a time; further ones are refused. Default: 16"),
		may("group", one(label("a group of peers")), "The group of bgp.groups whose keys it takes where it has none of its own"),
	}, sessionKeys()...)...).atMostOne("password_file", "password").pick("address", "from")
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
