package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp/bed"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/doctor"
)

const seenConfig = `
cluster: {wait: 0s, secret: "${GOSSIP_KEY}"}
sites:
  fra: {location: FRA, nodes: {near: 10.9.2.1}}
  iad: {location: IAD, nodes: {far: 10.9.4.1}}
services:
  web:
    backends: {fra: ["10.9.2.1:9000"]}
    vip: {anycast: 198.18.0.80}
    check: {tcp: {}, every: 200ms}
dns: {listen: "node:5353"}
bgp:
  asn: 64500
  prefixes: [{prefix: 198.18.0.0/24, requires: web, sites: fra}]
  peers:
    fra: [{address: 10.9.2.2, asn: 64496}]
    iad: [{address: 10.9.4.2, asn: 64497, look: true}]
`

// seenFRR has FRR's own default for eBGP without policies (RFC 8212): it takes what is sent and drops it.
const seenFRR = `router bgp 64496
 bgp router-id 10.9.2.2
 neighbor 10.9.2.1 remote-as 64500
 neighbor 10.9.2.1 timers connect 1
 neighbor 10.9.3.2 remote-as 64497
 neighbor 10.9.3.2 timers connect 1
exit
`

const seenPolicy = `route-map all permit 1
exit
router bgp 64496
 address-family ipv4 unicast
  neighbor 10.9.2.1 route-map all in
  neighbor 10.9.2.1 route-map all out
  neighbor 10.9.3.2 route-map all in
  neighbor 10.9.3.2 route-map all out
 exit-address-family
exit
`

const seenBIRD = `
log stderr all;
router id 10.9.4.2;
protocol device {}
template bgp any { error wait time 1, 2; connect delay time 1; ipv4 { import all; export all; next hop self; }; }
protocol bgp frr from any { local 10.9.3.2 as 64497; neighbor 10.9.3.1 as 64496; }
protocol bgp pharos from any { local 10.9.4.2 as 64497; neighbor 10.9.4.1 as 64500; }
`

// TestSilentDropAlarms has two real nodes, the first at an FRR that drops by policy what it is sent, the second at a BIRD
// behind it that it looks at. The first node learns from the second that nobody has its route: its status, its metrics,
// `pharos routes` and `pharos doctor` say so, until FRR has a policy.
func TestSilentDropAlarms(t *testing.T) {
	t.Parallel()
	b := bed.New(t)
	near, frr, bird, far := b.Namespace("near"), b.Namespace("frr"), b.Namespace("bird"), b.Namespace("far")
	b.Link(near, "10.9.2.1/24", frr, "10.9.2.2/24")
	b.Link(frr, "10.9.3.1/24", bird, "10.9.3.2/24")
	b.Link(bird, "10.9.4.2/24", far, "10.9.4.1/24")
	near.Run("ip", "route", "add", "default", "via", "10.9.2.2")
	frr.Run("ip", "route", "add", "10.9.4.0/24", "via", "10.9.3.2")
	bird.Run("ip", "route", "add", "10.9.2.0/24", "via", "10.9.3.1")
	far.Run("ip", "route", "add", "default", "via", "10.9.4.2")
	near.Run("ip", "addr", "add", "198.18.0.80/32", "dev", "lo")
	router := frr.FRR(seenFRR)
	bird.BIRD(seenBIRD)
	nodes := map[string]*vipNode{"near": {t: t, us: near, name: "near"}, "far": {t: t, us: far, name: "far"}}
	near.Do(func() error {
		l, err := net.Listen("tcp", "10.9.2.1:9000")
		if err == nil {
			t.Cleanup(func() { l.Close() })
			go func() { _ = http.Serve(l, http.NotFoundHandler()) }()
		}
		return err
	})
	for _, n := range nodes {
		n.dir = t.TempDir()
		n.writeText(seenConfig)
		n.start()
	}
	n := nodes["near"]
	row := func() (p admin.RoutePeerStatus) {
		for _, r := range n.status().Routes {
			if len(r.Peers) == 1 {
				p = r.Peers[0]
			}
		}
		return p
	}
	n.await("the route to be sent", func() bool { return row().Sent })
	if p := row(); p.Seen != admin.SeenUnknown || p.Accepted != admin.AcceptedUnknown {
		t.Errorf("known too early: %+v", p)
	}
	// A session must have stood for 30 s before its silence means something.
	n.patiently("the alarm", 90*time.Second, func() bool { return row().Seen == admin.SeenNot })
	st := n.status()
	if !strings.Contains(strings.Join(st.Degraded, "\n"), "prefix 198.18.0.0/24 was sent to 10.9.2.2, but no node that looks sees it") {
		t.Errorf("the status does not say so: %q", st.Degraded)
	}
	n.patiently("the metric", 30*time.Second, func() bool { return strings.Contains(n.metrics(), "\npharos_node_routes_unseen 1\n") })
	out, err := exec.Command("pharos", "routes", "--socket", n.socket()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "nobody") {
		t.Errorf("pharos routes: %v\n%s", err, out)
	}
	n.diagnosed(doctor.Problem, "RFC 8212")

	router.Load(seenPolicy)
	n.patiently("the route to be seen", 60*time.Second, func() bool { return row().Seen == admin.SeenYes })
	if p := row(); p.Accepted != admin.AcceptedYes || len(p.SeenBy) != 1 || p.SeenBy[0].Node != "far" || fmt.Sprint(p.SeenBy[0].ASPath) != "[64497 64496 64500]" {
		t.Errorf("it is seen as %+v", p)
	}
	n.patiently("the end of the alarm", 30*time.Second, func() bool { return strings.Contains(n.metrics(), "\npharos_node_routes_unseen 0\n") })
	out, err = exec.Command("pharos", "routes", "--socket", n.socket()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "far") {
		t.Errorf("pharos routes: %v\n%s", err, out)
	}
	n.diagnosed(doctor.Fine, "taken by 10.9.2.2")
}

// patiently is await for what takes longer.
func (n *vipNode) patiently(what string, limit time.Duration, ok func() bool) {
	n.t.Helper()
	for began := time.Now(); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Since(began) > limit {
			n.t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// metrics are what the node exports.
func (n *vipNode) metrics() string {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", n.socket())
		},
	}}
	resp, err := client.Get("http://pharos/metrics")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return string(text)
}

// diagnosed wants doctor to say something of the prefix.
func (n *vipNode) diagnosed(level doctor.Level, text string) {
	n.t.Helper()
	r, _ := n.examine()
	for _, f := range r.Findings {
		if f.Subject == "prefix 198.18.0.0/24" && f.Level == level && strings.Contains(f.Found+f.Why+f.Do, text) {
			return
		}
	}
	n.t.Errorf("doctor does not say %q: %+v", text, r.Findings)
}
