package dnslb

import (
	"github.com/pharos-lb/pharos/dnslb/zone"
	"github.com/pharos-lb/pharos/internal/steer"
)

// bindings remembers, for each steered name, what the newest plan knows of it,
// so that a query does not look names up by string. It fills on use: a new plan
// costs each name one look-up, when it is first asked for. Not safe for
// concurrent use.
type bindings struct {
	plan  *steer.Plan
	epoch uint64 // of plan; entries of other epochs are stale
	names []binding
}

// A binding is one steered name in one plan.
type binding struct {
	epoch uint64
	// name is whose binding it is: an Index means another name after a reload.
	name    *zone.Steered
	service int // index in Topology.Services; −1 if the plan has no such service
	ttl     uint32
}

// of returns the binding of a name in a plan; it is valid until the next call.
func (b *bindings) of(name *zone.Steered, plan *steer.Plan) *binding {
	if b.plan != plan {
		b.plan = plan
		b.epoch++
	}
	if name.Index >= len(b.names) {
		b.names = append(b.names, make([]binding, name.Index+1-len(b.names))...)
	}
	bound := &b.names[name.Index]
	if bound.epoch == b.epoch && bound.name == name {
		return bound
	}
	*bound = binding{epoch: b.epoch, name: name, service: -1, ttl: name.TTL}
	if i, ok := plan.Topology.Service(name.Service); ok && i < len(plan.Topology.Services) {
		bound.service = i
	}
	// The plan shortens TTLs while something is down. It may be older than the
	// zones; then it speaks of this name only if it means the same service.
	if configured, ok := plan.Topology.Name(name.FQDN); ok && configured.Service == name.Service {
		bound.ttl = plan.TTL(configured)
	}
	return bound
}
