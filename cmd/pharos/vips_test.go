package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp/bed"
	"github.com/pharos-lb/pharos/internal/admin"
)

const vipsConfig = `
cluster: {wait: 0s, secret: "${GOSSIP_KEY}"}
sites: {fra: {location: FRA, nodes: {fra1: 10.9.1.1}}}
services:
  web:
    backends: {fra: ["10.9.1.1:9000"]}
    vip: {fra: 10.9.7.80, anycast: %s}
    check: {tcp: {}, every: 200ms}
listeners: [{bind: "vip:8080", tcp: {service: web}}]
dns: {listen: "node:5353"}
vips: {interface: vips0, linger: 700ms}
bgp:
  asn: 64500
  prefixes: [{prefix: 198.18.0.0/24, requires: web}]
  peers: {fra: [{address: 10.9.1.2, asn: 64496, bfd: {}}]}
`

const gossipKey = "MDEyMzQ1Njc4OWFiY2RlZg=="

func nodeEnv() []string { return append(os.Environ(), "GOSSIP_KEY="+gossipKey) }

// A vipNode is pharos in a namespace beside BIRD.
type vipNode struct {
	t        *testing.T
	us, them *bed.Namespace
	dir      string
	cmd      *exec.Cmd
	done     chan struct{}
	announce func() bool
	router   *bed.BIRD
	name     string // of the node; "" = fra1
	core     string // that it runs on; "" = any
}

func newVIPNode(t *testing.T) *vipNode {
	b := bed.New(t)
	n := &vipNode{t: t, us: b.Namespace("us"), dir: t.TempDir()}
	n.them = b.Namespace("them")
	_, link := b.Link(n.us, "10.9.1.1/24", n.them, "10.9.1.2/24")
	r := n.them.BIRD(fmt.Sprintf(`
router id 10.9.1.2;
protocol device {}
protocol bfd { interface %q { interval 300 ms; }; }
protocol bgp pharos {
	local 10.9.1.2 as 64496;
	neighbor 10.9.1.1 as 64500;
	bfd on;
	error wait time 1, 2;
	connect delay time 1;
	ipv4 { import all; export none; };
}
`, link))
	n.router = r
	n.announce = func() bool { return strings.Contains(r.Birdc("show route"), "198.18.0.0/24") }
	n.backend()
	n.interfaceOn()
	n.write("198.18.0.80")
	return n
}

// backend serves on the node itself.
func (n *vipNode) backend() {
	n.t.Helper()
	n.us.Do(func() error { // the backend
		l, err := net.Listen("tcp", "10.9.1.1:9000")
		if err == nil {
			n.t.Cleanup(func() { l.Close() })
			go func() { _ = http.Serve(l, http.NotFoundHandler()) }()
		}
		return err
	})
}

func (n *vipNode) write(anycast string) {
	n.t.Helper()
	n.writeText(fmt.Sprintf(vipsConfig, anycast))
}

func (n *vipNode) writeText(text string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, "pharos.yaml"), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *vipNode) socket() string { return filepath.Join(n.dir, "s") }

func (n *vipNode) start() {
	n.t.Helper()
	pharos, err := exec.LookPath("pharos")
	if err != nil {
		n.t.Fatal(err)
	}
	args := []string{
		pharos, "run", "--config", filepath.Join(n.dir, "pharos.yaml"), "--node", cmp.Or(n.name, "fra1"),
		"--state-dir", filepath.Join(n.dir, "state"), "--socket", n.socket(),
	}
	if n.core != "" {
		args = append([]string{"taskset", "-c", n.core}, args...)
	}
	n.cmd = n.us.Command(args...)
	n.cmd.Env = nodeEnv()
	log, err := os.OpenFile(filepath.Join(n.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	n.cmd.Stdout, n.cmd.Stderr = log, log
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	cmd, done := n.cmd, make(chan struct{})
	n.done = done
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		if n.t.Failed() {
			text, _ := os.ReadFile(filepath.Join(n.dir, "log"))
			n.t.Logf("%s", text)
		}
	})
}

