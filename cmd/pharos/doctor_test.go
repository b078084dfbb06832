package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/bgp/bed"
	"github.com/pharos-lb/pharos/internal/doctor"
)

const sickConfig = `
cluster: {wait: 0s, secret: "${GOSSIP_KEY}"}
sites: {fra: {location: FRA, nodes: {fra1: 10.9.1.1}}}
services:
  web:
    backends: {fra: ["10.9.1.1:9000"]}
    vip: {anycast: 198.18.0.80}
    check: {tcp: {}, every: 200ms}
dns: {listen: "node:5353"}
bgp:
  asn: 64500
  prefixes: [{prefix: 198.18.0.0/24, requires: web}]
  peers: {fra: [{address: 10.9.1.2, asn: 64496, hold: 3s%s}]}
`

// examine runs pharos doctor beside the node.
func (n *vipNode) examine(args ...string) (r doctor.Report, code int) {
	args = append([]string{"pharos", "doctor", filepath.Join(n.dir, "pharos.yaml"), "--node", cmp.Or(n.name, "fra1"), "--socket", n.socket(), "-o", "json", "--timeout", "1s"}, args...)
	cmd := n.us.Command(args...)
	cmd.Env = nodeEnv()
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	_ = json.Unmarshal(out, &r)
	return r, code
}

// finds waits until doctor has a problem of a subject with all of the words in it, and says so by its exit code.
func (n *vipNode) finds(what, subject string, words ...string) {
	n.t.Helper()
	var r doctor.Report
	n.t.Cleanup(func() {
		if n.t.Failed() {
			n.t.Logf("at %q doctor said: %+v", what, r.Findings)
		}
	})
	n.await(what, func() bool {
		var code int
		r, code = n.examine()
		for _, f := range r.Findings {
			text := f.Found + f.Why + f.Do
			all := strings.HasPrefix(f.Subject, subject) && f.Level == doctor.Problem
			for _, w := range words {
				all = all && strings.Contains(text, w)
			}
			if all {
				return code == exitDegraded
			}
		}
		return false
	})
}

func (n *vipNode) healthy(what string) {
	n.t.Helper()
	n.await(what, func() bool {
		r, code := n.examine()
		return code == exitOK && r.Running && r.Worst() < doctor.Problem && len(r.Findings) > 5
	})
}

// TestDoctor breaks a real router and a real node in every way, one after the other, and doctor names each.
func TestDoctor(t *testing.T) {
	t.Parallel()
	b := bed.New(t)
	n := &vipNode{t: t, us: b.Namespace("us"), dir: t.TempDir()}
	them := b.Namespace("them")
	b.Link(n.us, "10.9.1.1/24", them, "10.9.1.2/24")
	n.us.Run("ip", "addr", "add", "198.18.0.80/32", "dev", "lo")
	n.backend()
	n.writeText(fmt.Sprintf(sickConfig, ", bfd: {}"))
	peer := "peer 10.9.1.2"

	n.finds("nobody to listen", peer, "is refused")
	router := them.FRR(`router bgp 64496
 bgp router-id 10.9.1.2
 no bgp ebgp-requires-policy
 neighbor 10.9.1.1 remote-as 64500
 neighbor 10.9.1.1 timers 1 3
 neighbor 10.9.1.1 timers connect 1
 neighbor 10.9.1.1 bfd
exit
`)
	set := func(lines string) { router.Load("router bgp 64496\n" + lines + "\nexit\n") }
	n.await("a router that answers, before the node runs", func() bool {
		r, code := n.examine()
		return code == exitOK && strings.Contains(fmt.Sprint(r.Findings), "the router answers: AS64496")
	})
	set("neighbor 10.9.1.1 remote-as 64501")
	n.await("another AS expected of us, before the node runs", func() bool {
		r, code := n.examine("--open")
		return code == exitDegraded && strings.Contains(fmt.Sprint(r.Findings), "the AS numbers disagree")
	})
	set("neighbor 10.9.1.1 remote-as 64500")

	n.start()
	n.healthy("health")

	set("neighbor 10.9.1.1 remote-as 64501")
	n.finds("another AS expected of us", peer, "the AS numbers disagree", "remote AS 64500")
	set("neighbor 10.9.1.1 remote-as 64500")
	set("neighbor 10.9.1.1 password hunter2")
	n.finds("a password there", peer, "password")
	set("no neighbor 10.9.1.1 password")
	n.healthy("health without a password")

	set("no neighbor 10.9.1.1 bfd")
	n.finds("BFD that went", "BFD with 10.9.1.2", "UDP port 3784")
	set("neighbor 10.9.1.1 bfd")
	n.healthy("BFD again")

	undo := them.Drop("tcp dport 179")
	undoToo := them.Drop("tcp sport 179")
	n.finds("a filter", peer, "firewall")
	undo()
	undoToo()
	n.healthy("health without a filter")

	set("neighbor 10.9.1.1 shutdown")
	n.finds("a shutdown", peer, "shut")
	set("no neighbor 10.9.1.1 shutdown")
	n.healthy("health after the shutdown")

	n.us.Run("ip", "addr", "del", "198.18.0.80/32", "dev", "lo")
	n.finds("a VIP that is nowhere", "VIP 198.18.0.80", "ip addr add 198.18.0.80/32 dev lo")
	n.us.Run("ip", "addr", "add", "198.18.0.80/32", "dev", "lo")

	n.writeText(fmt.Sprintf(sickConfig, ""))
	n.finds("a file that was not loaded", filepath.Join(n.dir, "pharos.yaml"), "pharos reload")
	set("no neighbor 10.9.1.1")
	n.finds("a router that does not know us", peer, "10.9.1.1")
}
