package node

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp/router"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/steer"
)

// peered gives oneSite a prefix and a router.
const peered = `
bgp:
  asn: 64500
  port: 1791
  prefixes: [{prefix: 192.0.2.0/24, requires: [web]}]
  peers: {a: [{address: 127.9.2.254, asn: 64496}]}
`

// startRouter runs the router of peered. Only one may run at a time in a
// process, so the tests that use it are not parallel.
func startRouter(t *testing.T) *router.Router {
	t.Helper()
	upstream, err := router.New(router.Options{
		ASN: 64496, Listen: netip.MustParseAddrPort("127.9.2.254:1791"),
		Neighbors: []router.Neighbor{{Address: netip.MustParseAddr("127.9.2.1"), ASN: 64500, Passive: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- upstream.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return upstream
}

// With a router beside it: routes come, go and come back over reloads.
func TestReloadTakesBGPAwayAndBack(t *testing.T) {
	newBackend(t, "127.9.2.11:9000", "one", released())
	newBackend(t, "127.9.2.12:9000", "two", released())
	upstream := startRouter(t)
	without := strings.ReplaceAll(oneSite, "WAIT", "5s")
	with := without + peered
	r := startNode(t, with)
	eventually(t, "the route is there", func() bool { return len(upstream.Routes()) == 1 })
	for _, config := range []string{without, with, without, with} {
		write(t, r.file, config)
		if _, err := r.client.Reload(t.Context(), admin.Allowed{Remove: true, Withdraw: true}); err != nil {
			t.Fatal(err)
		}
		want := strings.Count(config, "192.0.2.0/24")
		eventually(t, fmt.Sprintf("%d routes", want), func() bool { return len(upstream.Routes()) == want })
	}
	write(t, r.file, strings.Replace(with, "192.0.2.0/24, ", "2001:db8::/48, ", 1))
	if _, err := r.client.Reload(t.Context(), admin.Allowed{Remove: true, Withdraw: true}); err == nil || !strings.Contains(err.Error(), "has no IPv6 address to be the next hop") {
		t.Errorf("a prefix that could never be announced: got %v", err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the route is withdrawn by a stop", func() bool { return len(upstream.Routes()) == 0 })
}

// Whoever is led here until the routers have converged is still served: routes
// go first, and the listeners only after the time that routers take.
func TestStopWithdrawsBeforeItRefuses(t *testing.T) {
	newBackend(t, "127.9.2.11:9000", "one", released())
	newBackend(t, "127.9.2.12:9000", "two", released())
	upstream := startRouter(t)
	r := startServing(t, strings.ReplaceAll(oneSite, "WAIT", "5s")+peered)
	eventually(t, "the route is there", func() bool { return len(upstream.Routes()) == 1 })
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	eventually(t, "the route is withdrawn", func() bool { return len(upstream.Routes()) == 0 })
	withdrawn := time.Now()
	if !answers("www.t.test", "127.9.2.80") {
		t.Error("DNS was closed before the route was withdrawn")
	}
	if _, body := get("127.9.2.80:8080"); body != "one" && body != "two" {
		t.Errorf("the VIP was closed before the route was withdrawn: %s", body)
	}
	eventually(t, "the VIP is closed", func() bool { return !dials("127.9.2.80:8080") })
	if served := time.Since(withdrawn); served < convergence/2 {
		t.Errorf("served for %s after the withdrawal, want about %s", served, convergence)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if route := r.board.Load().Routes[0]; route.Why != steer.ReasonNotReady {
		t.Errorf("the last plan says %q of the route, want %q", route.Why, steer.ReasonNotReady)
	}
}
