package node

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/steer"
)

// balanceText says how the work of a pool is shared.
func balanceText(b *config.Balance) string {
	text := cmp.Or(b.By, "auto")
	if b.Key != "" {
		text += " of " + b.Key
		if b.KeyName != "" {
			text += ":" + b.KeyName
		}
	}
	return text
}

// forwardingStatus lists the pools that this node forwards to, and how.
func (n *Node) forwardingStatus(plan *steer.Plan) []admin.PoolStatus {
	if n.backends == nil {
		return nil
	}
	byService := make(map[string][]forward.Status)
	for _, b := range n.backends.Snapshot() {
		byService[b.Service] = append(byService[b.Service], b)
	}
	var out []admin.PoolStatus
	for i := range plan.Topology.Services {
		pool, decided, ok := plan.Pool(i)
		if !ok {
			continue
		}
		c := plan.Topology.Services[i].Config
		row := admin.PoolStatus{Service: c.Name, Balance: balanceText(&c.Balance)}
		if split := plan.Zones(i); split != nil {
			row.Zones = split.Text(pool)
		}
		for _, site := range plan.Overflow(i) {
			row.Overflow = append(row.Overflow, site.Site)
		}
		for _, b := range byService[c.Name] {
			s := admin.ForwardStatus{
				Address: b.Address, Active: b.Active, Open: b.InFlight, Share: b.Share, Elsewhere: b.Elsewhere,
				Ejected: b.EjectedFor, EjectedSeconds: b.Ejected.Seconds(),
			}
			for k := range pool.Backends {
				if pool.Backends[k].Address != b.Address {
					continue
				}
				s.Panic = decided.Backends[k].Why == steer.ReasonPanic
				s.Zone = pool.Backends[k].Zone
				s.Weight = pool.Backends[k].Weight
				s.EffectiveWeight = float64(plan.Weight(i, k)) / steer.FullWeight * b.Share
			}
			row.Backends = append(row.Backends, s)
		}
		out = append(out, row)
	}
	return out
}

// explainForwarding adds to an explanation what is known at this node alone: whom it passes
// over for what became of its work here, and by what it shares the work where somebody has chosen that.
func (n *Node) explainForwarding(e *steer.Explanation, plan *steer.Plan) {
	i, ok := plan.Topology.Service(e.Service)
	if !ok || n.backends == nil {
		return
	}
	if _, _, ok := plan.Pool(i); !ok {
		return
	}
	c := plan.Topology.Services[i].Config
	var texts []string
	if c.Balance.By != "" {
		texts = append(texts, "balanced by "+balanceText(&c.Balance))
	}
	for _, b := range n.backends.Snapshot() {
		if b.Service == c.Name && b.EjectedFor != "" {
			texts = append(texts, fmt.Sprintf("%s ejected here for %s, %s left", b.Address, b.EjectedFor, b.Ejected.Round(time.Second)))
		}
	}
	own := n.setup.Load().Self.Site.Name
	at := slices.IndexFunc(e.Sites, func(s steer.ExplainedSite) bool { return s.Site == own })
	if at >= 0 && len(texts) > 0 {
		e.Sites[at].Detail = strings.TrimPrefix(e.Sites[at].Detail+"; "+strings.Join(texts, ", "), "; ")
	}
}
