package node

import (
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
)

// A drain waits for the connections at its prefix's addresses to end, and says how many there are.
func TestDrainWaitsForConnections(t *testing.T) {
	const network = "127.9.54."
	newBackend(t, network+"11:9000", "one", released())
	newBackend(t, network+"12:9000", "two", released())
	p := &pair{dirA: t.TempDir(), dirB: t.TempDir(), network: network}
	p.config = at(network, bothSites+`
  - {bind: "vip:9090", tcp: {service: web}}
drain: {depreference: 1h, traffic_below: 20, connections: 1h}
bgp:
  asn: 64500
  listen: false
  prefixes: [{prefix: 127.9.2.0/24, requires: [web, "listener:9090"]}]
  peers: {a: [{address: 127.9.2.254, asn: 64496}], b: [{address: 127.9.2.254, asn: 64496}]}
`)
	p.config = strings.Replace(p.config, "www: {service: web}", "www: {service: web, ttl: 1s}", 1)
	key := newKeyText(t)
	for _, dir := range []string{p.dirA, p.dirB} {
		write(t, filepath.Join(dir, "gossip.key"), key+"\n")
	}
	p.begin(t)
	p.awaitFit(t)
	eventually(t, "the door is open", func() bool { return p.a.board.Load().Routes[0].Announce })
	conn, err := net.Dial("tcp", network+"80:9090")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := p.b.override(t.Context(), ask(health.OrderDrain, "site/a")); err != nil {
		t.Fatal(err)
	}
	stage := func(what, stage string, open int) {
		t.Helper()
		eventually(t, what+" is "+stage, func() bool {
			for _, d := range p.b.drains(t.Context()).Drains {
				if d.Node == "a1" && d.What == what && d.Stage == stage && d.Open == open && d.Scope == "site/a" {
					return true
				}
			}
			return false
		})
	}
	stage("service web", "finishing", 1)
	stage("prefix "+network+"0/24", "finishing", 1) // without traffic but that of checks, long before the hour
	conn.Close()
	stage("prefix "+network+"0/24", admin.StageDone, 0)
	stage("service web", admin.StageDone, 0)
}

// An answer that does not fit says so: what it leaves out is not done.
func TestDrainsThatDoNotFit(t *testing.T) {
	for n, more := range map[int]bool{0: false, 3: false, 200: true} {
		a := drainAnswer{Digest: 7, Drains: make([]admin.DrainStatus, n)}
		for i := range a.Drains {
			a.Drains[i].What = strings.Repeat("x", 1000)
		}
		raw := encodeDrains(a)
		var got drainAnswer
		if err := json.Unmarshal(raw, &got); err != nil || len(raw) > maxEvidence {
			t.Fatalf("%d drains: %d bytes, %v", n, len(raw), err)
		}
		if got.More != more || got.Digest != 7 || !more && len(got.Drains) != n {
			t.Errorf("%d drains: %d arrive, more %v", n, len(got.Drains), got.More)
		}
	}
}
