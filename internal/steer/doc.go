// Package steer decides. It turns a config into a Topology and a topology with
// health verdicts into a Plan: which sites DNS may answer with for which
// clients, which backends take connections, which prefixes this node announces,
// and a typed reason for everything that is out.
//
// It is pure: it starts no goroutine, reads no clock, opens nothing and draws
// no random number. Time, verdicts and randomness come in as arguments, so the same facts
// give the same plan on every node. It never probes, answers, announces or
// forwards: it tells those who do.
//
// The node compiles at start and on reload, decides whenever facts change, and
// publishes on a Board; the DNS, BGP and forwarding tiers load the newest plan from it:
//
//	topology, err := steer.Compile(cfg, db, "fra1")
//	plan := steer.Decide(topology, view, steer.Facts{Now: now, Ready: true}, previous)
//	board.Publish(plan)
//
//	// one query
//	plan := board.Load()
//	class, scope := plan.Topology.Locate(client)
//	position := plan.Pick(service, class, false, random)
//	addrs := plan.Addresses(service, position, false)
//
// # How a site is chosen
//
// A policy is a chain of steps. Each step orders the sites and refines only
// what the steps before it left tied:
//
//   - geo: sites in the client's country, then on its continent, then the rest;
//     with rules, the most specific rule for the place (network, region, country,
//     continent, default) lists its sites first, the others tie after them;
//   - nearest: by great-circle distance in whole kilometres;
//   - failover: in the order of the list, sites not named tie after it;
//   - weighted, last: what is still tied shares the answers at random by weight; a site
//     of weight 0 answers only when no site it is tied with can.
//
// A place that is unknown ties all sites. What is still tied at the end goes by site
// name. The first site in the order that may be answered is the answer.
//
// # Who may be answered
//
// Only a verdict of down excludes; unknown is no evidence. A site is out when every
// backend of its pool is down, or every VIP of the family asked is unreachable from the other
// sites. Operators' orders (Facts.Overrides) come before verdicts: of those that cover one thing, DOWN
// wins over DRAIN and DRAIN over UP, whatever their scopes.
//
// Four rules keep in what is out, each with its own Reason. Fail-open: a family of a service is never
// without an answer. The minimum: nor does it have fewer sites than the config asks for. The budget: what
// only others find dead goes a few sites a minute. Distrust: nothing of that goes
// for a while when at least half of all sites seem to fail at once. The last two look at
// when verdicts changed, and at nothing that a node alone remembers: so nodes agree, and Plan.Recheck says when to decide again.
//
// # What is announced
//
// A prefix is announced from a site when this node is ready and each service that the prefix
// requires has a backend here that is measured or ordered up. It is withdrawn by order, or when all
// backends of such a service are measured down, never because others are silent.
package steer
