package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// startRouted starts a lab with routers for a test.
func startRouted(t *testing.T, id, config string) (*Lab, *screen) {
	t.Helper()
	needRouters(t)
	out := &screen{}
	l, err := New(Options{Binary: os.Args[0], Program: "pharos", ID: id, ConfigFile: config, Routers: RoutersMixed, Out: out})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var logs strings.Builder
		for _, p := range l.nodes {
			text, _ := os.ReadFile(p.log())
			fmt.Fprintf(&logs, "%s:\n%s", p.name, text)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("%s\n%s", out, logs.String())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := l.Start(ctx); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return l, out
}

// hops waits until a router has a prefix over so many next hops.
func hops(t *testing.T, l *Lab, router, prefix string, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	s, err := l.routes.await(ctx, router, netip.MustParsePrefix(prefix), func(s RouteState) bool { return s.Hops == want })
	if err != nil {
		t.Fatalf("%s at %s: %d next hops, want %d", prefix, router, s.Hops, want)
	}
}

// fault does something to the fleet.
func fault(t *testing.T, l *Lab, f Fault) {
	t.Helper()
	if _, err := l.Do(f); err != nil {
		t.Fatal(err)
	}
}

// TestStandbyAndLocalOnly shows at the tables of BIRD and FRR what is announced in part: a prefix for a neighbour's own
// AS does not leave it, a standby site's route is not there or loses until the others serve less than is needed.
func TestStandbyAndLocalOnly(t *testing.T) {
	const held, lesser, local, plain = "198.51.100.0/24", "198.51.101.0/24", "198.51.102.0/24", "198.51.103.0/24"
	l, _ := startRouted(t, "tstand", "testdata/standby.yaml")
	kinds := map[RouterChoice]bool{}
	for _, r := range l.routers {
		kinds[r.kind] = true
	}
	if len(kinds) != 2 {
		t.Fatalf("routers are %v, want BIRD and FRR", kinds)
	}
	for _, router := range []string{"fra-r1", "iad-r1"} { // BIRD, FRR
		hops(t, l, router, local, 1)
		hops(t, l, router, plain, 1)
	}
	hops(t, l, transitName, plain, 2)
	hops(t, l, transitName, held, 2)
	hops(t, l, "sin-r1", lesser, 1) // it is there,
	hops(t, l, transitName, lesser, 2)
	hops(t, l, "sin-r1", held, 0)
	at := func(router, prefix string) int { return l.routes.now(router, netip.MustParsePrefix(prefix)).Hops }
	if n := at(transitName, local); n != 0 {
		t.Errorf("%s left the AS of the routers that were to keep it: the transit has %d next hops", local, n)
	}

	// One site that serves two of three units fails: the standby is as good as any.
	fault(t, l, Fault{Kind: FaultBackend, A: "web@fra"})
	began := time.Now()
	hops(t, l, "sin-r1", held, 1)
	t.Logf("promoted at its router after %s", time.Since(began).Round(time.Millisecond))
	hops(t, l, "fra-r1", held, 0)
	hops(t, l, transitName, held, 2)
	hops(t, l, transitName, lesser, 2)
	hops(t, l, transitName, plain, 1)
	if n := at(transitName, local); n != 0 {
		t.Errorf("%s left its AS: the transit has %d next hops", local, n)
	}
	fault(t, l, Fault{Kind: FaultBackend, A: "web@fra", Up: true})
	hops(t, l, "fra-r1", held, 1)
	hops(t, l, "sin-r1", held, 0)
	hops(t, l, transitName, held, 2)
	hops(t, l, "sin-r1", lesser, 1)
	hops(t, l, transitName, lesser, 2)
}
