package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
)

// A change is one tier's prepared part of a reload. Commit cannot fail.
type change interface {
	Commit()
	Discard()
}

// Reload reads the configuration again and puts it in force as a whole, or
// changes nothing and says why. allow permits losing more than a third of
// the services, zones, names, sites or prefixes, or a route that is announced now.
// It returns when the new configuration is in force, which waits for the first
// verdicts of what is new, at most for cluster.wait. One reload runs at a time.
func (n *Node) Reload(ctx context.Context, allow admin.Allowed) (*admin.ReloadResult, error) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	defer n.makeRoom()()
	result, err := n.reload(ctx, allow)
	n.noteTry(err)
	if err != nil {
		n.log.Error("reload refused, the old configuration stays", "error", err)
		return nil, err
	}
	n.log.Info("reloaded", "hash", result.Hash, "changes", len(result.Changes))
	return result, nil
}

// noteTry keeps how the newest reload went, for status and metrics.
func (n *Node) noteTry(err error) {
	result, ok := "ok", 1.0
	if err != nil {
		result, ok = "error", 0
	}
	n.mu.Lock()
	n.lastTry, n.lastError = time.Now(), err
	if err == nil {
		n.geoError = nil // the databases were read again too
	}
	n.mu.Unlock()
	n.metrics.reloads.WithLabelValues(result).Inc()
	n.metrics.reloadOK.Set(ok)
}

func (n *Node) mayReload() error {
	if phase := n.phase.Load(); phase != "serving" {
		return fmt.Errorf("this node is %s; reload it when it serves", phase)
	}
	return nil
}

func (n *Node) reload(ctx context.Context, allow admin.Allowed) (*admin.ReloadResult, error) {
	if err := n.mayReload(); err != nil {
		return nil, err
	}
	old := n.setup.Load()
	next, err := loadBy(n.opts.ConfigFile, n.opts.Name, n.compileZones)
	if err != nil {
		return nil, err
	}
	if err := checkRestart(old, next); err != nil {
		return nil, err
	}
	if err := checkAllowed(old, next, n.board.Load(), allow); err != nil {
		return nil, err
	}
	changes, err := n.prepare(next)
	if err != nil {
		return nil, err
	}
	if !n.decider.swap(ctx, next) {
		for _, c := range changes {
			c.Discard()
		}
		return nil, fmt.Errorf("reload: %w", ctx.Err())
	}
	if err := n.runner.SetChecks(probeChecks(next)); err != nil {
		n.log.Error("checks could not be replaced; the old ones go on", "error", err) // Load has validated them
	}
	n.decider.do(ctx, n.noteDoors) // at those that are asked at already
	n.setGossip(next)
	n.awaitVerdicts(ctx, next.Config.Cluster.Wait)
	for _, c := range changes {
		c.Commit()
	}
	// Only now does anything answer at a new door; a door that nobody has asked at takes no route away.
	if err := n.doors.SetChecks(doorChecks(next)); err != nil {
		n.log.Error("doors could not be replaced; the old ones go on", "error", err) // as above
	}
	n.decider.do(ctx, n.noteDoors)
	n.setIntake(next)
	n.setLoaded(next)
	return &admin.ReloadResult{Hash: hashText(next.Config.Hash), Changes: describe(old.Config, next.Config)}, nil
}

// awaitVerdicts waits until everything that this node checks has a verdict, so
// that nothing new is answered before it is known, for limit at most.
func (n *Node) awaitVerdicts(ctx context.Context, limit time.Duration) {
	woken, unwatch := n.board.Watch()
	defer unwatch()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		if open, ok := n.decider.undecided(ctx); open == 0 || !ok {
			return
		}
		select {
		case <-woken:
		case <-timer.C:
			return
		case <-n.stopping:
			return
		case <-ctx.Done():
			return
		}
	}
}

// prepare does everything that can fail; on an error nothing has changed.
func (n *Node) prepare(s *Setup) (changes []change, err error) {
	discard := func() {
		for _, c := range changes {
			c.Discard()
		}
	}
	addresses, err := n.prepareVIPs(s)
	if err != nil {
		return nil, err
	}
	changes = append(changes, addresses)
	four, err := n.l4.Prepare(s.l4Listeners())
	if err != nil {
		discard()
		return nil, fmt.Errorf("listeners: %w", err)
	}
	changes = append(changes, four)
	seven, err := n.l7.Prepare(s.l7Listeners())
	if err != nil {
		discard()
		return nil, fmt.Errorf("listeners: %w", err)
	}
	changes = append(changes, seven)
	datagrams, err := n.udp.Prepare(s.udpListeners())
	if err != nil {
		discard()
		return nil, fmt.Errorf("listeners: %w", err)
	}
	changes = append(changes, datagrams)
	dns, err := n.dns.Prepare(s.dnsAddresses(), s.dnsTunables())
	if err != nil {
		discard()
		return nil, fmt.Errorf("dns: %w", err)
	}
	dns.SetZones(s.Zones)
	changes = append(changes, dns)
	speaker, err := n.prepareSpeaker(s)
	if err != nil {
		discard()
		return nil, fmt.Errorf("bgp: %w", err)
	}
	return append(changes, speaker), nil
}

// checkRestart refuses what a running node cannot change about itself.
func checkRestart(old, next *Setup) error {
	var errs []error
	refuse := func(what, from, to string) {
		if from != to {
			errs = append(errs, fmt.Errorf("%s changed from %q to %q: that needs a restart", what, from, to))
		}
	}
	was, now := old.Config.Cluster, next.Config.Cluster
	refuse("cluster.name", was.Name, now.Name)
	refuse("cluster.port", fmt.Sprint(was.Port), fmt.Sprint(now.Port))
	refuse("this node's site", old.Self.Site.Name, next.Self.Site.Name)
	refuse("this node's address", old.Self.Node.Address.String(), next.Self.Node.Address.String())
	refuse("this node's VIP interface", old.Self.Node.VIPInterface, next.Self.Node.VIPInterface)
	refuse("vips.linger", old.Config.VIPs.Linger.String(), next.Config.VIPs.Linger.String())
	refuse("cluster.sign_key_file", was.SignKeyFile, now.SignKeyFile)
	refuse("this node's public_key", fmt.Sprintf("%x", old.Self.Node.PublicKey), fmt.Sprintf("%x", next.Self.Node.PublicKey))
	refuse("cluster.canaries", fmt.Sprint(was.Canaries), fmt.Sprint(now.Canaries))
	if (len(was.Keys) == 0) != (len(now.Keys) == 0) {
		errs = append(errs, errors.New("gossip was encrypted and would not be any more, or the other way round: that needs a restart"))
	}
	if a, b := old.Config.Admin, next.Config.Admin; a.Socket != b.Socket || a.Listen != b.Listen || a.Token.Reveal() != b.Token.Reveal() {
		errs = append(errs, errors.New("admin changed: that needs a restart"))
	}
	return errors.Join(errs...)
}

// setGossip gives the cluster its peers and its keys. Both have been validated.
func (n *Node) setGossip(s *Setup) {
	n.gossip.SetPeers(seeds(s), s.publicKeys(), n.meta(s))
	if keys := s.gossipKeys(); len(keys) > 0 {
		if err := n.gossip.SetKeys(keys); err != nil {
			n.log.Error("gossip keys could not be replaced; the old ones go on", "error", err)
		}
	}
}
