package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/bgp/bed"
)

// TestPeerConfigWorks loads what peer-config prints into the real FRR and BIRD beside a real node: the session comes up
// with BFD, MD5 and TTL security, and the route is accepted.
func TestPeerConfigWorks(t *testing.T) {
	// FRR uses multihop BFD where ttl-security is set.
	for kind, bfd := range map[string]string{"frr": "{multihop: true}", "bird": "{}"} {
		t.Run(kind, func(t *testing.T) {
			b := bed.New(t)
			n := &vipNode{t: t, us: b.Namespace("us"), dir: t.TempDir()}
			them := b.Namespace("them")
			b.Link(n.us, "10.9.1.1/24 2001:db8:1::1/64", them, "10.9.1.2/24 2001:db8:1::2/64")
			n.backend()
			n.writeText(fmt.Sprintf(`
cluster: {wait: 0s, secret: "${GOSSIP_KEY}"}
sites: {fra: {location: FRA, nodes: {fra1: {address: 10.9.1.1, second_address: "2001:db8:1::1"}}}}
services:
  web:
    backends: {fra: ["10.9.1.1:9000"]}
    check: {tcp: {}, every: 200ms}
dns: {listen: "node:5353"}
bgp:
  asn: 64500
  prefixes: [{prefix: 198.18.0.0/24, requires: web}, {prefix: "2001:db8:80::/48", requires: web}]
  peers: {fra: [{address: 10.9.1.2, asn: 64496, password: "${GOSSIP_KEY}", ttl_security: 1, bfd: %s}]}
`, bfd))
			cmd := exec.Command("pharos", "peer-config", filepath.Join(n.dir, "pharos.yaml"), "--router", kind)
			cmd.Env = nodeEnv()
			text, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			ready := strings.ReplaceAll(string(text), "REPLACE-WITH-THE-PASSWORD", gossipKey)
			if ready == string(text) {
				t.Fatalf("no password is asked for:\n%s", text)
			}
			n.start()
			var routes func() string
			if kind == "frr" {
				r := them.FRR(ready)
				defer func() {
					if t.Failed() {
						t.Log(r.Vtysh("show bfd peers"))
					}
				}()
				routes = func() string { return r.Vtysh("show bgp ipv4 unicast") + r.Vtysh("show bgp ipv6 unicast") }
			} else {
				r := them.BIRD("router id 10.9.1.2;\nprotocol device {}\n" + ready)
				routes = func() string { return r.Birdc("show route") }
			}
			n.await(fmt.Sprintf("%s to accept both routes", kind), func() bool {
				text := routes()
				return strings.Contains(text, "198.18.0.0/24") && strings.Contains(text, "2001:db8:80::/48")
			})
			n.await("BFD", func() bool {
				s := n.status().Speaker
				return s != nil && len(s.Peers) == 1 && s.Peers[0].State == "established" && s.Peers[0].BFD != nil && s.Peers[0].BFD.State == "up"
			})
		})
	}
}
