package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
)

// hostilePeers is how many routers of the test do their worst, one after the other: each is left out after its first time.
const hostilePeers = 6

// TestHostilePeersLoseNoAnswer: routers that crash the BGP process again and again cost no DNS answer and no connection,
// over UDP or TCP; the process is back at the end, and each of them is named.
func TestHostilePeersLoseNoAnswer(t *testing.T) {
	t.Parallel()
	r := newUpgradeRig(t)
	var peers []string
	var struck atomic.Int32
	release := make(chan struct{})
	// An unknown type of message is what the BGP library does not survive.
	deadly := append(bytes.Repeat([]byte{0xff}, 16), 0, 20, 99, 0)
	for i := range hostilePeers {
		host := fmt.Sprintf("127.0.0.%d", 101+i)
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, r.bgp))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					<-release
					_, _ = conn.Write(deadly)
					struck.Add(1)
					_, _ = conn.Read(make([]byte, 4096))
				}()
			}
		}()
		peers = append(peers, fmt.Sprintf("{address: %s, asn: 64496, port: %d, multihop: 2}", host, r.bgp))
	}
	r.write(fmt.Sprintf(`
sites: {fra: {location: FRA, nodes: {n1: 127.0.0.1}}}
cluster: {port: %d, wait: 2s}
services:
  web: {check: {tcp: {}, every: 1s}, backends: {fra: ["%s"]}, vip: {fra: 127.0.0.1}}
  echo: {check: {tcp: {}, every: 1s}, backends: {fra: ["%s"]}, vip: {fra: 127.0.0.3}}
zones:
  example.test: {names: {www: {service: web, ttl: 30s}}}
dns: {listen: "127.0.0.1:%d"}
listeners:
  - {bind: "127.0.0.1:%d", http: {routes: [{service: web}]}}
  - {bind: "127.0.0.1:%d", tcp: {service: echo}}
bgp:
  asn: 64500
  port: %d
  peers: {fra: [%s]}
  prefixes: [{prefix: 192.0.2.0/24, requires: [web]}]
`, r.gossip, r.web, r.echo, r.dns, r.http, r.tcp, r.bgp, strings.Join(peers, ", ")))
	r.start()

	loads := []*load{r.queries("udp"), r.queries("tcp"), r.keepAlive(), r.connections()}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for _, l := range loads {
		wg.Go(func() { l.run(ctx) })
	}
	r.within(30*time.Second, "work is done", func() bool { return loads[0].did.Load() > 100 && loads[1].did.Load() > 10 })
	close(release)
	var last *admin.SpeakerStatus
	r.within(90*time.Second, "every one of them is left out, and the BGP process is back", func() bool {
		st, err := admin.NewClient(r.socket).Status(ctx)
		if err != nil {
			t.Fatalf("the node does not answer: %v", err)
		}
		last = st.Speaker
		for _, p := range last.Peers {
			if p.State != "quarantined" {
				return false
			}
		}
		return last.State == "running"
	})
	stop()
	wg.Wait()
	for _, l := range loads {
		t.Logf("%-16s %6d", l.name, l.did.Load())
		if len(l.failed) > 0 || l.did.Load() == 0 {
			t.Errorf("%s: %d failures, the first: %v", l.name, len(l.failed), l.failed[:min(3, len(l.failed))])
		}
	}
	t.Logf("the BGP process ended %d times by %d strikes", last.Restarts, struck.Load())
	if last.Restarts < hostilePeers/2 {
		t.Errorf("it ended %d times only: the test is tamer than it says", last.Restarts)
	}
	if len(r.processes()) != 1 {
		t.Errorf("%d processes of the node, want the one that began", len(r.processes()))
	}
}
