package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/bgp"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/handover"
)

// A badSuccessor takes over as far as a step, and then does what its name says.
func badSuccessor(step string, hangs bool) func() {
	return func() {
		conn, err := handover.Inherited()
		if err != nil || conn == nil {
			os.Exit(1)
		}
		stop := func() {
			if hangs {
				select {}
			}
			os.Exit(7)
		}
		if step == "start" {
			stop()
		}
		protocol := 2 // node.upgradeProtocol
		if step == "protocol" {
			protocol = 99
		}
		conn.Send("hello", map[string]any{"Protocol": protocol, "Version": "bad", "BGPWire": bgp.Wire}, nil, time.Second)
		offer, err := conn.Receive(time.Minute)
		if err != nil || step == "offer" {
			stop()
		}
		if at := os.Getenv(steerEnv); at != "" {
			steerAway(offer, at)
		}
		conn.Send("ready", struct{}{}, nil, time.Second)
		if _, err := conn.Receive(time.Minute); err != nil || step == "release" {
			stop()
		}
		os.Exit(1)
	}
}

// steerEnv names the address whose QUIC clients a bad successor has sent elsewhere.
const steerEnv = "PHAROS_TEST_STEER"

// steerAway has the kernel send everything to the first socket of an address.
func steerAway(offer *handover.Message, at string) {
	var body struct {
		Lock    bool
		Sockets []handover.Socket
	}
	if offer.Decode(&body) != nil {
		os.Exit(1)
	}
	files := offer.Files
	if body.Lock {
		files = files[1:]
	}
	first := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	for i, s := range body.Sockets {
		if s == (handover.Socket{Network: "udp", Address: at}) {
			unix.SetsockoptSockFprog(files[i], unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &first[0]})
		}
	}
}

// badSuccessors are the names under which this test binary is one.
func badSuccessors() map[string]func() {
	out := map[string]func(){"bad-protocol": badSuccessor("protocol", false)}
	for _, step := range []string{"start", "offer", "release"} {
		out["bad-"+step+"-exits"] = badSuccessor(step, false)
		out["bad-"+step+"-hangs"] = badSuccessor(step, true)
	}
	return out
}

// TestFailedUpgradeChangesNothing: whatever the new process does instead, the old one serves on, no request fails,
// the route stays; and an upgrade after all that works.
func TestFailedUpgradeChangesNothing(t *testing.T) {
	r := newUpgradeRig(t)
	routes := r.bird()
	r.start()
	if routes != nil {
		r.within(30*time.Second, "a route at the router", func() bool { return strings.Contains(routes(), "> added") })
	}
	loads := []*load{r.keepAlive(), r.connections(), r.queries("udp"), r.queries("tcp")}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for _, l := range loads {
		wg.Go(func() { l.run(ctx) })
	}
	good, err := os.ReadFile(filepath.Join(r.dir, "p.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ binary, config, want string }{
		{"/nonexistent/pharos", "", "no such file"},
		{"/bin/true", "", "ended by itself"},
		{"bad-start-exits", "", "exit status 7"},
		{"bad-start-hangs", "", `did not say "hello" within`},
		{"bad-protocol", "", "restart instead"},
		{"bad-offer-exits", "", "exit status 7"},
		{"bad-offer-hangs", "", `did not say "ready" within`},
		{"bad-release-exits", "", "exit status 7"},
		{"bad-release-hangs", "", `did not say "adopted" within`},
		{"pharos", "sites: {}\n", "the new process refused"},
		{"pharos", strings.Replace(string(good), "sites:", "stes:", 1), `did you mean "sites"`},
	}
	for _, tt := range tests {
		binary := tt.binary
		if !strings.HasPrefix(binary, "/") {
			binary = filepath.Join(r.dir, binary)
			os.Symlink(r.executable(), binary) // "pharos" is there already
		}
		if tt.config != "" {
			r.write(tt.config)
		}
		began := time.Now()
		_, err := r.upgrade(admin.UpgradeRequest{Binary: binary, Limit: 1500 * time.Millisecond})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.binary, err, tt.want)
		}
		if err := r.ready(); err != nil {
			t.Errorf("%s: the old process: %v", tt.binary, err)
		}
		if n := len(r.processes()); n != 1 {
			t.Errorf("%s: %d processes, want the old one", tt.binary, n)
		}
		t.Logf("%s: %s: %v", tt.binary, time.Since(began).Round(time.Millisecond), err)
		r.write(string(good))
	}
	if _, err := r.upgrade(admin.UpgradeRequest{}); err != nil {
		t.Errorf("an upgrade after all: %v", err)
	}
	r.within(20*time.Second, "the new process serves", func() bool { return r.ready() == nil })
	stop()
	wg.Wait()
	for _, l := range loads {
		if len(l.failed) > 0 || l.did.Load() == 0 {
			t.Errorf("%s: %d of %d failed, the first: %v", l.name, len(l.failed), l.did.Load(), l.failed[:min(3, len(l.failed))])
		}
	}
	if routes != nil && (strings.Contains(routes(), "> removed") || strings.Count(routes(), "State changed to up") != 1) {
		t.Errorf("the route or its session did not stay:\n%s", routes())
	}
}

// TestFailedUpgradeLeavesQUIC: a new process that has had the kernel send QUIC clients elsewhere, and then ended, leaves
// them to the old one. Where it sent them is the place of a process before, which has ended.
func TestFailedUpgradeLeavesQUIC(t *testing.T) {
	r := newUpgradeRig(t)
	r.start(fmt.Sprintf("%s=127.0.0.1:%d", steerEnv, r.https))
	if _, err := r.upgrade(admin.UpgradeRequest{Drain: time.Second}); err != nil {
		t.Fatal(err)
	}
	r.within(30*time.Second, "the first process has ended", func() bool { return len(r.processes()) == 1 && r.ready() == nil })
	anew := r.requests(t, "HTTP/3 anew", 3, true, r.http3(nil))
	if err := anew.once(); err != nil {
		t.Fatalf("before: %v", err)
	}
	binary := filepath.Join(r.dir, "bad-release-exits")
	if err := os.Symlink(r.executable(), binary); err != nil {
		t.Fatal(err)
	}
	if _, err := r.upgrade(admin.UpgradeRequest{Binary: binary}); err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Fatalf("the upgrade: %v", err)
	}
	for range 3 {
		if err := anew.once(); err != nil {
			t.Fatalf("after: %v", err)
		}
	}
}
