package health

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var scopeCmp = cmp.Comparer(func(a, b Scope) bool { return a == b })

// standing is a valid register.
func standing(text string, order Order, counter uint64, writer string) Override {
	return Override{Scope: scope(text), Order: order, Counter: counter, Writer: writer, By: "anna", Reason: "maintenance", At: t0.UTC()}
}

// drawOverride draws from few values, so that ties of every kind are common.
func drawOverride(t *rapid.T) Override {
	v := Override{
		Scope:   scope(rapid.SampledFrom([]string{"site/fra", "pool/web/iad", "prefix/192.0.2.0/24"}).Draw(t, "scope")),
		Order:   Order(rapid.IntRange(0, 3).Draw(t, "order")),
		Counter: rapid.Uint64Range(1, 3).Draw(t, "counter"),
		Writer:  rapid.SampledFrom([]string{"fra1", "iad1"}).Draw(t, "writer"),
		By:      rapid.SampledFrom([]string{"", "anna"}).Draw(t, "by"),
		Reason:  rapid.SampledFrom([]string{"", "Wartung", "Störung"}).Draw(t, "reason"),
		Keeper:  "fra",
	}
	if rapid.Bool().Draw(t, "at") {
		v.At = t0.UTC()
	}
	if rapid.Bool().Draw(t, "until") {
		v.Until = t0.Add(time.Hour).UTC()
	}
	return v
}

func setOf(t interface{ Fatal(...any) }, list ...Override) *Overrides {
	o := NewOverrides()
	for _, v := range list {
		if _, err := o.Merge(v); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// TestOverrideMergeLaws: whatever the order, grouping and repetition in which registers
// arrive, the sets and their digests are equal, and nothing that is held is older
// than anything that was seen.
func TestOverrideMergeLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.Custom(drawOverride), 1, 12).Draw(t, "registers")
		want := setOf(t, list...)
		shuffled := rapid.Permutation(list).Draw(t, "shuffled")
		cut := rapid.IntRange(0, len(list)).Draw(t, "cut")
		left, right := setOf(t, shuffled[:cut]...), setOf(t, shuffled[cut:]...)
		got := setOf(t, slices.Concat(right.All(), left.All(), right.All())...)
		if diff := cmp.Diff(want.All(), got.All(), scopeCmp); diff != "" {
			t.Fatalf("(-in one order +in another):\n%s", diff)
		}
		if want.Digest() != got.Digest() || want.Digest() == 0 {
			t.Fatalf("digests %x and %x", want.Digest(), got.Digest())
		}
		for _, v := range list {
			if held, _ := got.Get(v.Scope); held.Compare(v) < 0 {
				t.Fatalf("%+v is held in place of %+v", held, v)
			}
			if changed, _ := got.Merge(v); changed {
				t.Fatalf("merging %+v again changed something", v)
			}
		}
	})
}

// TestOverrideCompareIsAnOrder: total, so that two nodes never disagree on a winner.
func TestOverrideCompareIsAnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawOverride(t), drawOverride(t), drawOverride(t)
		b.Scope, c.Scope = a.Scope, a.Scope
		if (a.Compare(b) == 0) != (a == b) || (a.Compare(b) > 0) != (b.Compare(a) < 0) {
			t.Fatalf("%+v and %+v", a, b)
		}
		if a.Compare(b) >= 0 && b.Compare(c) >= 0 && a.Compare(c) < 0 {
			t.Fatalf("not transitive: %+v, %+v, %+v", a, b, c)
		}
	})
}

func TestOverrideCompare(t *testing.T) {
	const s = "site/fra"
	older := standing(s, OrderDrain, 1, "zzz1")
	for i, v := range []Override{
		standing(s, OrderNone, 2, "fra1"),
		standing(s, OrderUp, 2, "fra1"),
		standing(s, OrderDown, 2, "fra1"),
		standing(s, OrderDrain, 2, "fra1"),
		standing(s, OrderDrain, 2, "iad1"),
		standing(s, OrderNone, 3, "fra1"),
	} {
		if v.Compare(older) <= 0 {
			t.Errorf("step %d: %+v does not replace %+v", i, v, older)
		}
		older = v
	}
}

