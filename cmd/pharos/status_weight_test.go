package main

import (
	"net/netip"
	"testing"

	"github.com/pharos-lb/pharos/internal/admin"
)

func TestForwardedToSaysTheWeight(t *testing.T) {
	at := netip.MustParseAddrPort("10.0.1.10:80")
	for _, tt := range []struct {
		backend admin.ForwardStatus
		want    string
	}{
		{admin.ForwardStatus{Active: true, Share: 1, Weight: 1, EffectiveWeight: 1, Open: 3}, "10.0.1.10:80 (3 open)"},
		{admin.ForwardStatus{Active: true, Share: 1, Weight: 10, EffectiveWeight: 2.5}, "10.0.1.10:80 (0 open, weight 2.5 of 10)"},
		{admin.ForwardStatus{Active: true, Share: .4, Weight: 100, EffectiveWeight: 20}, "10.0.1.10:80 (0 open, slow start 40 %, weight 20 of 100)"},
		{admin.ForwardStatus{Share: 1, Weight: 2}, "10.0.1.10:80 (0 open, no new work, weight 0 of 2)"},
		{admin.ForwardStatus{Active: true, Share: 1, Elsewhere: true}, "10.0.1.10:80 (0 open, another site's VIP)"},
	} {
		tt.backend.Address = at
		if got := forwardedTo([]admin.ForwardStatus{tt.backend}); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}
