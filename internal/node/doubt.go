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
}

// flags are what the node's report says of it.
func (d doubt) flags() health.Flags {
	if d.text != "" {
		return health.FlagDoubt
	}
	return 0
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
			d.text = "none of its canaries answers"
		}
	}
	if runner.Overloaded() {
		d.text = "its checks run more than a second late"
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
