package bgp

import (
	"errors"
	"maps"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/pharos-lb/pharos/bgp/internal/engine"
)

// fakeTable is a table in memory whose operations on some prefixes fail.
type fakeTable struct {
	routes map[netip.Prefix]engine.Path
	broken map[netip.Prefix]bool
	unread bool
	done   []string
}

var errBroken = errors.New("broken")

func (f *fakeTable) Prepare(_, _ []engine.Path) error { return errBroken }

func (f *fakeTable) Paths() ([]engine.Path, error) {
	if f.unread {
		return nil, errBroken
	}
	out := []engine.Path{}
	for _, r := range f.routes {
		out = append(out, r)
	}
	return out, nil
}

func (f *fakeTable) Announce(r engine.Path) error {
	f.done = append(f.done, "announce "+r.Prefix.String())
	if f.broken[r.Prefix] {
		return errBroken
	}
	f.routes[r.Prefix] = r
	return nil
}

func (f *fakeTable) Withdraw(p netip.Prefix) error {
	f.done = append(f.done, "withdraw "+p.String())
	if f.broken[p] {
		return errBroken
	}
	delete(f.routes, p)
	return nil
}

// toPeer is what one eBGP peer makes of routes.
func toPeer(routes []Route) (out []engine.Path) {
	c := Config{ASN: 64500}
	for _, r := range routes {
		out = append(out, c.path(r, []Peer{{Address: netip.MustParseAddr("192.0.2.254"), ASN: 64496}}))
	}
	return out
}

func byPrefix(routes []engine.Path) map[netip.Prefix]engine.Path {
	out := map[netip.Prefix]engine.Path{}
	for _, r := range routes {
		out[r.Prefix] = r
	}
	return out
}

func TestReconcileProperties(t *testing.T) {
	base := Config{NextHop4: netip.MustParseAddr("192.0.2.1")}
	rapid.Check(t, func(t *rapid.T) {
		routes := rapid.SliceOf(rapid.Custom(genRoute))
		wished, _ := resolve(base, routes.Draw(t, "desired"))
		there, _ := resolve(base, routes.Draw(t, "installed"))
		desired, before := toPeer(wished), toPeer(there)
		f := &fakeTable{routes: byPrefix(before), broken: map[netip.Prefix]bool{}}
		for _, p := range rapid.SliceOfN(rapid.Custom(genPrefix), 0, 3).Draw(t, "broken") {
			f.broken[p] = true
		}
		want, had := byPrefix(desired), byPrefix(before)
		status, changes, err := reconcile(f, desired)
		if err != nil {
			t.Fatal(err)
		}
		if changes != len(f.done) {
			t.Fatalf("%d changes are reported, %d made", changes, len(f.done))
		}
		said := map[netip.Prefix]RouteStatus{}
		for _, s := range status {
			said[s.Prefix] = s
		}
		union := maps.Clone(want)
		maps.Copy(union, had)
		for p := range union {
			got, installed := f.routes[p]
			wanted, isWanted := want[p]
			if f.broken[p] {
				// Left as it was, and an error unless nothing was to do.
				if old, ok := had[p]; ok != installed || (ok && !old.Equal(got)) {
					t.Fatalf("%s changed although it is broken", p)
				}
				needless := isWanted && installed && wanted.Equal(got)
				if needless != (said[p].Error == "") || said[p].Installed != installed {
					t.Fatalf("%s is broken, status %+v", p, said[p])
				}
				continue
			}
			if installed != isWanted || (isWanted && !got.Equal(wanted)) {
				t.Fatalf("%s: installed %+v (%v), want %+v (%v)", p, got, installed, wanted, isWanted)
			}
			if isWanted && (!said[p].Installed || said[p].Error != "") {
				t.Fatalf("%s: status %+v", p, said[p])
			}
			if _, ok := said[p]; ok && !isWanted {
				t.Fatalf("%s is gone, but has status %+v", p, said[p])
			}
		}
		// The second time nothing is left to do, except what is broken.
		f.broken, f.done = nil, nil
		if _, _, err = reconcile(f, desired); err != nil {
			t.Fatal(err)
		}
		f.done = nil
		if _, changes, _ = reconcile(f, desired); changes != 0 {
			t.Fatalf("reconciling what is reconciled did %v", f.done)
		}
	})
}

