package steer

import (
	"net/netip"
	"slices"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// Doors are the places at which this node has to answer before it announces what it is asked to,
// each once. Facts.Doors is indexed like them. Shared; not to be changed.
func (t *Topology) Doors() []config.Door { return t.doors }

// addDoors notes where this node has to answer for a prefix.
func (t *Topology) addDoors(spec *routeSpec) {
	site := &t.Config.Sites[t.SelfSite]
	at := slices.IndexFunc(site.Nodes, func(n config.Node) bool { return n.Name == t.Self })
	if at < 0 || spec.why != ReasonNone {
		return
	}
	for _, d := range t.Config.Doors(spec.config, site.Name, site.Nodes[at]) {
		i := slices.Index(t.doors, d)
		if i < 0 {
			i = len(t.doors)
			t.doors = append(t.doors, d)
		}
		spec.doors = append(spec.doors, i)
	}
}

// door is whether this node answers at a door.
func (j *judgement) door(i int) health.Status {
	if len(j.facts.Doors) != len(j.t.doors) {
		return health.StatusUnknown
	}
	return j.facts.Doors[i]
}

// reason is why a prefix is not announced because of a door; to begin it takes evidence that it
// is open, to end that it is not.
func (j *judgement) reason(i int, announced bool) Reason {
	switch s := j.door(i); {
	case s == health.StatusUp || announced && s != health.StatusDown:
		return ReasonNone
	case s != health.StatusDown:
		return ReasonDoorUnknown
	case j.t.doors[i].Name != "":
		return ReasonDNSDown
	default:
		return ReasonListenerDown
	}
}

// closed returns ReasonNone if this node answers at every door of a prefix, else why not.
func (j *judgement) closed(spec *routeSpec, announced bool) Reason {
	unknown := ReasonNone
	for _, i := range spec.doors {
		switch why := j.reason(i, announced); why {
		case ReasonNone:
		case ReasonDoorUnknown:
			unknown = why
		default:
			return why
		}
	}
	return unknown
}

// lacks names the first door of a prefix that is closed for a reason.
func (j *judgement) lacks(spec *routeSpec, why Reason) string {
	for _, i := range spec.doors {
		if j.reason(i, false) == why {
			return j.t.doors[i].String()
		}
	}
	return ""
}

// missing returns the first VIP in a prefix that should be on this node and is not.
func (j *judgement) missing(spec *routeSpec) netip.Addr {
	for _, a := range j.facts.Missing {
		if spec.prefix.Contains(a) {
			return a
		}
	}
	return netip.Addr{}
}
