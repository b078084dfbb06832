package node

import (
	"fmt"

	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/health/probe"
)

// A doubt is what a node holds of its own eyes.
type doubt struct {
	// text says why this node doubts itself; "" if it does not.
	text string
	// connected: its canaries answer, so it is not cut off, however few nodes it hears.
	connected bool
	// cut: none of them does. It may be cut off, so what it finds of other sites says
	// nothing. What it finds at its own site does: were that doubted too, canaries
	// that all die would freeze the health of the whole fleet.
	cut bool
	// late: it does not keep up with its checks, so nothing that it finds says anything.
	late bool
}

// flags are what the node's report says of it as a whole.
func (d doubt) flags() health.Flags {
	if d.late {
		return health.FlagDoubt
	}
	return 0
}

// about returns what the node may say of a target that its probes found to be s.
func (d doubt) about(t health.Target, site string, s health.Status) health.Status {
	if d.cut && t.Site != site && decided(s) {
		return health.StatusUnknown
	}
	return s
}

// doubtOf asks the parts that can tell whether this node sees straight: its own
// schedule, and the canaries, which are nil without any.
func doubtOf(runner *probe.Runner, canaries *probe.Canaries) doubt {
	var d doubt
	if canaries != nil {
		switch canaries.State() {
		case probe.Connected:
			d.connected = true
		case probe.Cut:
			d.cut, d.text = true, "none of its canaries answers, so what it finds of other sites does not count"
		}
	}
	if runner.Overloaded() {
		d.late, d.text = true, "its checks run more than a second late, so what they find does not count"
	}
	return d
}

// setCanaries makes the canaries of a configuration, none without any.
func (n *Node) setCanaries(s *Setup) (err error) {
	if len(s.Config.Cluster.Canaries) == 0 {
		return nil
	}
	n.canaries, err = probe.NewCanaries(probe.CanaryOptions{
		Addresses: s.Config.Cluster.Canaries, Log: n.log, Registerer: n.registry,
	})
	if err != nil {
		return fmt.Errorf("cluster.canaries: %w", err)
	}
	return nil
}
