package node

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/vip"
)

// vipsFile is the file in the state folder that says which addresses were bound by pharos.
const vipsFile = "vips"

// vips are the addresses that this node keeps on an interface. A nil one keeps none: they are there already.
type vips struct {
	manager *vip.Manager
	served  atomic.Bool // this process has served: until then the addresses may be another process's business
}

// newVIPs finds out whether this node can bind VIPs; it binds none yet.
func (n *Node) newVIPs(s *Setup) (*vips, error) {
	if s.Self.Node.VIPInterface == "" {
		return nil, nil
	}
	m, err := vip.New(vip.Options{
		Interface: s.Self.Node.VIPInterface, File: filepath.Join(n.opts.StateDir, vipsFile),
		Linger: max(s.Config.VIPs.Linger, time.Nanosecond), Log: n.log, Registerer: n.registry,
	})
	if err != nil {
		return nil, fmt.Errorf("vips: %w", err)
	}
	return &vips{manager: m}, nil
}

func (v *vips) close() error {
	if v == nil {
		return nil
	}
	return v.manager.Close()
}

// vipAddresses are the addresses of the services that this node serves.
func (s *Setup) vipAddresses() []netip.Addr {
	var names []string
	for _, svc := range s.Config.Services {
		names = append(names, svc.Name)
	}
	var out []netip.Addr
	for _, a := range s.addresses(config.Bind{Host: "vip"}, names) {
		out = append(out, a.Addr())
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// openVIPs binds the VIPs, before anything listens on them.
func (n *Node) openVIPs(s *Setup, parts *parts) error {
	if n.vips == nil {
		return nil
	}
	if err := n.vips.manager.Set(s.vipAddresses()); err != nil {
		return fmt.Errorf("vips: %w", err)
	}
	n.decider.do(context.Background(), n.noteVIPs) // before anything is announced
	parts.start("vips", n.vips.manager.Run)
	parts.start("vip news", n.followVIPs)
	return nil
}

// followVIPs tells the decider which addresses are missing, whenever one came or went.
func (n *Node) followVIPs(ctx context.Context) error {
	for {
		n.decider.do(ctx, n.noteVIPs)
		select {
		case <-ctx.Done():
			return nil
		case <-n.vips.manager.Changed():
		}
	}
}

// noteVIPs does that now, with those that doors are missing. It runs on the decider's goroutine.
func (n *Node) noteVIPs() {
	missing := slices.Clone(n.absent)
	if n.vips != nil {
		missing = append(missing, n.vips.missing(n.decider.setup.Config)...)
	}
	slices.SortFunc(missing, netip.Addr.Compare)
	n.decider.core.SetMissing(slices.Compact(missing))
}

// prepareVIPs binds what a new setup adds. What it drops stays until the linger time after the commit is over, when the
// routes are withdrawn and the listeners closed; that it cannot be bound does not keep anybody from dropping it.
func (n *Node) prepareVIPs(s *Setup) (speakerChange, error) {
	nothing := func() {}
	if n.vips == nil {
		return speakerChange{nothing, nothing}, nil
	}
	set := func(addresses []netip.Addr) {
		if err := n.vips.manager.Set(addresses); err != nil {
			n.log.Error("VIPs are not all bound; their prefixes are not announced", "error", err)
		}
	}
	before, after := n.setup.Load().vipAddresses(), s.vipAddresses()
	if err := n.vips.manager.Set(after, before...); err != nil {
		return speakerChange{}, fmt.Errorf("vips: %w", err)
	}
	return speakerChange{func() { set(after) }, func() { set(before) }}, nil
}

// releaseVIPs unbinds the VIPs at the end of a stop: routes are withdrawn, connections have ended.
func (n *Node) releaseVIPs(parts *parts) {
	if n.vips == nil || !n.vips.served.Load() {
		return
	}
	parts.stop(stopStep, "vip news", "vips")
	time.Sleep(n.setup.Load().Config.VIPs.Linger)
	if err := n.vips.manager.Release(); err != nil {
		n.log.Warn("VIPs stay on the interface; the next start takes them over", "error", err)
	}
}

// missing are the VIPs in the configuration's prefixes that should be on the interface and are not.
func (v *vips) missing(c *config.Config) (out []netip.Addr) {
	for _, p := range c.BGP.Prefixes {
		out = append(out, v.manager.Missing(p.Prefix)...)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func (v *vips) status() (out []admin.VIPStatus) {
	if v == nil {
		return nil
	}
	for _, s := range v.manager.Status() {
		out = append(out, admin.VIPStatus{
			Address: s.Address, Interface: v.manager.Interface(), Bound: s.Bound, Ours: s.Ours, Until: s.Until, Error: s.Error,
		})
	}
	return out
}
