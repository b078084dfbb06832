package node

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// fleet is two sites of which only a1 runs, on addresses 127.9.2.x.
const fleet = `
cluster: {name: fleet, wait: WAIT}
sites:
  a: {location: FRA, nodes: {a1: 127.9.2.1}}
  b: {location: SIN, nodes: {b1: 127.9.2.2}}
services:
  web:
    check: {http: {path: /healthz}, every: 200ms, timeout: 100ms, rise: 1, fall: 100, recheck: 50ms}
    backends: {a: ["127.9.2.11:9000"], b: ["127.9.2.12:9000"]}
    vip: {a: 127.9.2.80, b: 127.9.2.90}
zones: {t.test: {names: {www: {service: web}}}}
dns: {listen: "127.9.2.1:5353"}
listeners:
  - {bind: "vip:8080", http: {routes: [{service: web}]}}
`

// The VIPs serve as soon as this site's backends are known; names are answered
// only when the other sites are known too.
func TestForwardingOpensBeforeDNS(t *testing.T) {
	t.Parallel()
	newBackend(t, "127.9.32.11:9000", "one", released())
	other := newBackend(t, "127.9.32.90:8080", "VIP of b", make(chan struct{}))
	r := startNode(t, at("127.9.32.", strings.ReplaceAll(fleet, "WAIT", "1m")))
	eventually(t, "the VIP is open", func() bool { return dials("127.9.32.80:8080") })
	since := other.checks.Load()
	eventually(t, "the other site was asked five times more", func() bool { return other.checks.Load() >= since+5 })
	if dials("127.9.32.1:5353") {
		t.Error("DNS is open before the other site is known")
	}
	if got := r.state(t); got != "starting" {
		t.Errorf("state %q, want starting", got)
	}
}

// Both waits share one bound: where nothing ever answers, the node serves soon
// after the first has ended.
func TestBothWaitsShareOneBound(t *testing.T) {
	t.Parallel()
	const wait = 4 * time.Second
	newBackend(t, "127.9.33.11:9000", "one", make(chan struct{}))
	newBackend(t, "127.9.33.90:8080", "VIP of b", make(chan struct{}))
	r := startNode(t, at("127.9.33.", strings.ReplaceAll(fleet, "WAIT", wait.String())))
	eventually(t, "the VIP is open", func() bool { return dials("127.9.33.80:8080") })
	first := time.Now()
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })
	if took := time.Since(first); took > wait/2 {
		t.Errorf("DNS opened %s after the VIP, want at once", took)
	}
	if took := time.Since(r.started); took < wait {
		t.Errorf("served after %s, want %s", took, wait)
	}
}

// An open connection is not cut by a stop; it may end by itself within the
// drain time, and the stop ends with it.
func TestStopLetsConnectionsEnd(t *testing.T) {
	t.Parallel()
	newBackend(t, "127.9.31.11:9000", "one", released())
	newBackend(t, "127.9.31.12:9000", "two", released())
	r := startServing(t, at("127.9.31.", strings.ReplaceAll(oneSite, "WAIT", "5s")))
	conn, err := net.Dial("tcp", "127.9.31.80:8081")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	ask := func() error {
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	stopped, result := make(chan struct{}), error(nil)
	go func() { defer close(stopped); result = r.stop() }()
	eventually(t, "the VIP is closed", func() bool { return !dials("127.9.31.80:8081") })
	select {
	case <-stopped:
		t.Error("stopped although a connection is open and the drain time is not over")
	case <-time.After(stopStep + stopStep/4): // longer than any other step
	}
	if err := ask(); err != nil {
		t.Errorf("the open connection was cut: %v", err)
	}
	conn.Close()
	ended := time.Now()
	<-stopped
	if result != nil {
		t.Error(result)
	}
	if took := time.Since(ended); took > drainTime/2 {
		t.Errorf("the stop took %s after the last connection ended", took)
	}
}

// What a life has learnt is there at the start of the next, as what first
// results must argue against.
func TestVerdictsSurviveARestart(t *testing.T) {
	t.Parallel()
	newBackend(t, "127.9.34.11:9000", "one", released())
	two := newBackend(t, "127.9.34.12:9000", "two", released())
	two.healthy.Store(false)
	dir, config := t.TempDir(), at("127.9.34.", strings.ReplaceAll(oneSite, "WAIT", "5s"))
	r := start(t, nodeIn(t, dir, config))
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	next := nodeIn(t, dir, config)
	initial := next.probeOptions(next.setup.Load()).Initial
	for addr, want := range map[string]health.Status{"127.9.34.11:9000": health.StatusUp, "127.9.34.12:9000": health.StatusDown} {
		target := health.Target{Kind: health.KindBackend, Service: "web", Site: "a", Addr: netip.MustParseAddrPort(addr)}
		if v := next.decider.view.Load().Of(target); v.Status != want || !v.Restored {
			t.Errorf("verdict on %s after a restart: %s (restored %v), want %s", addr, v.Status, v.Restored, want)
		}
		if got := initial[target]; got != want {
			t.Errorf("the checks of %s begin with %s, want %s", addr, got, want)
		}
	}
}

// A part that ends by itself ends the node, which says which one it was.
func TestPartThatEndsStopsTheNode(t *testing.T) {
	t.Parallel()
	r := startServing(t, at("127.9.35.", strings.ReplaceAll(oneSite, "WAIT", "300ms")))
	r.gossip.Close()
	if err := waitStopped(t, r); err == nil || !strings.Contains(err.Error(), "cluster:") {
		t.Errorf("got %v, want an error that names the part", err)
	}
}
