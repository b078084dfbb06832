package bgp

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// TestWithdrawLatency measures from the wake-up to the route's absence at the router.
func TestWithdrawLatency(t *testing.T) {
	const rounds = 50
	l := newLab(t)
	r, _ := l.router(2)
	g := l.speaker(Options{Peers: []Peer{l.peer(2)}}, Route{Prefix: anycast})
	awaitRouter(t, r, "the route", has(anycast))
	meter := measureStalls()
	var gone, there []time.Duration
	for range rounds {
		began := time.Now()
		g.set()
		awaitRouter(t, r, "the withdrawal", none)
		gone = append(gone, time.Since(began))
		began = time.Now()
		g.set(Route{Prefix: anycast})
		awaitRouter(t, r, "the announcement", has(anycast))
		there = append(there, time.Since(began))
	}
	report := func(what string, d []time.Duration) time.Duration {
		slices.Sort(d)
		p50, p99 := d[len(d)/2], d[len(d)*99/100]
		t.Logf("%s: p50 %s, p99 %s, of %d", what, p50, p99, len(d))
		return p50
	}
	meter.atMost(t, report("wake-up to route gone", gone), 100*time.Millisecond)
	report("wake-up to route there", there)
	t.Logf("child memory: %d KiB resident", residentKiB(t, g.Status().Child.PID))
}

func residentKiB(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			n, err := strconv.Atoi(string(bytes.Fields(rest)[0]))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
