package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
)

// fakeNode is the script command `fakenode SOCKET`: the admin API of a made-up
// node until the script ends. Orders are kept as a node keeps them. One on site sin
// breaks a minimum; one on service db is held by two of five nodes only, and not by
// this one if its reason is "disk full"; syd1 is silent unless the last order's reason is "all answer"; a pool more
// is there once 'pool/web/*' was asked about.
func fakeNode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fakenode SOCKET")
	}
	fleet := newFakeFleet()
	server, err := admin.New(fleet.options(args[0]))
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	ts.Defer(func() {
		cancel()
		ts.Check(<-done)
		server.Close()
	})
}

// fakeFleet is what the fake node knows.
type fakeFleet struct {
	mu     sync.Mutex
	set    *health.Overrides // guarded by mu, as is keys
	keys   []string
	known  []health.Scope
	report admin.Status
	all    bool // every node answers
	looked int  // how often the stages were asked for
}

func newFakeFleet() *fakeFleet {
	f := &fakeFleet{set: health.NewOverrides(), keys: []string{"3f9a01c4", "77e0d2b1"}}
	for _, text := range []string{
		"site/fra", "site/iad", "site/sin", "service/web", "service/db", "pool/web/fra", "pool/web/iad",
		"backend/web/fra/10.0.1.10:8080", "backend/web/fra/10.0.1.11:8080", "prefix/192.0.2.0/24",
	} {
		s, err := health.ParseScope(text)
		if err != nil {
			panic(err)
		}
		f.known = append(f.known, s)
	}
	f.report = admin.Status{Node: "fra1", Site: "fra", State: "serving", Sites: 3, Heard: 3, Members: []admin.MemberStatus{
		{Name: "fra1", Site: "fra", Version: "1.2", State: "present", Self: true, Heard: true, Config: "abc", OverridesInSync: true, Signed: true, Keys: []string{"3f9a01c4"}},
		{Name: "iad1", Site: "iad", Version: "1.2", State: "present", Heard: true, AgeSeconds: 0.4, Config: "def", OverridesInSync: true, Signed: true, Keys: []string{"3f9a01c4"}},
		{Name: "sin1", Site: "sin", Version: "1.1", State: "dead", AgeSeconds: 90, Config: "abc", Abstains: "its reports are stale"},
		{Name: "syd1", Site: "syd", State: admin.MemberAbsent, AgeSeconds: -1, Abstains: "never heard"},
	}}
	return f
}

func (f *fakeFleet) options(socket string) admin.Options {
	return admin.Options{
		Socket:    socket,
		Status:    func() *admin.Status { return &f.report },
		Override:  f.override,
		Overrides: f.overrides,
		Drains:    f.drains,
		Check:     f.check,
		Keys:      f.keyStatus,
		ChangeKeys: func(c admin.KeyChange) (*admin.KeyStatus, error) {
			return f.changeKeys(c)
		},
		Ready:    func() error { return nil },
		Gatherer: prometheus.NewRegistry(),
		Log:      slog.New(slog.DiscardHandler),
	}
}

func (f *fakeFleet) override(_ context.Context, r admin.OverrideRequest) (*admin.OverrideResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &admin.OverrideResult{DryRun: r.DryRun, Order: r.Order, Local: r.Local, Durable: r.Reason != "disk full", Acknowledged: 3, Of: 5, TookMS: 42}
	var scopes []health.Scope
	for _, pattern := range r.Scopes {
		found, err := health.MatchScopes(pattern, f.known)
		if err != nil {
			return nil, err
		}
		scopes = append(scopes, found...)
	}
	for _, s := range scopes {
		m := admin.OverrideMatch{Scope: s.String()}
		if v, ok := f.set.Get(s); ok && v.Order != health.OrderNone {
			st := admin.NewOverrideStatus(v)
			m.Standing = &st
		}
		out.Matched = append(out.Matched, m)
		switch {
		case r.Order == health.OrderNone:
		case s.Site == "sin":
			out.Breaks = append(out.Breaks, "prefix 192.0.2.0/24: 0 sites left, min_sites is 1")
		case s.Service == "db":
			out.Acknowledged = 2
		case s.Kind == health.ScopeSite:
			out.Effects = append(out.Effects, fmt.Sprintf("service web: %s is no longer answered", s.Site))
		}
	}
	if r.DryRun {
		if slices.Contains(r.Scopes, "pool/web/*") { // a reload right after the preview
			f.known = append(f.known, health.Scope{Kind: health.ScopePool, Service: "web", Site: "gru"})
		}
		return out, nil
	}
	if len(out.Breaks) > 0 && !r.Force {
		return nil, errors.New(strings.Join(out.Breaks, "\n"))
	}
	for _, s := range scopes {
		v := health.Override{Scope: s, Order: r.Order, Writer: "fra1", By: r.By, Reason: r.Reason, At: time.Now(), Keeper: "fra"}
		if r.For > 0 {
			v.Until = v.At.Add(r.For)
		}
		f.looked, f.all = 0, r.Reason == "all answer"
		v, err := f.set.Write(v)
		if err != nil {
			return nil, err
		}
		out.Written = append(out.Written, admin.NewOverrideStatus(v))
	}
	return out, nil
}

