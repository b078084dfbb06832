package main

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp/bed"
	"github.com/pharos-lb/pharos/internal/doctor"
)

// outlivedConfig announces for something behind the node that goes on without it.
const outlivedConfig = `
cluster: {wait: 0s, secret: "${GOSSIP_KEY}"}
sites: {fra: {location: FRA, nodes: {fra1: 10.9.1.1}}}
services:
  web:
    backends: {fra: ["10.9.1.1:9000"]}
    check: {tcp: {}, every: 200ms}
dns: {listen: "node:5353"}
drain: {stop: 1s}
bgp:
  asn: 64500
  %s
  prefixes: [{prefix: 198.18.0.0/24, requires: web}]
  peers: {fra: [{%s, asn: 64496}]}
`

const outlivedBIRD = `
log stderr { fatal, bug };
router id 10.9.1.2;
protocol device {}
protocol kernel { ipv4 { import none; export all; }; }
protocol bgp pharos {
	local 10.9.1.2 as 64496;
	neighbor 10.9.1.1 as 64500;
	connect retry time 1;
	error wait time 1, 2;
	connect delay time 1;
	ipv4 { import all; export none; };
}
`

func newOutlived(t *testing.T) (n *vipNode, them *bed.Namespace) {
	t.Helper()
	b := bed.New(t)
	n = &vipNode{t: t, us: b.Namespace("us"), dir: t.TempDir()}
	them = b.Namespace("them")
	b.Link(n.us, "10.9.1.1/24", them, "10.9.1.2/24")
	n.router = them.BIRD(outlivedBIRD)
	n.announce = func() bool { return strings.Contains(n.router.Birdc("show route"), "198.18.0.0/24") }
	n.backend()
	return n, them
}

// TestNodeRestartsGracefully: with graceful restart neither an upgrade nor a kill -9 takes the route out of the router's own table
// for a moment, if the node is back in time; a stop withdraws at once.
func TestNodeRestartsGracefully(t *testing.T) {
	t.Parallel()
	n, them := newOutlived(t)
	n.writeText(fmt.Sprintf(outlivedConfig, "graceful_restart: {time: 30s, traffic_outlives_pharos: true}", "address: 10.9.1.2"))
	n.start()
	routed := func() bool {
		return strings.Contains(them.Run("ip", "route", "show", "198.18.0.0/24"), "198.18.0.0/24")
	}
	n.await("the route", routed)
	watch := watchKernel(t, them, "route")
	n.await("the watch to hear", func() bool {
		_ = them.Command("ip", "route", "del", "blackhole", "198.51.100.77/32").Run()
		them.Run("ip", "route", "add", "blackhole", "198.51.100.77/32")
		return strings.Contains(watch.text(), "198.51.100.77")
	})
	kept := func(what string) {
		t.Helper()
		if !routed() || strings.Contains(watch.text(), "Deleted 198.18.0.0/24") {
			t.Fatalf("%s took the route out of the router's table:\n%s", what, watch.text())
		}
	}

	since := n.status().Speaker.Peers[0].Since
	before := n.status().PID
	if out, err := exec.Command("pharos", "upgrade", "--socket", n.socket()).CombinedOutput(); err != nil {
		t.Fatalf("upgrade: %v\n%s", err, out)
	}
	n.await("the new process", func() bool {
		st := n.status()
		return st.State == "serving" && st.PID != before && st.Speaker != nil && st.Speaker.State == "running"
	})
	kept("the upgrade")
	if got := n.status().Speaker.Peers[0].Since; !got.Equal(since) {
		t.Errorf("the session is of %v, it was of %v: it was not handed over", got, since)
	}
	n.await("the old process to end", func() bool { // until then the state folder is its own
		select {
		case <-n.done:
			return true
		default:
			return false
		}
	})
	pid := n.status().PID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.await("the router to miss the session", func() bool { return !strings.Contains(n.router.Birdc("show protocols pharos"), "Established") })
	kept("kill -9")
	n.start()
	n.await("the session of a new node", func() bool {
		st := n.status()
		return st.Speaker != nil && len(st.Speaker.Peers) == 1 && st.Speaker.Peers[0].State == "established" && st.Speaker.Peers[0].Sent == 1
	})
	time.Sleep(2 * time.Second) // in which the router drops what was not announced anew
	kept("the start after kill -9")
	r, _ := n.examine("--only", "config")
	if !strings.Contains(fmt.Sprint(r.Findings), "routers keep sending here for 30s") {
		t.Errorf("no warning: %+v", r.Findings)
	}
	began := time.Now()
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	n.await("a stop to withdraw", func() bool { return !routed() })
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a stop withdrew after %s", took)
	}
	<-n.done
}

// TestPeersFromAPrefix: a router that nobody named has a session and the route, and every verb knows it.
func TestPeersFromAPrefix(t *testing.T) {
	t.Parallel()
	n, _ := newOutlived(t)
	n.writeText(fmt.Sprintf(outlivedConfig, "", "from: 10.9.1.0/24, max_peers: 2"))
	n.start()
	n.await("the route", n.announce)
	st := n.status().Speaker
	if len(st.Ranges) != 1 || len(st.Peers) != 1 || st.Peers[0].From != netip.MustParsePrefix("10.9.1.0/24") || st.Peers[0].Address.String() != "10.9.1.2" {
		t.Fatalf("status: %+v", st)
	}
	n.await("the count", func() bool { return n.status().Speaker.Ranges[0].Sessions == 1 })
	for verb, want := range map[string]string{"peers": "1 of 2", "routes": "10.9.1.2", "status": "10.9.1.2"} {
		out, err := exec.Command("pharos", verb, "--socket", n.socket()).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("pharos %s: %v\n%s", verb, err, out)
		}
	}
	if text := n.metrics(); !strings.Contains(text, "\npharos_bgp_dynamic_peers_established 1\n") {
		t.Error("the metric does not count it")
	}
	r, code := n.examine("--only", "bgp")
	found := fmt.Sprint(r.Findings)
	if code != exitOK || r.Worst() > doctor.Note || !strings.Contains(found, "1 of at most 2 routers have a session") || !strings.Contains(found, "sent to 10.9.1.2") {
		t.Errorf("doctor: %d, %+v", code, r.Findings)
	}
	cmd := exec.Command("pharos", "peer-config", filepath.Join(n.dir, "pharos.yaml"), "--router", "bird", "--peer", "10.9.1.2")
	cmd.Env = nodeEnv()
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "neighbor 10.9.1.1 as 64500") {
		t.Errorf("peer-config: %v\n%s", err, out)
	}
}