func TestOverrideWrite(t *testing.T) {
	o := setOf(t, standing("service/web", OrderDown, 41, "iad1"))
	got, err := o.Write(Override{Scope: scope("pool/web/fra"), Order: OrderDrain, Counter: 7, Writer: "fra1", At: time.Now(), Keeper: "sin"})
	if err != nil || got.Counter != 42 || got.Keeper != "fra" || got.At.Location() != time.UTC {
		t.Errorf("want a counter above everything seen and the scope's site as keeper, got %+v, %v", got, err)
	}
	if held, ok := o.Get(got.Scope); !ok || held != got {
		t.Errorf("held %+v", held)
	}
	cleared, err := o.Write(Override{Scope: got.Scope, Writer: "fra1"})
	if err != nil || cleared.Counter != 43 {
		t.Errorf("clear: %+v, %v", cleared, err)
	}
	if list := o.Standing(); len(list) != 1 || list[0].Scope != scope("service/web") {
		t.Errorf("standing: %v", list)
	}
	if len(o.All()) != 2 || o.Len() != 2 {
		t.Errorf("a cleared register must stay, got %v", o.All())
	}
	if changed, _ := o.Merge(got); changed {
		t.Error("a cleared order came back")
	}
	if _, err := o.Write(Override{Scope: scope("site/fra"), Order: OrderUp}); !errors.Is(err, ErrOverride) {
		t.Errorf("without a writer: %v", err)
	}
	if _, err := o.Write(Override{Scope: scope("prefix/192.0.2.0/24"), Order: OrderUp, Writer: "fra1", Until: t0}); !errors.Is(err, ErrOverride) {
		t.Errorf("an end without a keeper: %v", err)
	}
}

// TestForgedCounter: a register at the limit blocks its own scope and no other.
func TestOverrideForgedCounter(t *testing.T) {
	o := NewOverrides()
	if _, err := o.Merge(standing("site/fra", OrderDown, MaxOverrideCounter+1, "evil")); !errors.Is(err, ErrOverride) || o.Len() != 0 {
		t.Errorf("above the limit: %v", err)
	}
	o = setOf(t, standing("site/iad", OrderDrain, 5, "iad1"), standing("site/fra", OrderDown, MaxOverrideCounter, "evil"))
	if v, err := o.Write(Override{Scope: scope("site/iad"), Writer: "iad1"}); err != nil || v.Counter != 6 {
		t.Errorf("another scope: %+v, %v", v, err)
	}
	if _, err := o.Write(Override{Scope: scope("site/fra"), Writer: "iad1"}); !errors.Is(err, ErrOverride) {
		t.Errorf("its own: %v", err)
	}
}

func TestOverrideRefused(t *testing.T) {
	for name, change := range map[string]func(*Override){
		"no scope":          func(v *Override) { v.Scope = Scope{} },
		"an unknown kind":   func(v *Override) { v.Scope.Kind = 9 },
		"a field too many":  func(v *Override) { v.Scope.Service = "web" },
		"a bad name":        func(v *Override) { v.Scope.Site = "../x" },
		"an unknown order":  func(v *Override) { v.Order = 4 },
		"no counter":        func(v *Override) { v.Counter = 0 },
		"a counter beyond":  func(v *Override) { v.Counter = math.MaxUint64 },
		"no writer":         func(v *Override) { v.Writer = "" },
		"a long writer":     func(v *Override) { v.Writer = strings.Repeat("a", MaxObserverLen+1) },
		"a long by":         func(v *Override) { v.By = strings.Repeat("a", MaxOverrideBy+1) },
		"a long reason":     func(v *Override) { v.Reason = strings.Repeat("é", MaxOverrideReason/2+1) },
		"a line break":      func(v *Override) { v.Reason = "a\nb" },
		"an escape":         func(v *Override) { v.By = "\x1b[2J" },
		"text backwards":    func(v *Override) { v.By = "\u202eanna" },
		"not UTF-8":         func(v *Override) { v.Reason = "\xff" },
		"a keeper no name":  func(v *Override) { v.Keeper = "Fra!" },
		"no keeper":         func(v *Override) { v.Until = t0 },
		"a time far ahead":  func(v *Override) { v.At = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) },
		"an end far behind": func(v *Override) { v.Until, v.Keeper = time.Date(3, 1, 1, 0, 0, 0, 0, time.UTC), "fra" },
	} {
		v := standing("site/fra", OrderDrain, 1, "fra1")
		change(&v)
		o := setOf(t, standing("site/iad", OrderUp, 1, "fra1"))
		before := o.Digest()
		if changed, err := o.Merge(v); changed || !errors.Is(err, ErrOverride) || o.Digest() != before {
			t.Errorf("%s: got %v, %v", name, changed, err)
		}
		if b, err := v.AppendBinary([]byte("x")); !errors.Is(err, ErrOverride) || string(b) != "x" {
			t.Errorf("%s: encoded as %x, %v", name, b, err)
		}
	}
}

func TestOverridesFull(t *testing.T) {
	o := NewOverrides()
	for i := range MaxOverrides {
		s := Scope{Kind: ScopeSite, Site: "s" + strings.Repeat("a", i%50) + string(rune('a'+i/50%26)) + string(rune('a'+i/1300))}
		if _, err := o.Merge(Override{Scope: s, Counter: uint64(i + 1), Writer: "fra1"}); err != nil {
			t.Fatal(err)
		}
	}
	if o.Len() != MaxOverrides {
		t.Fatalf("%d scopes", o.Len())
	}
	if _, err := o.Write(Override{Scope: scope("service/new"), Writer: "fra1"}); !errors.Is(err, ErrOverridesFull) || !strings.Contains(err.Error(), "4096") {
		t.Errorf("a new scope: %v", err)
	}
	known := o.All()[7].Scope
	if v, err := o.Write(Override{Scope: known, Order: OrderDrain, Writer: "fra1"}); err != nil || v.Counter != MaxOverrides+1 {
		t.Errorf("a known one: %+v, %v", v, err)
	}
	if b, err := EncodeOverrides(o.All()); err != nil {
		t.Error(err)
	} else if list, err := ParseOverrides(b); err != nil || len(list) != MaxOverrides {
		t.Errorf("%d back from the file, %v", len(list), err)
	}
}

