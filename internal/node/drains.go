package node

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

// maxDrains bounds what one node says of its drains.
const maxDrains = 200

// A drainAnswer is what one node says when it is asked how far its drains have come.
type drainAnswer struct {
	Digest uint64              `json:"digest"` // of the orders that it holds
	Drains []admin.DrainStatus `json:"drains"`
	More   bool                `json:"more,omitempty"` // than these
}

// drainAnswer is this node's own.
func (n *Node) drainAnswer() drainAnswer {
	drains, more := n.ownDrains()
	return drainAnswer{Digest: n.decider.acks.Load().digest, Drains: drains, More: more}
}

// encodeDrains leaves out what does not fit into an answer, and says so.
func encodeDrains(a drainAnswer) []byte {
	for {
		raw, err := json.Marshal(a)
		if err != nil {
			return nil
		}
		if len(raw) <= maxEvidence {
			return raw
		}
		a.Drains, a.More = a.Drains[:len(a.Drains)/2], true
	}
}

// ownDrains are the stages of what is ordered out at this node; more: there are more than are returned.
func (n *Node) ownDrains() (out []admin.DrainStatus, more bool) {
	out = []admin.DrainStatus{}
	plan := n.board.Load()
	if plan == nil {
		return out, false
	}
	now := time.Now()
	add := func(d admin.DrainStatus, until time.Time) {
		d.Node, d.Site = n.opts.Name, n.setup.Load().Self.Site.Name
		if left := until.Sub(now); left > 0 {
			d.LeftMS = left.Milliseconds()
		}
		if len(out) == maxDrains {
			more = true
			return
		}
		out = append(out, d)
	}
	for i := range plan.Routes {
		r := &plan.Routes[i]
		stage := r.Stage()
		if stage == steer.StageNone {
			continue
		}
		d := admin.DrainStatus{What: "prefix " + r.Prefix.String(), Stage: stage.String(), Why: routeWords(r, stage), Open: r.Open}
		if order, ok := plan.RouteOrder(i); ok && stage != steer.StageReturning {
			d.Scope = order.Scope.String()
		}
		add(d, r.Until)
	}
	for i, p := range plan.Pools {
		service := &plan.Topology.Services[p.Service]
		stage, until, open := plan.PoolStage(i, now)
		d := admin.DrainStatus{What: "service " + service.Config.Name, Stage: stage.String(), Why: poolWords(stage), Open: open}
		if order, ok := plan.SiteOrder(p.Service, service.Home); ok {
			d.Scope = order.Scope.String()
		}
		add(d, until)
	}
	for _, d := range n.backendDrains(plan) {
		add(d, time.Time{})
	}
	return out, more
}

// backendDrains are the backends of this site that are ordered out themselves.
func (n *Node) backendDrains(plan *steer.Plan) (out []admin.DrainStatus) {
	if len(plan.Facts.Overrides) == 0 {
		return nil
	}
	open := map[health.Target]int{}
	for _, b := range n.backends.Snapshot() {
		open[health.Target{Service: b.Service, Addr: b.Address}] = int(b.InFlight)
	}
	for i := range plan.Topology.Services {
		s := &plan.Topology.Services[i]
		if s.Home < 0 {
			continue
		}
		for k, target := range s.Sites[s.Home].Backends {
			order, ok := plan.BackendOrder(i, s.Home, k)
			if !ok || order.Order != health.OrderDrain {
				continue
			}
			address := plan.Topology.Layout.Targets[target].Addr
			d := admin.DrainStatus{
				Scope: order.Scope.String(), What: fmt.Sprintf("backend %s of %s", address, s.Config.Name),
				Stage: admin.StageDone, Why: "gets no new work", Open: open[health.Target{Service: s.Config.Name, Addr: address}],
			}
			if d.Open > 0 {
				d.Stage = steer.StageFinishing.String()
			}
			out = append(out, d)
		}
	}
	return out
}

// routeWords says what a stage of a prefix is.
func routeWords(r *steer.Route, stage steer.Stage) string {
	switch stage {
	case steer.StageReturning:
		if r.Returning {
			return "announced again; names lead here in a moment"
		}
		return "not announced yet: " + r.Why.String() + lacking(r.Lacks)
	default:
		return r.Why.String()
	}
}

// poolWords says what a stage of a service is.
func poolWords(stage steer.Stage) string {
	switch stage {
	case steer.StageUnanswered:
		return "no longer answered, resolvers still know it"
	case steer.StageFinishing:
		return "connections are finishing"
	default:
		return "drained by order"
	}
}

// drains asks every node.
func (n *Node) drains(ctx context.Context) *admin.DrainList {
	own := n.drainAnswer()
	list := &admin.DrainList{Drains: own.Drains, Silent: []string{}, Behind: []string{}}
	if own.More {
		list.Behind = append(list.Behind, n.opts.Name)
	}
	var others []string
	for _, site := range n.setup.Load().Config.Sites {
		for _, node := range site.Nodes {
			if node.Name != n.opts.Name {
				others = append(others, node.Name)
			}
		}
	}
	raw, err := json.Marshal(question{Drains: true})
	if err != nil || len(others) == 0 {
		return list
	}
	ctx, cancel := context.WithTimeout(ctx, evidenceWithin)
	defer cancel()
	replies := n.gossip.Ask(ctx, others, raw)
	for _, name := range others {
		var a drainAnswer
		if json.Unmarshal(replies[name], &a) != nil || len(a.Drains) > maxDrains {
			list.Silent = append(list.Silent, name)
			continue
		}
		if a.Digest != own.Digest || a.More { // what it leaves out is not known to be done
			list.Behind = append(list.Behind, name)
		}
		for _, d := range a.Drains {
			if d.Node == name { // it speaks of itself alone
				d.Why, d.What = onOneLine(d.Why), onOneLine(d.What)
				list.Drains = append(list.Drains, d)
			}
		}
	}
	list.Sort()
	return list
}
