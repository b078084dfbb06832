package node

import (
	"strings"
	"testing"
	"time"
)

// warming is one site that announces to one BIRD only after its service has been well for a while.
const warming = `
bgp:
  asn: 64500
  port: 1795
  prefixes: [{prefix: 192.0.2.0/24, requires: [web], warm_up: 2s, flap_half_life: 0s}]
  peers: {a: [{address: 127.9.2.254, asn: 64496}]}
drain: {stop: 1s}
`

const birdOfOne = `
log stderr { fatal, bug };
router id 127.9.2.254;
protocol device { scan time 60; }
protocol bgp pharos_a {
	local 127.9.2.254 port 1795 as 64496;
	neighbor 127.9.2.1 port 1795 as 64500;
	strict bind yes;
	multihop 2;
	error wait time 1, 2;
	connect delay time 1;
	ipv4 { import all; export none; };
}
`

// There is no way back into the router's table but through the warm-up: not after a failure, and not
// for a node that starts anew, whatever it knew before.
func TestWarmUpAtTheRouter(t *testing.T) {
	const network, warmUp = "127.9.57.", 2 * time.Second
	bird := startBIRD(t, at(network, birdOfOne))
	backend := newBackend(t, network+"11:9000", "one", released())
	newBackend(t, network+"12:9000", "two", released()).healthy.Store(false)
	dir := t.TempDir()
	config := strings.ReplaceAll(at(network, oneSite), "WAIT", "5s") + at(network, warming)
	back := func(what string, since time.Time) {
		t.Helper()
		eventually(t, "the route is back: "+what, func() bool { return bird.has("a") != "gone" })
		took := time.Since(since)
		t.Logf("%s: at the router after %s", what, took.Round(time.Millisecond))
		if took < warmUp {
			t.Errorf("%s: announced after %s, its warm-up is %s", what, took, warmUp)
		}
	}
	began := time.Now()
	r := start(t, nodeIn(t, dir, config))
	back("the first start", began)

	backend.healthy.Store(false)
	eventually(t, "the route is gone", func() bool { return bird.has("a") == "gone" })
	healed := time.Now()
	backend.healthy.Store(true)
	back("after a failure", healed)

	// A failure in the middle of the warm-up begins it anew.
	backend.healthy.Store(false)
	eventually(t, "the route is gone again", func() bool { return bird.has("a") == "gone" })
	backend.healthy.Store(true)
	time.Sleep(warmUp / 2) // half of it
	backend.healthy.Store(false)
	seen := backend.checks.Load()
	eventually(t, "the failure is noticed", func() bool { return backend.checks.Load() > seen+4 })
	healed = time.Now()
	backend.healthy.Store(true)
	back("after a failure in the warm-up", healed)

	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stop withdraws", func() bool { return bird.has("a") == "gone" })
	began = time.Now()
	start(t, nodeIn(t, dir, config))
	back("a new process", began)
}
