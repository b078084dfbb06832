package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestTables compares what the verbs print with testdata/*.golden. Run with
// -update to rewrite them, and read the diff.
func TestTables(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	fleet := newFakeFleet()
	standing := admin.OverrideStatus{
		Scope: "site/fra", Order: health.OrderDrain, By: "anna (unix)", Reason: "power supply",
		At: now.Add(-30 * time.Minute), Until: now.Add(90 * time.Minute), Writer: "fra1", Keeper: "fra", Counter: 7,
	}
	order := func(change func(*admin.OverrideResult)) func(io.Writer) error {
		r := &admin.OverrideResult{
			Order: health.OrderDown, Matched: []admin.OverrideMatch{{Scope: "site/fra", Standing: &standing}, {Scope: "site/iad"}},
			Effects: []string{"service web: fra is no longer answered", "prefix 192.0.2.0/24: withdrawn at fra"}, Acknowledged: 3, Of: 5, TookMS: 41.6,
		}
		change(r)
		return func(w io.Writer) error { return printOrder(w, r) }
	}
	check, err := fleet.check(context.Background(), admin.CheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	check.Targets[1].Since, check.Matching = now.Add(-3*time.Minute), 1002
	keys := fleet.keyStatus()
	keys.Members[1].Keys = []string{"77e0d2b1"}
	for name, show := range map[string]func(io.Writer) error{
		"order-acknowledged":    order(func(*admin.OverrideResult) {}),
		"order-minority":        order(func(r *admin.OverrideResult) { r.Acknowledged, r.TookMS = 2, 5003 }),
		"order-local":           order(func(r *admin.OverrideResult) { r.Acknowledged, r.Local, r.Durable, r.TookMS = 1, true, true, 1.234 }),
		"order-local-elsewhere": order(func(r *admin.OverrideResult) { r.Local, r.Durable = true, false }), // not on this node's disk
		"order-dry-run": order(func(r *admin.OverrideResult) {
			r.DryRun, r.Breaks = true, []string{"prefix 192.0.2.0/24: 0 sites left, min_sites is 1"}
		}),
		"order-clear":      order(func(r *admin.OverrideResult) { r.Order, r.Effects = health.OrderNone, nil }),
		"order-clear-none": order(func(r *admin.OverrideResult) { r.Order, r.Matched, r.Effects = health.OrderNone, nil, nil }),
		"overrides": func(w io.Writer) error {
			return printOverrides(w, &admin.OverrideList{Overrides: []admin.OverrideStatus{
				standing,
				{Scope: "pool/gone/iad", Order: health.OrderDown, By: "ci (tcp)", Reason: "old", Unknown: true},
				{Scope: "service/web", Order: health.OrderUp, By: "ci (tcp)", At: now, Until: now.Add(-time.Second)},
			}, Acknowledged: 4, Of: 5}, now)
		},
		"overrides-none": func(w io.Writer) error {
			return printOverrides(w, &admin.OverrideList{Acknowledged: 5, Of: 5}, now)
		},
		"check":   func(w io.Writer) error { return printCheck(w, check, now) },
		"members": func(w io.Writer) error { return printMembers(w, &fleet.report, memberTroubles(&fleet.report)) },
		"keys":    func(w io.Writer) error { return printKeys(w, keys, deafMembers(keys)) },
		"keys-none": func(w io.Writer) error {
			return printKeys(w, &admin.KeyStatus{Members: []admin.MemberKeys{{Name: "fra1", Self: true, State: "present"}}}, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := show(&got); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("(-want +got; run with -update to accept):\n%s", diff)
			}
		})
	}
}

// TestMemberTroubles: each is told once, and of a silent node nothing else.
func TestMemberTroubles(t *testing.T) {
	self := admin.MemberStatus{Name: "a1", Self: true, Version: "1", Config: "c"}
	good := admin.MemberStatus{Name: "b1", Heard: true, Version: "1", Config: "c", OverridesInSync: true}
	for name, tt := range map[string]struct {
		change func(*admin.Status, *admin.MemberStatus)
		want   string
	}{
		"nothing":       {func(*admin.Status, *admin.MemberStatus) {}, ""},
		"silent":        {func(_ *admin.Status, m *admin.MemberStatus) { *m = admin.MemberStatus{Name: "b1"} }, "not heard from"},
		"version":       {func(_ *admin.Status, m *admin.MemberStatus) { m.Version = "2" }, "runs version 2, this node 1"},
		"configuration": {func(_ *admin.Status, m *admin.MemberStatus) { m.Config = "d" }, "configuration d"},
		"orders":        {func(_ *admin.Status, m *admin.MemberStatus) { m.OverridesInSync = false }, "same orders"},
		"minority":      {func(st *admin.Status, _ *admin.MemberStatus) { st.Minority, st.Heard, st.Sites = true, 1, 3 }, "only 1 of 3 sites"},
		"doubt":         {func(st *admin.Status, _ *admin.MemberStatus) { st.Doubt = "no canary answers" }, "no canary answers"},
	} {
		st, m := &admin.Status{}, good
		tt.change(st, &m)
		st.Members = []admin.MemberStatus{self, m}
		got := memberTroubles(st)
		if tt.want == "" && len(got) != 0 || tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func TestConfirm(t *testing.T) {
	for text, want := range map[string]bool{"y\n": true, "YES\n": true, " yes ": true, "\n": false, "": false, "n\n": false, "yep\n": false, "\ny\n": false} {
		if got := confirm(strings.NewReader(text), io.Discard); got != want {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

// TestStatusShowsOrders: on the whole, and where each counts.
func TestStatusShowsOrders(t *testing.T) {
	const order = "drained by anna: power"
	st := &admin.Status{
		Overrides: []admin.OverrideStatus{{Scope: "pool/web/fra", Order: health.OrderDrain, By: "anna", Reason: "power"}},
		Services: []admin.ServiceStatus{{Name: "web", Sites: []admin.SiteStatus{{
			Site: "fra", Override: order,
			Backends: []admin.TargetStatus{
				{Address: netip.MustParseAddrPort("10.0.1.10:80"), Status: "up", Override: "held up by ben"},
				{Address: netip.MustParseAddrPort("10.0.1.11:80"), Status: "up"},
			},
		}}}},
		Routes: []admin.RouteStatus{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Override: "taken down by cleo"}},
	}
	var out bytes.Buffer
	if err := printStatus(&out, st, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"pool/web/fra  " + order + "\n", "2 of 2 up: 10.0.1.10:80 up (held up by ben) ", "(" + order + ")\n", "(taken down by cleo)\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
}
