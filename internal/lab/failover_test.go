package lab

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/node"
)

// needRouters skips where there can be none, except in CI.
func needRouters(t *testing.T) {
	t.Helper()
	needLab(t)
	if err := RoutersMixed.missing(); err != nil {
		missing(t, err.Error())
	}
}

// TestFailover: BIRD and FRR in front of the fleet lose the route, or one of its next
// hops, in time, whatever is broken, and have it back afterwards; the client never
// loses the service.
func TestFailover(t *testing.T) {
	needRouters(t)
	out := &screen{}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	opts := Options{Binary: os.Args[0], Program: "pharos", ID: "tfail", ConfigFile: "testdata/routers.yaml", Routers: RoutersMixed, Out: out}
	report, err := RunFailover(ctx, opts, FailoverOptions{Rounds: 1, Users: true})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("\n%s", report.Text())
	for _, s := range report.Steps {
		if want := 2; s.What != stepBack && s.What != stepWarm && len(s.Took) != want {
			t.Errorf("%s: %d routers, want %d", s.What, len(s.Took), want)
		}
	}
	if report.WarmUp != time.Second {
		t.Errorf("the warm-up is %s, so that nothing is judged by it", report.WarmUp)
	}
	for _, f := range report.Failed {
		// Times are for quiet machines; that it happens at all, and not too soon, is for every one.
		if strings.Contains(f, ": not at ") || strings.Contains(f, "the warm-up is ") {
			t.Error(f)
		}
	}
	if report.Unanswered > 0 || report.Asked == 0 {
		t.Errorf("%d of %d DNS queries were not answered while the speaker was dead", report.Unanswered, report.Asked)
	}
	if _, err := findRouterTool("unbound", "unbound"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Error(err)
		}
	} else if report.Moved == 0 || report.Resolved == 0 || report.Unresolved > 0 {
		t.Errorf("through the resolver %d of %d questions were not answered, and the users were led elsewhere after %s", report.Unresolved, report.Resolved, report.Moved)
	}
	if report.Reached == 0 || report.Missed*100 > report.Reached {
		t.Errorf("the client missed the service %d times and reached it %d times", report.Missed, report.Reached)
	}
}

// TestRouterPlan: every peer of a site that has nodes here is a router, linked to each
// of them and to the transit, and what is announced is left to them.
func TestRouterPlan(t *testing.T) {
	setup, err := node.Load("testdata/routers.yaml", "")
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLayout("t", setup.Config, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range l.Routers {
		for _, s := range r.Sessions {
			got[r.Name] += s.Name + " "
			if !s.Local.IsValid() || !s.Remote.IsValid() || s.Local == s.Remote || s.LocalASN == s.ASN {
				t.Errorf("session of %s with %s: %+v", r.Name, s.Name, s)
			}
		}
	}
	for name, want := range map[string]string{
		"fra-r1": "fra1 fra2 transit ", "fra-r2": "fra1 fra2 transit ", "iad-r1": "iad1 transit ", "transit": "fra-r1 fra-r2 iad-r1 ",
	} {
		if got[name] != want {
			t.Errorf("%s has sessions with %q, want %q", name, got[name], want)
		}
	}
	routed := map[netip.Addr]bool{}
	for _, s := range l.Shared {
		routed[s.Addr] = s.Routed
	}
	if !routed[netip.MustParseAddr("198.51.100.80")] || !routed[netip.MustParseAddr("2001:db8:100::80")] || routed[netip.MustParseAddr("10.91.1.80")] {
		t.Errorf("left to the routers: %v", routed)
	}
	// Without routers nothing is.
	l, err = NewLayout("t", setup.Config, []string{"iad1"}, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Routers) != 2 {
		t.Errorf("with one node of one site: %d routers, want its own and the transit", len(l.Routers))
	}
}

func TestRouterChoice(t *testing.T) {
	setup, err := node.Load("testdata/three.yaml", "")
	if err != nil {
		t.Fatal(err)
	}
	if with, why, err := RoutersAuto.decide(setup.Config); with || why != "" || err != nil {
		t.Errorf("auto without peers: %v, %q, %v", with, why, err)
	}
	if _, _, err := RoutersBIRD.decide(setup.Config); err == nil {
		t.Error("routers of a configuration without peers were not refused")
	}
	for text, want := range map[string]RouterChoice{"auto": RoutersAuto, "none": RoutersNone, "bird": RoutersBIRD, "frr": RoutersFRR, "mixed": RoutersMixed} {
		if got, err := ParseRouterChoice(text); got != want || err != nil {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	if _, err := ParseRouterChoice("cisco"); err == nil {
		t.Error("an unknown kind of router was taken")
	}
}
