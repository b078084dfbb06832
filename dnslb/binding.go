package dnslb

import (
	"slices"
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

	mu   sync.Mutex // guards the rest
	eras []*steer.Plan
}

// maxEras bounds the plans that a serving remembers: the last of each configuration
// that was in force while it was. It is replaced with the configuration, so there are
// two at the most, for a moment, unless something is amiss.
const maxEras = 4

// serve makes a serving of a set, beginning with the plan on the board.
func serve(set *zone.Set, board *steer.Board) *serving {
	s := &serving{zones: set}
	s.note(board)
	return s
}

// note remembers the newest plan. It is called with queries waiting, so what it
// costs does not depend on how much there is to serve.
func (s *serving) note(board *steer.Board) {
	s.mu.Lock()
	defer s.mu.Unlock()
	plan := board.Load() // under the lock, so that no older one comes after it
	if plan == nil {
		return
	}
	if n := len(s.eras); n > 0 && s.eras[n-1].Topology.Config == plan.Topology.Config {
		s.eras[n-1] = plan
		return
	}
	if len(s.eras) == maxEras {
		s.eras = slices.Delete(s.eras, 0, 1)
	}
	s.eras = append(s.eras, plan)
}

// last returns the last plan that knew a service, nil if none ever did.
func (s *serving) last(service string) *steer.Plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, plan := range slices.Backward(s.eras) {
		if _, ok := plan.Topology.Service(service); ok {
			return plan
		}
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
	epoch   uint32 // of plan; entries of other epochs are stale
	// older are the plans before that some names of this epoch are answered from, at most maxEras.
	older []*steer.Plan
	// names are by zone.Steered.Index, in pages that are made when a name of them is
	// asked for: nobody waits until there is room for a million names.
	names [][]binding
}

// bindingPage is how many names a page has.
const bindingPage = 128

// A binding is one steered name in one plan. It is small, as each query reads another one.
type binding struct {
	epoch   uint32 // the same number comes again after four billion plans, which takes decades
	service int32  // index in Topology.Services; −1 if no plan has had the service
	ttl     uint32
	anycast bool
	older   uint8 // bindings.older[older-1] is the plan to answer from where the newest does not know the service; 0 = the newest
}

// begin readies the bindings for a query to the zones.
func (b *bindings) begin(s *serving) {
	if b.serving != s {
		*b = bindings{serving: s, epoch: b.epoch}
	}
}

// of returns the binding of a steered name by its Index, and the plan that it is in; it is valid
// until the next call.
func (b *bindings) of(name int, plan *steer.Plan, board *steer.Board) (*binding, *steer.Plan) {
	if b.plan != plan {
		b.plan = plan
		b.epoch++
		b.older = b.older[:0]
		b.serving.note(board)
	}
	if b.names == nil {
		b.names = make([][]binding, (b.serving.zones.Steered()+bindingPage-1)/bindingPage)
	}
	page := &b.names[name/bindingPage]
	if *page == nil {
		*page = make([]binding, bindingPage)
	}
	bound := &(*page)[name%bindingPage]
	if bound.epoch != b.epoch {
		bound.renew(b, b.serving.zones.SteeredName(name), plan)
	}
	if bound.older > 0 {
		return bound, b.older[bound.older-1]
	}
	return bound, plan
}

// touch has the processor fetch what of will read for a name, if there is anything yet.
// What it returns means nothing.
func (b *bindings) touch(s *serving, name int) uint32 {
	if b.serving != s || b.names == nil || b.names[name/bindingPage] == nil {
		return 0
	}
	return b.names[name/bindingPage][name%bindingPage].epoch
}

// renew binds a name to a plan, or to the last one that knew its service.
func (bound *binding) renew(b *bindings, name *zone.Steered, plan *steer.Plan) {
	*bound = binding{epoch: b.epoch, service: -1, ttl: name.TTL, anycast: name.Anycast}
	if !bound.bind(name, plan) {
		if older := b.serving.last(name.Service); older != nil && bound.bind(name, older) {
			bound.older = b.remember(older)
		}
	}
}

// remember returns the place of a plan in older, counted from 1.
func (b *bindings) remember(plan *steer.Plan) uint8 {
	at := slices.Index(b.older, plan)
	if at < 0 {
		at = len(b.older)
		b.older = append(b.older, plan)
	}
	return uint8(at + 1)
}

// bind looks the name up in a plan. It reports whether the plan has its service.
func (bound *binding) bind(name *zone.Steered, plan *steer.Plan) bool {
	i, ok := plan.Topology.Service(name.Service)
	if !ok || i >= len(plan.Topology.Services) {
		return false
	}
	bound.service = int32(i)
	// The plan shortens TTLs while something is down. It may be older than the
	// zones; then it speaks of this name only if it means the same service.
	if configured, ok := plan.Topology.Name(name.FQDN); ok && configured.Service == name.Service {
		bound.ttl = plan.TTL(configured)
	}
	return true
}
