package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/config"
)

// maxRemovedShare is the share of services or prefixes that a reload may
// remove without being told so: larger removals are more often mistakes.
const maxRemovedShare = 1.0 / 3

// A change is one tier's prepared part of a reload. Commit cannot fail.
type change interface {
	Commit()
	Discard()
}

// Reload reads the configuration again and puts it in force as a whole, or
// changes nothing and says why. allowRemove permits removing more than a third of
// the services or prefixes. One reload runs at a time.
func (n *Node) Reload(ctx context.Context, allowRemove bool) (*admin.ReloadResult, error) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	result, err := n.reload(ctx, allowRemove)
	n.mu.Lock()
	n.lastTry, n.lastError = time.Now(), err
	n.mu.Unlock()
	if err != nil {
		n.metrics.reloads.WithLabelValues("error").Inc()
		n.metrics.reloadOK.Set(0)
		n.log.Error("reload refused, the old configuration stays", "error", err)
		return nil, err
	}
	n.metrics.reloads.WithLabelValues("ok").Inc()
	n.log.Info("reloaded", "hash", result.Hash, "changes", len(result.Changes))
	return result, nil
}

func (n *Node) reload(ctx context.Context, allowRemove bool) (*admin.ReloadResult, error) {
	if n.phase.Load() != "serving" {
		return nil, fmt.Errorf("this node is %s; reload it when it serves", n.phase.Load())
	}
	old := n.setup.Load()
	next, err := Load(n.opts.ConfigFile, n.opts.Name)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(checkRestart(old, next), checkRemoval(old.Config, next.Config, allowRemove)); err != nil {
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
	for _, c := range changes {
		c.Commit()
	}
	n.setLoaded(next)
	return &admin.ReloadResult{Hash: hashText(next.Config.Hash), Changes: describe(old.Config, next.Config)}, nil
}

// prepare does everything that can fail; on an error nothing has changed.
func (n *Node) prepare(s *Setup) (changes []change, err error) {
	discard := func() {
		for _, c := range changes {
			c.Discard()
		}
	}
	four, err := n.l4.Prepare(s.l4Listeners())
	if err != nil {
		return nil, fmt.Errorf("listeners: %w", err)
	}
	changes = append(changes, four)
	seven, err := n.l7.Prepare(s.l7Listeners())
	if err != nil {
		discard()
		return nil, fmt.Errorf("listeners: %w", err)
	}
	changes = append(changes, seven)
	changes = append(changes, n.changeProbes(s), step(func() { n.gossip.SetPeers(seeds(s), n.meta(s)) }))
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

// A step is a change that has nothing to prepare.
type step func()

// Commit does it.
func (f step) Commit() { f() }

// Discard does nothing: nothing was prepared.
func (f step) Discard() {}

func (n *Node) changeProbes(s *Setup) change {
	checks := probeChecks(s) // Load has validated them
	return step(func() {
		if err := n.runner.SetChecks(checks); err != nil {
			n.log.Error("checks could not be replaced; the old ones go on", "error", err)
		}
	})
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
	if was.Key.Reveal() != now.Key.Reveal() {
		errs = append(errs, errors.New("the gossip key changed: that needs a restart"))
	}
	if a, b := old.Config.Admin, next.Config.Admin; a.Socket != b.Socket || a.Listen != b.Listen || a.Token.Reveal() != b.Token.Reveal() {
		errs = append(errs, errors.New("admin changed: that needs a restart"))
	}
	return errors.Join(errs...)
}

// checkRemoval refuses to lose much at once without being told so.
func checkRemoval(old, next *config.Config, allowed bool) error {
	if allowed {
		return nil
	}
	check := func(what string, was, gone []string) error {
		if len(gone) == 0 || float64(len(gone)) <= maxRemovedShare*float64(len(was)) {
			return nil
		}
		return fmt.Errorf("this would remove %d of %d %s (%s); if that is meant, reload with --allow-remove",
			len(gone), len(was), what, listSome(gone))
	}
	services := func(c *config.Config) (out []string) {
		for _, s := range c.Services {
			out = append(out, s.Name)
		}
		return out
	}
	prefixes := func(c *config.Config) (out []string) {
		for _, p := range c.BGP.Prefixes {
			out = append(out, p.Prefix.String())
		}
		return out
	}
	return errors.Join(
		check("services", services(old), missing(services(old), services(next))),
		check("prefixes", prefixes(old), missing(prefixes(old), prefixes(next))),
	)
}

// missing returns what of a is not in b.
func missing(a, b []string) []string {
	have := make(map[string]bool, len(b))
	for _, s := range b {
		have[s] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return have[s] })
}
