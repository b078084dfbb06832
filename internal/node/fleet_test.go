package node

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/health/probe"
)

// Where several orders cover one thing the one that counts is shown, not the narrowest.
func TestOrderThatCountsIsShown(t *testing.T) {
	target := health.Target{Kind: health.KindBackend, Service: "web", Site: "fra", Addr: netip.MustParseAddrPort("10.0.1.10:80")}
	const backend, pool, service, site = "backend/web/fra/10.0.1.10:80", "pool/web/fra", "service/web", "site/fra"
	for _, tt := range []struct {
		orders             map[string]health.Order
		onTarget, onPool   string // by whom
		onBackend, another string
	}{
		{nil, "", "", "", ""},
		{map[string]health.Order{backend: health.OrderUp}, backend, "", backend, ""},
		{map[string]health.Order{backend: health.OrderUp, pool: health.OrderUp}, backend, pool, backend, ""},
		{map[string]health.Order{backend: health.OrderUp, site: health.OrderDrain}, site, site, backend, ""},
		{map[string]health.Order{pool: health.OrderDrain, service: health.OrderDown, site: health.OrderUp}, service, service, "", service},
		{map[string]health.Order{backend: health.OrderDown, pool: health.OrderDrain, site: health.OrderDrain}, backend, pool, backend, ""},
	} {
		var standing []health.Override
		for text, order := range tt.orders {
			scope, err := health.ParseScope(text)
			if err != nil {
				t.Fatal(err)
			}
			standing = append(standing, health.Override{Scope: scope, Order: order, By: "<" + text + ">"})
		}
		orders := ordersOn(standing)
		for what, c := range map[string]struct{ got, want string }{
			"a target": {orders.onTarget(target), tt.onTarget}, "the pool": {orders.onPool("web", "fra"), tt.onPool},
			"the backend alone": {orders.onBackend(target), tt.onBackend}, "another site": {orders.onPool("web", "iad"), tt.another},
		} {
			if (c.got == "") != (c.want == "") || !strings.Contains(c.got, c.want) {
				t.Errorf("%v: on %s %q is shown, want that on %q", tt.orders, what, c.got, c.want)
			}
		}
	}
}

func TestVersionsApart(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"v1.4.2", "v1.4.2", false},
		{"v1.4.2", "1.5.0", false},
		{"v1.4.2", "v1.6.0", true},
		{"v1.4.2", "v2.4.2", true},
		{"v1.4.2-rc1", "v1.5.0+dirty", false},
		{"v1.9.0", "v1.10.0", false},
		{"v1.9.0", "v1.11.0", true},
		{"v0.1", "v0.3", true},
		{"dev", "v1.4.2", false},
		{"v1", "v9.9", false},
		{"v1.x.2", "v1.9.2", false},
		{"", "", false},
	} {
		if got := versionsApart(tt.a, tt.b); got != tt.want {
			t.Errorf("%q, %q: %v, want %v", tt.a, tt.b, got, tt.want)
		}
		if got := versionsApart(tt.b, tt.a); got != tt.want {
			t.Errorf("%q, %q: %v, want %v", tt.b, tt.a, got, tt.want)
		}
	}
}

