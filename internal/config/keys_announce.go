package config

import "time"

// announceKeys say when a prefix is announced, besides its services.
func announceKeys() []field {
	return []field{
		with("min_sites", one(integer("min_sites", 0, maxSites)), 0,
			"While fewer other sites than this serve the prefix, no site withdraws it but announces it less preferred. 0 = each site decides alone"),
		with("warm_up", one(duration("warm_up", 0, maxWarmUp, time.Millisecond)), defaultWarmUp,
			"How long everything must have been well before the prefix is announced"),
		with("flap_half_life", one(duration("flap_half_life", 0, maxHalfLife, time.Second)), defaultRouteHalfLife,
			"In what time the penalty for withdrawals that health caused halves; after several in short order the prefix stays withdrawn for a while. 0s = never"),
		may("standby", oneOrMore(one(siteName()), 1, maxSites), "Sites that announce it only when the others serve less than is needed"),
		with("standby_mode", one(enum("a mode", StandbyHold, StandbyAnnounce)), StandbyHold,
			"What a standby site does meanwhile: hold the prefix back, or announce it less preferred"),
		may("local_only", oneOrMore(one(siteName()), 1, maxSites), "Sites whose routers are to keep it in their own AS (no-export)"),
		may("capacity", dict(siteName(), one(integer("a capacity", 0, maxCapacity)), 1, maxSites),
			"What each site can take, in units of your own; a site not named has 1"),
		with("need", one(integer("need", 1, maxCapacity)), 1,
			"How much capacity the sites that serve must have together before standby sites are not needed"),
	}
}

// drainKeys are the stages in which something is taken out by order.
func drainKeys() *shape {
	return object(
		with("depreference", one(duration("depreference", 0, maxDrain, time.Millisecond)), defaultDepreference,
			"How long a prefix is announced less preferred before it is withdrawn"),
		with("traffic_below", one(number("traffic_below", 0, maxCapacity)), 0.0,
			"Withdraw it earlier, as soon as fewer connections and queries than this begin in a second at its addresses. 0 = do not"),
		with("connections", one(duration("connections", 0, maxDrain, time.Millisecond)), defaultDrainOpen,
			"How long open connections may take to end, once it is withdrawn, before the drain counts as done"),
		with("stop", one(duration("stop", minStop, maxDrain, time.Millisecond)), defaultStop,
			"How long a node that is told to stop may take for all of it"),
	)
}
