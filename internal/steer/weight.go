package steer

// FullWeight is what a percentage of 100 makes of a configured weight of 1.
const FullWeight = 100

// Weight returns the share of new work that a backend of this node's own pool takes,
// relative to the others: its configured weight (1 … 1000) times the percentage that it asks for
// (Facts.Weights), so 0 … 100,000. backend is an index in the Pool. 0 = no new
// work, or no such backend. While every active backend asks for 0 the percentages do
// not count: somebody has to do it. Answers and Services do not depend on it.
func (p *Plan) Weight(service, backend int) int {
	pool, plan, ok := p.Pool(service)
	if !ok || backend < 0 || backend >= len(pool.Backends) {
		return 0
	}
	weight := pool.Backends[backend].Weight
	s := &p.Topology.Services[service]
	targets := s.Sites[s.Home].Backends
	if percent := p.percent(targets[backend]); percent > 0 {
		return weight * percent
	}
	for i, target := range targets {
		if plan.Backends[i].Active && p.percent(target) > 0 {
			return 0
		}
	}
	return weight * FullWeight
}

// percent returns what a target asks for, at most 100.
func (p *Plan) percent(target int) int {
	if len(p.Facts.Weights) != len(p.Topology.Layout.Targets) {
		return FullWeight
	}
	return min(int(p.Facts.Weights[target]), FullWeight)
}