func (f *fakeFleet) overrides(cleared bool) *admin.OverrideList {
	f.mu.Lock()
	defer f.mu.Unlock()
	list, all := &admin.OverrideList{Acknowledged: 5, Of: 5}, f.set.Standing()
	if cleared {
		all = f.set.All()
	}
	for _, v := range all {
		list.Overrides = append(list.Overrides, admin.NewOverrideStatus(v))
		if v.Scope.Service == "db" {
			list.Acknowledged = 2
		}
	}
	return list
}

// drains has what is drained at fra, and what comes back there, go a stage further at each question; what is drained
// at sin never ends.
func (f *fakeFleet) drains(context.Context) *admin.DrainList {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := &admin.DrainList{Drains: []admin.DrainStatus{}, Silent: []string{"syd1"}, Behind: []string{}}
	if f.all {
		list.Silent = []string{}
	}
	f.looked++
	standing := f.set.Standing()
	at := admin.DrainStatus{Node: "fra1", Site: "fra", Scope: "site/fra", What: "prefix 192.0.2.0/24"}
	switch drained := slices.ContainsFunc(standing, func(v health.Override) bool { return v.Scope.String() == "site/fra" }); {
	case drained && f.looked <= 2:
		at.Stage, at.Why, at.LeftMS = "unanswered", "draining: no longer answered, resolvers still know it", 30_000-500*int64(f.looked)
	case drained && f.looked <= 4:
		at.Stage, at.Why, at.Open, at.LeftMS = "finishing", "drained: withdrawn, connections are finishing", 5-f.looked, 300_000
	case drained:
		at.Stage, at.Why = admin.StageDone, "drained by order"
	case f.looked <= 2:
		at.Scope, at.Stage, at.Why, at.LeftMS = "", admin.StageReturning, "not announced yet: warming up", 2000
	default:
		at.What = ""
	}
	if at.What != "" {
		list.Drains = append(list.Drains, at)
	}
	if slices.ContainsFunc(standing, func(v health.Override) bool { return v.Scope.String() == "site/sin" }) {
		list.Drains = append(list.Drains, admin.DrainStatus{Node: "sin1", Site: "sin", Scope: "site/sin", What: "service web", Stage: "finishing", Why: "connections are finishing", Open: 1})
	}
	return list
}

func (f *fakeFleet) check(_ context.Context, r admin.CheckRequest) (*admin.CheckResult, error) {
	out := &admin.CheckResult{Node: "fra1", Local: r.Local}
	half := 50
	for _, t := range []admin.TargetCheck{
		{
			Target: "web/fra/backend/10.0.1.10:8080", Service: "web", Site: "fra", Address: netip.MustParseAddrPort("10.0.1.10:8080"),
			Status: "up", Why: "probes agree", Up: 1, Abstain: 1, Override: "drained by anna (unix): power",
			Observers: []admin.Observation{
				{Node: "fra1", Site: "fra", Statement: "up", Fresh: true, AgeSeconds: 0.2, Evidence: &admin.Evidence{Code: 200, AgeSeconds: 1.2, LatencyMS: 3.4, Streak: 812, Weight: &half}},
				{Node: "fra2", Site: "fra", Statement: "down", AgeSeconds: 31, Abstains: "its reports are stale", NoAnswer: true},
			},
		},
		{
			Target: "web/iad/vip/203.0.113.80:443", Service: "web", Site: "iad", Address: netip.MustParseAddrPort("203.0.113.80:443"),
			Status: "down", Why: "probes agree", Down: 2,
			Observers: []admin.Observation{
				{Node: "fra1", Site: "fra", Statement: "down", Fresh: true, Evidence: &admin.Evidence{Error: "connection refused", AgeSeconds: 0.4, LatencyMS: 91, Streak: 7, Flapping: true}},
				{Node: "sin1", Site: "sin", Statement: "none", Fresh: true},
			},
		},
	} {
		if r.Target == "" || admin.MatchTarget(r.Target, t.Target) {
			out.Targets = append(out.Targets, t)
		}
	}
	out.Matching = len(out.Targets)
	if out.Matching == 0 {
		return nil, fmt.Errorf("no target matches %q", r.Target)
	}
	return out, nil
}

func (f *fakeFleet) keyStatus() *admin.KeyStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &admin.KeyStatus{File: "gossip.key", Keys: f.keys, Members: []admin.MemberKeys{
		{Name: "fra1", Self: true, State: "present", Keys: f.keys},
		{Name: "iad1", State: "present", Keys: []string{"3f9a01c4", "77e0d2b1"}},
	}}
}

func (f *fakeFleet) changeKeys(c admin.KeyChange) (*admin.KeyStatus, error) {
	f.mu.Lock()
	at := slices.Index(f.keys, c.Use+c.Remove)
	switch {
	case c.Add != "":
		f.keys = append(slices.Clone(f.keys), "aaaa5555")
	case at < 0:
		f.mu.Unlock()
		return nil, fmt.Errorf("no key %q in the ring", c.Use+c.Remove)
	case c.Use == "aaaa5555" && !c.Force:
		f.mu.Unlock()
		return nil, errors.New("not held by iad1; add --force")
	default:
		rest := slices.Delete(slices.Clone(f.keys), at, at+1)
		if c.Use != "" {
			rest = slices.Insert(rest, 0, c.Use)
		}
		f.keys = rest
	}
	f.mu.Unlock()
	return f.keyStatus(), nil
}