func TestFleetTroubles(t *testing.T) {
	setup := parse(t, twoSites)
	for _, tt := range []struct {
		name   string
		change func(*admin.Status)
		want   []string
	}{
		{"all well", func(*admin.Status) {}, nil},
		{"doubt", func(st *admin.Status) { st.Doubt = "it stood still" }, []string{"this node doubts itself: it stood still"}},
		{"minority", func(st *admin.Status) { st.Minority, st.Heard, st.Sites = true, 1, 3 }, []string{"only 1 of 3 sites are heard: verdicts on other sites are frozen"}},
		{"disk", func(st *admin.Status) { st.StateTrouble = "full" }, []string{"state cannot be saved: full"}},
		{"an order", func(st *admin.Status) {
			st.Overrides = []admin.OverrideStatus{{Scope: "site/a", Order: health.OrderDrain, By: "anna"}}
		}, []string{"override: site/a drained by anna"}},
		{"an order on nothing", func(st *admin.Status) {
			st.Overrides = []admin.OverrideStatus{{Scope: "site/x", Order: health.OrderDown, By: "anna", Unknown: true}}
		}, []string{"override: site/x taken down by anna (nothing here is called so)"}},
		{"an old version", func(st *admin.Status) { st.Members[1].Version = "v1.2.0" }, []string{"node b1 runs pharos v1.2.0: more than one minor version from ours"}},
		{"it abstains", func(st *admin.Status) { st.Members[1].Abstains = "doubts itself" }, []string{"what node b1 finds does not count: doubts itself"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := &admin.Status{Node: "a1", Version: "v1.4.0", Config: admin.ConfigStatus{Hash: "1"}, Members: []admin.MemberStatus{
				{Name: "a1", Self: true, Heard: true, Config: "1", Version: "v1.4.0"}, {Name: "b1", Heard: true, Config: "1", Version: "v1.4.0"},
			}}
			tt.change(st)
			if got := fleetTroubles(st, setup); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// A node doubts itself when its checks are late or its canaries are silent, and
// is connected when they answer.
func TestDoubtOf(t *testing.T) {
	for _, tt := range []struct {
		name     string
		canaries int // -1: none
		answer   bool
		late     bool
		want     doubt
	}{
		{"nothing to go by", -1, false, false, doubt{}},
		{"canaries answer", 3, true, false, doubt{connected: true}},
		{"canaries are silent", 3, false, false, doubt{cut: true, text: "none of its canaries answers, so what it finds of other sites does not count"}},
		{"checks are late", -1, false, true, doubt{late: true, text: "its checks run more than a second late, so what they find does not count"}},
		{"checks are late, canaries answer", 3, true, true, doubt{late: true, text: "its checks run more than a second late, so what they find does not count", connected: true}},
		{"both", 3, false, true, doubt{late: true, cut: true, text: "its checks run more than a second late, so what they find does not count"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				runner, err := probe.New(slowChecks(t, tt.late))
				if err != nil {
					t.Fatal(err)
				}
				parts := newParts(slog.New(slog.DiscardHandler))
				parts.start("probe", runner.Run)
				var canaries *probe.Canaries
				if tt.canaries >= 0 {
					canaries = canariesThat(t, tt.canaries, tt.answer)
					parts.start("canaries", canaries.Run)
				}
				time.Sleep(20 * time.Second)
				synctest.Wait()
				got := doubtOf(runner, canaries)
				if got != tt.want {
					t.Errorf("got %+v, want %+v", got, tt.want)
				}
				if want := tt.late; (got.flags() == health.FlagDoubt) != want {
					t.Errorf("flags %v", got.flags())
				}
				parts.stopAll(patience)
			})
		})
	}
}

// A node that may be cut off speaks of its own site, and of nothing else.
func TestCutOffSpeaksOfItsOwnSite(t *testing.T) {
	own := health.Target{Kind: health.KindBackend, Service: "web", Site: "fra"}
	other := health.Target{Kind: health.KindVIP, Service: "web", Site: "iad"}
	for _, tt := range []struct {
		name   string
		doubt  doubt
		target health.Target
		found  health.Status
		want   health.Status
	}{
		{"own site", doubt{cut: true}, own, health.StatusDown, health.StatusDown},
		{"other site, down", doubt{cut: true}, other, health.StatusDown, health.StatusUnknown},
		{"other site, up", doubt{cut: true}, other, health.StatusUp, health.StatusUnknown},
		{"other site, nothing yet", doubt{cut: true}, other, health.StatusNone, health.StatusNone},
		{"no doubt", doubt{}, other, health.StatusDown, health.StatusDown},
	} {
		if got := tt.doubt.about(tt.target, "fra", tt.found); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

// slowChecks are checks of which, if late, only a fifth can be done in time.
func slowChecks(t *testing.T, late bool) probe.Options {
	t.Helper()
	o := probe.Options{InFlight: 4, Probe: func(ctx context.Context, _ probe.Check) probe.Result {
		if late {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
		return probe.Result{}
	}}
	for i := range 20 {
		target := health.Target{Kind: health.KindBackend, Service: "web", Site: "a", Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(1000+i))}
		o.Checks = append(o.Checks, probe.Check{Target: target, Every: time.Second, Timeout: 2 * time.Second})
	}
	return o
}

func canariesThat(t *testing.T, n int, answer bool) *probe.Canaries {
	t.Helper()
	o := probe.CanaryOptions{Dial: func(context.Context, netip.AddrPort) error {
		if answer {
			return nil
		}
		return errors.New("no answer")
	}}
	for i := range n {
		o.Addresses = append(o.Addresses, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i+1)))
	}
	c, err := probe.NewCanaries(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A doubt shows in the report, the metric and the status; a stall is one, although
// no part of the node knows of it.
func TestDoubtIsShown(t *testing.T) {
	b := newDeciderBench(t, t.TempDir())
	var say doubt
	b.doubts = func() doubt { return say }
	expect := func(what, text string) {
		t.Helper()
		last := b.gossip.published[len(b.gossip.published)-1]
		if got := b.doubting.Load().text; !strings.Contains(got, text) || (got == "") != (text == "") {
			t.Errorf("%s: shown %q, want %q", what, got, text)
		}
		if on := text != ""; (last.Flags == health.FlagDoubt) != on || valueOf(t, b.metrics.doubting) != gaugeOf(on) {
			t.Errorf("%s: flags %v, metric %v", what, last.Flags, valueOf(t, b.metrics.doubting))
		}
	}
	b.pass(0)
	expect("at the start", "")
	say = doubt{late: true, text: "its checks run late"}
	b.pass(time.Millisecond)
	expect("overloaded", "late")
	say = doubt{}
	b.pass(time.Millisecond)
	expect("in time again", "")
	b.pass(time.Minute)
	expect("frozen for a minute", "stood still")
	b.pass(time.Second)
	expect("a second later", "stood still")
	b.pass(3 * time.Second)
	expect("settled", "")
}

// Every metric of a node has one name of its own, which begins with pharos_.
func TestMetricNames(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := newMetrics(reg, "test")
	watchState(reg, testState(t, t.TempDir()))
	m.reports.WithLabelValues("new").Inc()
	m.verdicts.WithLabelValues("up").Inc()
	m.reloads.WithLabelValues("ok").Inc()
	m.held.WithLabelValues("x").Set(1)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	own := 0
	for _, f := range families {
		name := f.GetName()
		if seen[name] || f.GetHelp() == "" {
			t.Errorf("%s: there twice, or without help", name)
		}
		seen[name] = true
		if strings.HasPrefix(name, "pharos_") {
			own++
		} else if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is not called pharos_…", name)
		}
	}
	if want := 19; own != want {
		t.Errorf("%d metrics of our own, want %d", own, want)
	}
}

// A configured node that gossip has never met is a member all the same: it was
// missing from `pharos members`, which then found nothing wrong.
func TestMembersHasAbsentNodes(t *testing.T) {
	s := load(t, twoSites)
	got := asConfigured([]admin.MemberStatus{{Name: "z9"}, {Name: "a1", Heard: true}}, s.Config, map[string]string{"b1": "never heard"})
	want := []admin.MemberStatus{
		{Name: "a1", Heard: true},
		{Name: "b1", Site: "b", State: admin.MemberAbsent, AgeSeconds: -1, Abstains: "never heard"},
		{Name: "z9", Abstains: "not in the configuration here"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What cannot be checked is said, and not at any length.
func TestBlindChecks(t *testing.T) {
	state := func(status health.Status, inconclusive bool) probe.State {
		target := health.Target{Kind: health.KindBackend, Service: "web", Site: "fra", Addr: netip.MustParseAddrPort("10.0.0.1:80")}
		return probe.State{Target: target, Status: status, Last: probe.Result{Inconclusive: inconclusive, Err: "no such program"}}
	}
	const line = "the check of web/fra/backend/10.0.0.1:80 cannot tell: no such program"
	for _, tt := range []struct {
		name   string
		states []probe.State
		want   []string
	}{
		{"none", nil, nil},
		{"runs", []probe.State{state(health.StatusDown, false)}, nil},
		{"odd result", []probe.State{state(health.StatusUp, true)}, nil},
		{"cannot run", []probe.State{state(health.StatusUnknown, true)}, []string{line}},
		{"many", slices.Repeat([]probe.State{state(health.StatusUnknown, true)}, 12), append(slices.Repeat([]string{line}, 10), "2 more checks cannot tell")},
	} {
		if got := blind(tt.states); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