func (n *vipNode) end(sig syscall.Signal) { _ = n.cmd.Process.Signal(sig); <-n.done }

func (n *vipNode) bound() string {
	var out []string
	text, _ := n.us.Command("ip", "-o", "-4", "addr", "show", "dev", "vips0").Output()
	for line := range strings.Lines(string(text)) {
		out = append(out, strings.Fields(line)[3])
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (n *vipNode) status() (s admin.Status) {
	out, _ := exec.Command("pharos", "status", "--socket", n.socket(), "-o", "json").Output()
	_ = json.Unmarshal(out, &s)
	return s
}

func (n *vipNode) await(what string, cond func() bool) { n.t.Helper(); bed.Await(n.t, what, cond) }

const bothVIPs = "10.9.7.80/32 198.18.0.80/32"

// TestVIPs runs a real node whose VIPs are its own business, through everything that can happen to them.
func TestVIPs(t *testing.T) {
	n := newVIPNode(t)
	n.start()
	n.await("the announcement", n.announce)
	if got := n.bound(); got != bothVIPs {
		t.Fatalf("announced with %q on vips0", got)
	}
	for _, s := range n.status().VIPs {
		if !s.Bound || !s.Ours || s.Interface != "vips0" {
			t.Errorf("status %+v", s)
		}
	}

	// A crash: the route goes, the addresses stay, and the next process takes them over.
	n.end(syscall.SIGKILL)
	n.await("the withdrawal", func() bool { return !n.announce() })
	if got := n.bound(); got != bothVIPs {
		t.Fatalf("after the crash %q on vips0", got)
	}
	n.start()
	n.await("the announcement again", n.announce)

	// Removed by somebody: put back.
	n.us.Run("ip", "addr", "del", "198.18.0.80/32", "dev", "vips0")
	n.await("the restoration", func() bool { return n.bound() == bothVIPs })

	// It cannot be put back: not announced, and said so.
	n.testHeldBack()

	// A reload moves the VIP: the new one is there at once, the old one lingers.
	n.write("198.18.0.81")
	if out, err := exec.Command("pharos", "reload", "--socket", n.socket()).CombinedOutput(); err != nil {
		t.Fatalf("reload: %v\n%s", err, out)
	}
	if got := n.bound(); !strings.Contains(got, "198.18.0.81/32") {
		t.Errorf("reloaded with %q on vips0", got)
	}
	n.await("the old one to go", func() bool { return n.bound() == "10.9.7.80/32 198.18.0.81/32" })
	n.await("the announcement", n.announce)

	// A stop: the route first, the addresses last.
	began := time.Now()
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	n.await("the withdrawal", func() bool { return !n.announce() })
	if got := n.bound(); got == "" {
		t.Errorf("the VIPs went in the step that withdraws, after %v", time.Since(began))
	}
	<-n.done
	if got := n.bound(); got != "" {
		t.Errorf("stopped with %q on vips0", got)
	}
}

func (n *vipNode) interfaceOn() {
	n.t.Helper()
	n.us.Run("ip", "link", "add", "vips0", "type", "veth", "peer", "name", "vips1")
	n.us.Run("ip", "link", "set", "vips0", "up")
	n.us.Run("ip", "link", "set", "vips1", "up")
}

// testHeldBack takes the interface away, so that the VIP cannot be put back.
func (n *vipNode) testHeldBack() {
	n.t.Helper()
	n.us.Run("ip", "link", "del", "vips0")
	n.await("the route to be held back", func() bool { return !n.announce() })
	n.await("the reason", func() bool {
		for _, r := range n.status().Routes {
			if !r.Announce && r.Lacks == "VIP 198.18.0.80" {
				return true
			}
		}
		return false
	})
	n.interfaceOn()
	n.await("the restoration", func() bool { return n.bound() == bothVIPs })
	n.await("the announcement again", n.announce)
}
