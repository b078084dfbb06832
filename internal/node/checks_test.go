package node

import (
	"net/netip"
	"testing"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/health/probe"
	"github.com/pharos-lb/pharos/internal/steer"
)

// Damping and passive checks are for backends: an observer that was cut off from
// a VIP a few times must not hold it down for minutes after.
func TestWhatIsDamped(t *testing.T) {
	check := config.Check{
		Kind: config.CheckTCP, Flap: config.FlapDamping{Limit: 6, HalfLife: 60e9}, Passive: config.PassiveCheck{Fall: 5, For: 10e9},
	}
	for _, tt := range []struct {
		kind        health.Kind
		wantFlap    probe.FlapRule
		wantPassive probe.PassiveRule
	}{
		{health.KindBackend, probe.FlapRule{Limit: 6, HalfLife: 60e9}, probe.PassiveRule{Fall: 5, For: 10e9}},
		{health.KindVIP, probe.FlapRule{}, probe.PassiveRule{}},
	} {
		target := health.Target{Kind: tt.kind, Service: "web", Site: "fra", Addr: netip.MustParseAddrPort("10.0.0.1:80")}
		got := probeCheck(steer.Probe{Target: target, Check: check})
		if got.Flap != tt.wantFlap || got.Passive != tt.wantPassive {
			t.Errorf("%s: damped by %+v, traffic counts as %+v; want %+v and %+v", target, got.Flap, got.Passive, tt.wantFlap, tt.wantPassive)
		}
	}
}
