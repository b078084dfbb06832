package forward

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

// TestFromBoard goes from a config through real decisions to connections.
func TestFromBoard(t *testing.T) {
	first, second := holder(t), holder(t)
	site := func(name string, node byte) config.Site {
		return config.Site{
			Name: name, Location: geo.Location{Text: name, Country: "DE", Continent: "EU"},
			Nodes: []config.Node{{Name: name + "1", Address: netip.AddrFrom4([4]byte{192, 0, 2, node})}},
		}
	}
	topology, err := steer.Compile(&config.Config{
		Sites: []config.Site{site("fra", 1), site("iad", 2)},
		Services: []config.Service{{
			Name: "web", Policy: []config.Policy{{Kind: config.PolicyGeo}},
			Check: config.Check{Kind: config.CheckTCP, VIPPort: 80, SlowStart: time.Hour},
			Pools: []config.Pool{
				{Site: "fra", Backends: []config.Backend{{Address: first, Weight: 1}, {Address: second, Weight: 3}}},
				{Site: "iad", Backends: []config.Backend{{Address: nobody(t), Weight: 1}}},
			},
			VIPs: []config.VIP{{Site: "fra", Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.1")}}},
		}},
	}, nil, "fra1")
	if err != nil {
		t.Fatal(err)
	}
	view := &health.View{Layout: topology.Layout, Verdicts: make([]health.Verdict, len(topology.Layout.Targets))}
	for i := range view.Verdicts {
		view.Verdicts[i] = health.Verdict{Status: health.StatusUp, Why: health.WhyProbes}
	}
	var board steer.Board
	r := newRegistry(t, Options{Pools: FromBoard(&board)})
	used := func() map[netip.AddrPort]bool {
		t.Helper()
		got := map[netip.AddrPort]bool{}
		for range 100 {
			lease, err := r.Load().Borrow(t.Context(), "web", Terms{Connect: time.Second, Reuse: true})
			if err != nil {
				t.Fatal(err)
			}
			got[lease.Backend.Address()] = true
			lease.Release(true)
		}
		return got
	}
	if _, err := r.Load().Borrow(t.Context(), "web", Terms{}); !errors.Is(err, ErrNoPlan) {
		t.Errorf("before the first plan: got %v", err)
	}
	plan := steer.Decide(topology, view, steer.Facts{Ready: true}, nil)
	board.Publish(plan)
	if got := used(); len(got) != 2 || !got[first] || !got[second] {
		t.Errorf("all up: got %v, want the pool of this site", got)
	}
	board.Publish(steer.Decide(topology, view, steer.Facts{Ready: true, AssumeDown: []string{second.String()}}, plan))
	if got := used(); len(got) != 1 || !got[first] {
		t.Errorf("one down: got %v, want only %v", got, first)
	}
	if s := r.Snapshot(); s[0].Share != 1 || s[1].Share != 1 {
		t.Errorf("shares are %v and %v", s[0].Share, s[1].Share)
	}
	// A plan that was not decided after the others has their generation and still counts.
	board.Publish(steer.Decide(topology, view, steer.Facts{Ready: true}, plan))
	if got := used(); len(got) == 0 {
		t.Errorf("up again: got %v", got)
	}
	for _, s := range r.Snapshot() {
		if came := s.Address == second; came != (s.Share < 0.1) {
			t.Errorf("up again: %s has a share of %v", s.Address, s.Share)
		}
	}
	facts := steer.Facts{Ready: true, Weights: make([]uint8, len(topology.Layout.Targets))}
	for i, target := range topology.Layout.Targets {
		if facts.Weights[i] = 50; target.Addr == first {
			facts.Weights[i] = 0
		}
	}
	board.Publish(steer.Decide(topology, view, facts, plan))
	if got := used(); len(got) != 1 || !got[second] {
		t.Errorf("one asks for nothing: got %v, want only %v", got, second)
	}
	pool := r.Load().pools["web"]
	if len(pool.weights) != 1 || pool.weights[0] != 3*50 {
		t.Errorf("weights are %v, want 3 × 50", pool.weights)
	}
	clear(facts.Weights)
	board.Publish(steer.Decide(topology, view, facts, plan))
	if got := r.Load().pools["web"].active; len(got) != 2 {
		t.Errorf("all ask for nothing: %d work, want 2", len(got))
	}
}
