package config

import "time"

func serviceKeys() *shape {
	return object(
		with("policy", oneOrMore(policyKeys(), 1, 4), []string{"geo", "nearest"},
			"How clients are steered: steps that narrow the choice, in this order"),
		may("check", checkKeys(), "The health check of every backend and VIP. Default: tcp"),
		need("backends", dict(siteName(), oneOrMore(backendKeys(), 1, maxBackends), 1, maxSites),
			"The upstream servers, by site"),
		may("vip", vipKeys(), "The addresses that users connect to, by site"),
	)
}

// vipKeys is a dict of sites with one fixed key, anycast; no site can have that name.
func vipKeys() *shape {
	s := object(
		may("anycast", oneOrMore(one(address("an anycast address")), 1, maxAddresses), "Addresses shared by all sites of the service"),
	)
	s.key, s.least, s.most = siteName(), 1, maxSites
	s.rest = oneOrMore(one(address("a VIP")), 1, maxAddresses)
	return s
}

func backendKeys() *shape {
	return object(
		need("address", one(addressPort()), "IP address and port"),
		with("weight", one(integer("a weight", 1, maxWeight)), defaultWeight, "Share of the pool's traffic, relative to the others"),
	).orShort(addressPort())
}

// policyKeys is one step: a word, or a mapping of that word to its arguments.
func policyKeys() *shape {
	sites := oneOrMore(one(siteName()), 1, maxSites)
	return object(
		may("geo", dict(where(), sites, 1, maxRules),
			"Places to sites in the order of preference. Without arguments: the sites of the client's country, else continent"),
		may("failover", list(one(siteName()), 1, maxSites),
			"Sites, most preferred first; sites not named follow together"),
		may("weighted", dict(siteName(), one(integer("a weight", 0, maxWeight)), 1, maxSites),
			"Sites to shares of the clients; a site not named has 1, and 0 is used only when nothing else is left"),
	).pick("geo", "failover", "weighted").orShort(policyWord())
}

// policyWord is a step without arguments. Failover has no meaning without its order.
func policyWord() *scalar {
	s := enum("a policy", string(PolicyGeo), string(PolicyNearest), string(PolicyWeighted))
	read := s.read
	s.read = func(text string) (any, *problem) {
		if text == string(PolicyFailover) {
			return nil, refuse("failover needs the order of its sites: write {failover: [first, second]}")
		}
		return read(text)
	}
	return s
}

func checkKeys() *shape {
	return object(
		may("tcp", object(), "Connect, nothing more"),
		may("http", httpCheckKeys(false), "Ask over HTTP"),
		may("https", httpCheckKeys(true), "Ask over HTTPS"),
		with("every", one(duration("every", minEvery, maxEvery, time.Millisecond)), defaultEvery, "Time between probes"),
		may("timeout", one(duration("timeout", minTimeout, maxTimeout, time.Millisecond)),
			"When a probe has failed; at most every. Default: 2s, or every if that is less"),
		with("jitter", one(number("jitter", 0, 0.5)), defaultJitter, "How far probes are spread, as a share of every"),
		with("rise", one(integer("rise", 1, 100)), defaultRise, "Successes in a row to come up"),
		with("fall", one(integer("fall", 1, 100)), defaultFall, "Failures in a row to go down"),
		may("recheck", one(duration("recheck", minTimeout, maxEvery, time.Millisecond)),
			"Time between probes from a first failure until it is decided; at most every. Default: 250ms, or every if that is less"),
		may("vip_port", one(port()),
			"The port at which other sites probe the VIPs. Default: that of the listener that serves them, else the one all backends share"),
	).atMostOne("tcp", "http", "https").
		orShort(enum("a check", string(CheckTCP), string(CheckHTTP), string(CheckHTTPS)))
}

func httpCheckKeys(secure bool) *shape {
	s := object(
		with("method", one(enum("a method", "GET", "HEAD")), defaultMethod, "The request's method"),
		with("path", one(urlPath("a path", true)), defaultURLPath, "The request's path and query"),
		may("host", one(checkHost()), "The Host header. Default: the address"),
		may("headers", dict(headerName(), one(text("a header's value", maxHeader)), 0, maxHeaders), "Header fields to send"),
		with("status", oneOrMore(one(statusRange()), 1, maxStatuses), []string{"200-399"}, `The status codes that are healthy: 200, "200-299" or a list`),
		may("body", one(text("a text", maxBody)), "Text that occurs in the first 64 KiB of the body. Default: any body"),
	)
	if secure {
		s.fields = append(s.fields,
			may("sni", one(checkHost()), "The TLS server name. Default: host"),
			with("insecure", one(boolean()), false, "Do not verify the certificate"))
	}
	return s
}
