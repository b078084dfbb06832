package dnslb

import (
	"sync"

	"github.com/pharos-lb/pharos/dnslb/zone"
	"github.com/pharos-lb/pharos/internal/steer"
)

// A serving is a zone set in use, with the last plan that knew each of its
// services. A reload publishes its plan before it swaps the zones: in between,
// a name of the old zones whose service is no longer there is answered from the
// plan before. What is remembered goes with the zones.
type serving struct {
	zones *zone.Set

	mu     sync.Mutex // guards the rest
	newest *era
	known  map[string]*era // by service
}

// An era is the time of one topology; its plans know the same services.
type era struct {
	plan *steer.Plan // the last of it
}

// serve makes a serving of a set, beginning with the plan on the board.
func serve(set *zone.Set, board *steer.Board) *serving {
	s := &serving{zones: set, known: make(map[string]*era)}
	s.note(board)
	return s
}

// note remembers the newest plan for the services that it knows.
func (s *serving) note(board *steer.Board) {
	s.mu.Lock()
	defer s.mu.Unlock()
	plan := board.Load() // under the lock, so that no older one comes after it
	switch {
	case plan == nil:
		return
	case s.newest != nil && s.newest.plan.Topology == plan.Topology:
		s.newest.plan = plan
		return
	}
	s.newest = &era{plan}
	for _, name := range s.zones.Services() {
		if _, ok := plan.Topology.Service(name); ok {
			s.known[name] = s.newest
		}
	}
}

// last returns the last plan that knew a service, nil if none ever did.
func (s *serving) last(service string) *steer.Plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.known[service]; e != nil {
		return e.plan
	}
	return nil
}

// bindings remembers, for each steered name, what the newest plan knows of it,
// so that a query does not look names up by string. It fills on use: a new plan
// costs each name one look-up, when it is first asked for. Not safe for
// concurrent use.
type bindings struct {
	serving *serving // what names belongs to
	plan    *steer.Plan
	epoch   uint64 // of plan; entries of other epochs are stale
	names   []binding
}

// A binding is one steered name in one plan.
type binding struct {
	epoch   uint64
	service int // index in Topology.Services; −1 if no plan has had the service
	ttl     uint32
	// older is the plan to answer from where the newest does not know the service.
	older *steer.Plan
}

// begin readies the bindings for a query to the zones.
func (b *bindings) begin(s *serving) {
	if b.serving != s {
		*b = bindings{serving: s, epoch: b.epoch}
	}
}

// of returns the binding of a name, and the plan that it is in; it is valid
// until the next call.
func (b *bindings) of(name *zone.Steered, plan *steer.Plan, board *steer.Board) (*binding, *steer.Plan) {
	if b.plan != plan {
		b.plan = plan
		b.epoch++
		b.serving.note(board)
	}
	if b.names == nil {
		b.names = make([]binding, b.serving.zones.Steered())
	}
	bound := &b.names[name.Index]
	if bound.epoch != b.epoch {
		*bound = binding{epoch: b.epoch, service: -1, ttl: name.TTL}
		if !bound.bind(name, plan) {
			if older := b.serving.last(name.Service); older != nil && bound.bind(name, older) {
				bound.older = older
			}
		}
	}
	if bound.older != nil {
		return bound, bound.older
	}
	return bound, plan
}

// bind looks the name up in a plan. It reports whether the plan has its service.
func (bound *binding) bind(name *zone.Steered, plan *steer.Plan) bool {
	i, ok := plan.Topology.Service(name.Service)
	if !ok || i >= len(plan.Topology.Services) {
		return false
	}
	bound.service = i
	// The plan shortens TTLs while something is down. It may be older than the
	// zones; then it speaks of this name only if it means the same service.
	if configured, ok := plan.Topology.Name(name.FQDN); ok && configured.Service == name.Service {
		bound.ttl = plan.TTL(configured)
	}
	return true
}