func TestOverridesDue(t *testing.T) {
	until := func(text string, order Order, end time.Duration, keeper string) Override {
		v := standing(text, order, 1, "fra1")
		v.Keeper = keeper
		if end != 0 {
			v.Until = t0.Add(end)
		}
		return v
	}
	o := setOf(t,
		until("site/fra", OrderDrain, time.Minute, "fra"),
		until("site/iad", OrderDrain, 2*time.Minute, "iad"),
		until("service/web", OrderDown, 0, "fra"),
		until("service/db", OrderNone, time.Minute, "fra"),
		until("prefix/192.0.2.0/24", OrderUp, time.Minute, "fra"),
	)
	for _, tt := range []struct {
		site  string
		after time.Duration
		want  string
	}{
		{"fra", time.Minute - 1, ""},
		{"fra", time.Minute, "site/fra prefix/192.0.2.0/24"},
		{"fra", 10 * time.Minute, "site/fra prefix/192.0.2.0/24"},
		{"fra", 12 * time.Minute, "site/fra site/iad prefix/192.0.2.0/24"},
		{"iad", time.Minute, ""},
		{"iad", 2 * time.Minute, "site/iad"},
		{"iad", 11*time.Minute - 1, "site/iad"},
		{"iad", 11 * time.Minute, "site/fra site/iad prefix/192.0.2.0/24"},
		{"sin", 11*time.Minute - 1, ""},
	} {
		var got []string
		for _, v := range o.Due(tt.site, t0.Add(tt.after)) {
			got = append(got, v.Scope.String())
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s after %s: got %v, want %s", tt.site, tt.after, got, tt.want)
		}
	}
}

func TestOverridesDigest(t *testing.T) {
	o := NewOverrides()
	if o.Digest() != 0 {
		t.Error("the empty set has a digest")
	}
	last := uint64(0)
	for _, v := range []Override{
		standing("site/fra", OrderDrain, 1, "fra1"),
		standing("site/iad", OrderDrain, 1, "fra1"),
		standing("site/fra", OrderNone, 2, "fra1"),
		standing("site/fra", OrderNone, 3, "fra1"),
	} {
		if changed, err := o.Merge(v); !changed || err != nil {
			t.Fatal(changed, err)
		}
		if d := o.Digest(); d == last || d == 0 {
			t.Errorf("after %+v: %x again", v, d)
		} else {
			last = d
		}
	}
}

func TestOverrideHistory(t *testing.T) {
	drain := standing("site/fra", OrderDrain, 1, "fra1")
	clearing := standing("site/fra", OrderNone, 2, "fra1")
	down := standing("service/web", OrderDown, 3, "iad1")
	never := standing("service/db", OrderDown, 9, "iad1")
	lost := standing("site/sin", OrderDown, 4, "iad1") // written, not acknowledged
	var h History
	h.Acknowledged(drain)
	h.Acknowledged(clearing)
	h.Acknowledged(down)
	h.Wrote(lost)
	for _, tt := range []struct {
		name string
		set  []Override
		want string // one word of each sentence
	}{
		{"all held", []Override{clearing, down}, ""},
		{"an order that was not acknowledged survived", []Override{clearing, down, lost}, ""},
		{"resurrected", []Override{drain, down}, "came back"},
		{"the clearing forgotten", []Override{down}, "can come back"},
		{"an order lost", []Override{clearing}, "lost service/web down"},
		{"from nowhere", []Override{clearing, down, never}, "nobody wrote"},
		{"wiped", nil, "lost service/web|lost the clearing"},
	} {
		got := h.Check("fra1", tt.set)
		words := strings.FieldsFunc(tt.want, func(r rune) bool { return r == '|' })
		if len(got) != len(words) {
			t.Errorf("%s: got %q", tt.name, got)
			continue
		}
		for i, w := range words {
			if !strings.Contains(got[i], w) {
				t.Errorf("%s: got %q, want %q in it", tt.name, got[i], w)
			}
		}
	}
}

func BenchmarkOverridesDigest(b *testing.B) {
	o := NewOverrides()
	for i := range 1000 {
		v := standing("site/s"+strings.Repeat("a", i%50)+string(rune('a'+i/50)), OrderDrain, 1, "fra1")
		if _, err := o.Merge(v); err != nil {
			b.Fatal(err)
		}
	}
	v := standing("site/fra", OrderDrain, 1, "fra1")
	for b.Loop() {
		v.Counter++
		o.Merge(v)
		o.Digest()
	}
}
