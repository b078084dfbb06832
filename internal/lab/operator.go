package lab

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
)

// An operator drains and undrains pools at random while the fleet is being
// broken, through whatever node answers, and keeps the history.
type operator struct {
	lab    *Lab
	random *rand.Rand

	mu      sync.Mutex // guards history
	history *history
}

func newOperator(l *Lab, seed uint64) *operator {
	return &operator{lab: l, random: rand.New(rand.NewPCG(seed, 0x0de)), history: newHistory()}
}

// Pauses between two orders, and how long one may take.
const (
	orderPauseLeast = 300 * time.Millisecond
	orderPauseMost  = 1500 * time.Millisecond
	orderWithin     = 5 * time.Second
)

// Run gives orders until ctx ends. The last one is waited for.
func (o *operator) Run(ctx context.Context) error {
	for {
		pause := orderPauseLeast + time.Duration(o.random.Int64N(int64(orderPauseMost-orderPauseLeast)))
		select {
		case <-time.After(pause):
			o.order(context.WithoutCancel(ctx))
		case <-ctx.Done():
			return nil
		}
	}
}

// order drains a random pool, or undrains the one of the service that is
// drained: one at a time, so that no minimum is in the way.
func (o *operator) order(ctx context.Context) {
	services := o.lab.layout.Config.Services
	svc := services[o.random.IntN(len(services))]
	pool := svc.Pools[o.random.IntN(len(svc.Pools))]
	scope := health.Scope{Kind: health.ScopePool, Service: svc.Name, Site: pool.Site}
	order := health.OrderDrain
	o.mu.Lock()
	for _, p := range svc.Pools {
		at := health.Scope{Kind: health.ScopePool, Service: svc.Name, Site: p.Site}
		if o.history.drained(at.String()) {
			scope, order = at, health.OrderNone
		}
	}
	o.mu.Unlock()
	p := o.lab.nodes[o.random.IntN(len(o.lab.nodes))]
	if !p.lives() {
		return // nobody would wait for a dead node to take an order
	}
	ctx, cancel := context.WithTimeout(ctx, orderWithin)
	defer cancel()
	result, err := admin.NewClient(p.socket()).Override(ctx, admin.OverrideRequest{
		Scopes: []string{scope.String()}, Order: order, By: "lab", Reason: "chaos",
	})
	acknowledged := err == nil && result.Majority()
	o.lab.say("%s %s at %s: acknowledged=%t %v", order, scope, p.name, acknowledged, err)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.history.ordered(scope.String(), order == health.OrderDrain, acknowledged)
}

// check waits until every node says that the same orders stand, and holds them
// against the history.
func (o *operator) check(ctx context.Context, limit time.Duration) []string {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		standing, err := o.standing(ctx)
		if err == nil {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.history.check(standing)
		}
		if time.Now().After(deadline) {
			return []string{fmt.Sprintf("orders, %s after everything was healed: %v", limit, err)}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// standing returns the scopes that are drained, or an error while the nodes do
// not say the same.
func (o *operator) standing(ctx context.Context) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, statusWithin)
	defer cancel()
	var first map[string]bool
	for _, p := range o.lab.nodes {
		list, err := admin.NewClient(p.socket()).Overrides(ctx, false)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", p.name, err)
		}
		own := map[string]bool{}
		for _, v := range list.Overrides {
			own[v.Scope] = v.Order == health.OrderDrain
		}
		if first == nil {
			first = own
		} else if !maps.Equal(first, own) {
			return nil, fmt.Errorf("%s has orders on %v, %s on %v", o.lab.nodes[0].name, slices.Sorted(maps.Keys(first)),
				p.name, slices.Sorted(maps.Keys(own)))
		}
	}
	return first, nil
}

// counts returns how many orders were acknowledged and how many not.
func (o *operator) counts() (acknowledged, unknown int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.history.Acked, o.history.Unknown
}