func TestReconcileOrder(t *testing.T) {
	whole, half := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.2.0/25")
	f := &fakeTable{routes: byPrefix([]engine.Path{{Prefix: whole}})}
	if _, _, err := reconcile(f, []engine.Path{{Prefix: half}}); err != nil {
		t.Fatal(err)
	}
	want := []string{"announce 192.0.2.0/25", "withdraw 192.0.2.0/24"}
	if diff := cmp.Diff(want, f.done); diff != "" {
		t.Errorf("make before break (-want +got):\n%s", diff)
	}
}

func TestReconcileUnreadable(t *testing.T) {
	f := &fakeTable{unread: true}
	_, changes, err := reconcile(f, []engine.Path{{Prefix: anycast}})
	if !errors.Is(err, errBroken) || changes != 0 || len(f.done) != 0 {
		t.Errorf("reconcile = %d changes, %v; did %v", changes, err, f.done)
	}
}

func TestResolve(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	both := Config{NextHop4: v4, NextHop6: v6}
	for _, tc := range []struct {
		name    string
		config  Config
		routes  []Route
		want    []Route
		refused []RouteStatus
	}{
		{
			name: "next hops by family, sorted by prefix", config: both,
			routes: []Route{{Prefix: anycast6}, {Prefix: anycast}},
			want:   []Route{{Prefix: anycast, NextHop: v4}, {Prefix: anycast6, NextHop: v6}},
		},
		{
			name: "own next hop", config: both,
			routes: []Route{{Prefix: anycast, NextHop: netip.MustParseAddr("192.0.2.9")}},
			want:   []Route{{Prefix: anycast, NextHop: netip.MustParseAddr("192.0.2.9")}},
		},
		{
			name: "IPv6 without a next hop", config: Config{NextHop4: v4},
			routes: []Route{{Prefix: anycast6}, {Prefix: anycast}},
			want:   []Route{{Prefix: anycast, NextHop: v4}},
			refused: []RouteStatus{
				{Prefix: anycast6, Error: "no next hop of its address family is configured"},
			},
		},
		{
			name: "next hop of the other family", config: both,
			routes:  []Route{{Prefix: anycast, NextHop: v6}},
			refused: []RouteStatus{{Prefix: anycast, Error: "next hop 2001:db8::1 does not fit the prefix"}},
		},
		{
			name: "masked, once, communities sorted and once", config: both,
			routes: []Route{
				{Prefix: netip.MustParsePrefix("192.0.2.77/24"), Attributes: Attributes{Communities: []uint32{3, 1, 3}}},
				{Prefix: anycast},
			},
			want: []Route{{Prefix: anycast, NextHop: v4, Attributes: Attributes{Communities: []uint32{1, 3}}}},
		},
		{
			name: "default routes and nonsense", config: both,
			routes: []Route{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}, {Prefix: netip.MustParsePrefix("::/0")}, {}},
			refused: []RouteStatus{
				{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Error: "a default route is never announced"},
				{Prefix: netip.MustParsePrefix("::/0"), Error: "a default route is never announced"},
				{Error: "not a prefix"},
			},
		},
		{
			name: "too many communities", config: both,
			routes:  []Route{{Prefix: anycast, Attributes: Attributes{Communities: make([]uint32, 65)}}},
			refused: []RouteStatus{{Prefix: anycast, Error: "65 communities, at most 64"}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, refused := resolve(tc.config, tc.routes)
			opts := cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}
			if diff := cmp.Diff(tc.want, got, opts); diff != "" {
				t.Errorf("ready (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.refused, refused, opts); diff != "" {
				t.Errorf("refused (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResolveLimit(t *testing.T) {
	var routes []Route
	for i := range MaxRoutes + 3 {
		routes = append(routes, Route{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)})
	}
	ready, refused := resolve(Config{NextHop4: netip.MustParseAddr("192.0.2.1")}, routes)
	if len(ready) != MaxRoutes || len(refused) != 3 {
		t.Errorf("%d ready and %d refused, want %d and 3", len(ready), len(refused), MaxRoutes)
	}
}
