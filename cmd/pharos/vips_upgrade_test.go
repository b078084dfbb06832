package main

import (
	"bufio"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/pharos-lb/pharos/bgp/bed"
)

// An kernelWatch is what the kernel says of addresses or routes on a machine, from the moment it was made.
type kernelWatch struct {
	mu    sync.Mutex
	lines []string
}

func watchKernel(t *testing.T, ns *bed.Namespace, what string) *kernelWatch {
	t.Helper()
	cmd := ns.Command("ip", "-o", "monitor", what)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w := &kernelWatch{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := bufio.NewScanner(out); s.Scan(); {
			w.mu.Lock()
			w.lines = append(w.lines, s.Text())
			w.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
	return w
}

func (w *kernelWatch) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lines)
}

func (w *kernelWatch) text() string { return strings.Join(w.all(), "\n") }

// TestUpgradeKeepsVIPs: a node whose VIPs are its own business hands over to a new process twice. No address leaves the
// interface for a moment, and the router sees no withdrawal and one session.
func TestUpgradeKeepsVIPs(t *testing.T) {
	t.Parallel()
	n := newVIPNode(t)
	n.start()
	n.await("the announcement", n.announce)
	watch := watchKernel(t, n.us, "address")
	// The watch hears what happens: a test address goes and comes.
	n.await("the watch to hear", func() bool {
		_ = n.us.Command("ip", "addr", "del", "10.9.8.1/32", "dev", "vips0").Run()
		n.us.Run("ip", "addr", "add", "10.9.8.1/32", "dev", "vips0")
		return strings.Contains(watch.text(), "10.9.8.1")
	})
	since := n.status().Speaker.Peers[0].Since
	for i := range 2 {
		before := n.status().PID
		if out, err := exec.Command("pharos", "upgrade", "--socket", n.socket()).CombinedOutput(); err != nil {
			t.Fatalf("upgrade %d: %v\n%s", i+1, err, out)
		}
		n.await("the new process", func() bool {
			st := n.status()
			return st.State == "serving" && st.PID != before && st.Speaker != nil && st.Speaker.State == "running"
		})
		pid := n.status().PID
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
		if !n.announce() {
			t.Errorf("upgrade %d: the route is not at the router", i+1)
		}
		if got := n.bound(); !strings.Contains(got, "10.9.7.80/32") || !strings.Contains(got, "198.18.0.80/32") {
			t.Errorf("upgrade %d: %q on vips0", i+1, got)
		}
	}
	for _, line := range watch.all() {
		if strings.Contains(line, "Deleted") && !strings.Contains(line, "10.9.8.1") {
			t.Errorf("an address left the interface: %s", line)
		}
	}
	st := n.status()
	if !st.Speaker.Peers[0].Since.Equal(since) {
		t.Errorf("the session is of %v, it was of %v", st.Speaker.Peers[0].Since, since)
	}
	for _, v := range st.VIPs {
		if !v.Bound || !v.Ours {
			t.Errorf("the new process does not own %+v", v)
		}
	}
	updates, withdrawals := n.imports()
	if withdrawals != 0 || updates == 0 {
		t.Errorf("the router counted %d updates and %d withdrawals", updates, withdrawals)
	}

	// The router would have counted: a reload that drops the prefix is a withdrawal.
	n.writeText(strings.Replace(fmt.Sprintf(vipsConfig, "198.18.0.80"), "198.18.0.0/24", "198.19.0.0/24", 1))
	if out, err := exec.Command("pharos", "reload", "--socket", n.socket(), "--allow-withdraw").CombinedOutput(); err != nil {
		t.Fatalf("reload: %v\n%s", err, out)
	}
	n.await("a withdrawal to be counted", func() bool {
		_, withdrawals := n.imports()
		return withdrawals == 1
	})

	// The last process takes its addresses with it, and leaves the foreign one.
	_ = syscall.Kill(st.PID, syscall.SIGTERM)
	n.await("the addresses to go", func() bool { return n.bound() == "10.9.8.1/32" })
}

// imports are the updates and withdrawals that BIRD received.
func (n *vipNode) imports() (updates, withdrawals int) {
	n.t.Helper()
	for line := range strings.Lines(n.router.Birdc("show protocols all pharos")) {
		line = strings.TrimSpace(line)
		if _, err := fmt.Sscanf(line, "Import updates: %d", &updates); err == nil {
			continue
		}
		_, _ = fmt.Sscanf(line, "Import withdraws: %d", &withdrawals)
	}
	return updates, withdrawals
}
