package config

import "time"

func serviceKeys() *shape {
	return object(
		with("policy", oneOrMore(policyKeys(), 1, 4), []string{"geo", "nearest"},
			"How clients are steered: steps that narrow the choice, in this order"),
		may("check", checkKeys(), "The health check of every backend and VIP. Default: tcp"),
		may("transport", transportKeys(), "What HTTP requests go to the backends in. Default: http"),
		may("balance", balanceKeys(), "How the backends of a pool share the work. Default: auto"),
		may("limit", limitKeys(), "How much each backend carries at a time. Default: any amount"),
		may("eject", ejectKeys(), "Pass over backends for what becomes of their work, on this node alone. Default: nobody"),
		may("panic", one(number("panic", 0.01, 1)),
			"While a smaller share of a pool's backends is up, but not none, those that are down get work as well. Default: they do not"),
		may("backend_gone", one(enum("a policy", goneKeep, goneDrain, goneAbort)),
			"What becomes of its connections and sessions through tcp and udp listeners when their backend is down, drained or removed: keep, drain (they end after gone_after) or abort (they end, unless the backend is drained by order). Default: what the listener says"),
		may("gone_after", one(duration("gone_after", minGoneAfter, maxIdle, time.Millisecond)), "How long drain waits. Default: 30s"),
		may("overflow", overflowKeys(), "Forward to the VIPs of other sites what a site's own pool has nobody for. Default: nothing"),
		need("backends", dict(siteName(), oneOrMore(backendKeys(), 1, maxBackends), 1, maxSites),
			"The upstream servers, by site"),
		may("vip", vipKeys(), "The addresses that users connect to, by site"),
		with("min_sites", one(integer("min_sites", 1, maxSites)), defaultMinSites,
			"How many sites are answered at least, whatever the checks say; at most as many as have backends"),
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

func overflowKeys() *shape {
	return object(
		may("to", list(one(siteName()), 1, maxSites), "Sites, most preferred first. Default: all that have a VIP of the service, the nearest first"),
	).orShort(boolean())
}

func backendKeys() *shape {
	return object(
		need("address", one(addressPort()), "IP address and port"),
		with("weight", one(integer("a weight", 1, maxWeight)), defaultWeight, "Share of the pool's traffic, relative to the others"),
		may("zone", one(label("a zone")), "The availability zone that the backend is in: nodes there prefer it"),
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
