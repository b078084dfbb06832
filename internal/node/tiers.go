package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pharos-lb/pharos/bgp"
	"github.com/pharos-lb/pharos/dnslb"
	"github.com/pharos-lb/pharos/forward/l4"
	"github.com/pharos-lb/pharos/forward/l4/udp"
	"github.com/pharos-lb/pharos/forward/l7"
)

// openForwarding binds the VIPs' listeners of both forwarding tiers.
func (n *Node) openForwarding(s *Setup) error {
	four, err := l4.New(l4.Options{
		Listeners: s.l4Listeners(), Registry: n.backends,
		Drain: drainTime, Log: n.log, Registerer: n.registry,
	})
	if err != nil {
		return fmt.Errorf("listeners: %w", err)
	}
	seven, err := l7.New(l7.Options{
		Listeners: s.l7Listeners(), Registry: n.backends,
		Drain: drainTime, Log: n.log, Registerer: n.registry,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("listeners: %w", err), four.Close())
	}
	datagrams, err := udp.New(udp.Options{
		Listeners: s.udpListeners(), Registry: n.backends,
		Drain: drainTime, Log: n.log, Registerer: n.registry,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("listeners: %w", err), four.Close(), seven.Close())
	}
	n.mu.Lock()
	n.l4, n.l7, n.udp = four, seven, datagrams
	n.mu.Unlock()
	return nil
}

// setIntake bounds what all listeners take.
func (n *Node) setIntake(s *Setup) {
	n.backends.Intake().Set(s.Config.Limits.Connections, s.Config.Limits.Rate)
	n.backends.Intake().SetSessions(s.Config.Limits.SessionRate)
}

// openDNS binds the DNS sockets.
func (n *Node) openDNS(s *Setup) error {
	dns, err := dnslb.New(n.dnsOptions(s))
	if err != nil {
		return fmt.Errorf("dns: %w", err)
	}
	dns.SetZones(s.Zones)
	n.mu.Lock()
	n.dns = dns
	n.mu.Unlock()
	return nil
}

// A speakerChange makes the BGP speaker what a setup says: none, a new one, or
// the running one with other peers.
type speakerChange struct {
	commit, discard func()
}

// Commit puts the change in force.
func (c speakerChange) Commit() { c.commit() }

// Discard frees what the change prepared.
func (c speakerChange) Discard() { c.discard() }

func (n *Node) prepareSpeaker(s *Setup) (speakerChange, error) {
	nothing := func() {}
	cfg, peers, wanted := s.speakerConfig()
	n.mu.Lock()
	running := n.speaker
	n.mu.Unlock()
	switch {
	case wanted && running != nil:
		if err := bgp.Validate(cfg, peers); err != nil {
			return speakerChange{}, err
		}
		return speakerChange{func() {
			if err := running.Reconfigure(cfg, peers); err != nil {
				n.log.Error("BGP peers could not be changed; the old ones go on", "error", err) // validated above
			}
		}, nothing}, nil
	case wanted:
		return n.newSpeaker(cfg, peers)
	case running != nil:
		return speakerChange{func() {
			n.parts.stop(stopStep, "bgp", "bgp sessions")
			n.setSpeaker(nil)
		}, nothing}, nil
	}
	return speakerChange{nothing, nothing}, nil
}

func (n *Node) setSpeaker(s *bgp.Speaker) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.speaker = s
}

func (n *Node) newSpeaker(cfg bgp.Config, peers []bgp.Peer) (speakerChange, error) {
	child := n.opts.Speaker
	if len(child) == 0 {
		child = []string{"/proc/self/exe", SpeakerVerb}
	}
	wake, unwatch := n.board.Watch()
	sp, err := bgp.New(bgp.Options{
		Child: child, Config: cfg, Peers: peers, Desired: n.desiredRoutes, Wake: wake,
		Adopt: n.takeLeash(), Log: n.log, Registerer: n.registry,
	})
	if err != nil {
		unwatch()
		return speakerChange{}, err
	}
	commit := func() {
		n.setSpeaker(sp)
		n.parts.start("bgp", func(ctx context.Context) error {
			defer unwatch()
			return errors.Join(sp.Run(ctx), sp.Close())
		})
		n.parts.start("bgp sessions", func(ctx context.Context) error { return n.watchSessions(ctx, sp) })
	}
	discard := func() {
		unwatch()
		sp.Close() // it never ran: only its metrics are taken back
	}
	return speakerChange{commit, discard}, nil
}

// watchSessions tells the decider whether any session of the speaker is
// established: only then do others count on what this node announces.
func (n *Node) watchSessions(ctx context.Context, sp *bgp.Speaker) error {
	changed := sp.Watch()
	for {
		unpeered := !slices.ContainsFunc(sp.Status().Peers, func(p bgp.PeerStatus) bool { return p.State == "established" })
		n.decider.do(ctx, func() { n.decider.core.SetUnpeered(unpeered) })
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
