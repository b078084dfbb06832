package health

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRestoreView(t *testing.T) {
	gone, down, up, unknown, added := backend("web", "fra", 1), backend("web", "fra", 2), vip("web", "fra"), vip("web", "iad"), vip("web", "sin")
	before := NewLayout([]Target{gone, down, up, unknown})
	saved := &View{Layout: before, Verdicts: make([]Verdict, 4)}
	for target, v := range map[Target]Verdict{
		gone:    {Status: StatusUp},
		down:    {Status: StatusDown, Since: t0.Add(-time.Hour), Why: WhyProbes, Down: 2},
		up:      {Status: StatusUp, Since: t0.Add(time.Hour), Why: WhyHeld, Up: 1},
		unknown: {Status: StatusUnknown},
	} {
		i, _ := before.Index(target)
		saved.Verdicts[i] = v
	}
	b, err := EncodeView(saved)
	if err != nil {
		t.Fatal(err)
	}
	layout := NewLayout([]Target{down, up, unknown, added})
	view, err := RestoreView(b, layout, t0)
	if err != nil {
		t.Fatal(err)
	}
	never := Verdict{Status: StatusUnknown, Why: WhyNeverProbed}
	for target, want := range map[Target]Verdict{
		down:    {Status: StatusDown, Since: t0.Add(-time.Hour), Why: WhyRestored, Restored: true},
		up:      {Status: StatusUp, Since: t0, Why: WhyRestored, Restored: true}, // a clock was wrong
		unknown: never,
		added:   never,
		gone:    {},
	} {
		if diff := cmp.Diff(want, view.Of(target)); diff != "" {
			t.Errorf("%v: %s", target, diff)
		}
	}
}

// TestRestoredUntilVotes: what came from disk stays marked until votes decide.
func TestRestoredUntilVotes(t *testing.T) {
	saved := was(webBackend, StatusUp)
	b, err := EncodeView(saved)
	if err != nil {
		t.Fatal(err)
	}
	view, err := RestoreView(b, webLayout, t0)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, nodes string
		want        Verdict
	}{
		{"silence", "fra1:-", Verdict{Status: StatusUp, Since: saved.At, Why: WhyRestored, Restored: true, Abstain: 1}},
		{"a tie", "fra1:up fra2:down", Verdict{Status: StatusUp, Since: saved.At, Why: WhyRestored, Restored: true, Up: 1, Down: 1}},
		{"confirmed", "fra1:up", Verdict{Status: StatusUp, Since: saved.At, Why: WhyProbes, Up: 1}},
		{"contradicted", "fra1:down", Verdict{Status: StatusDown, Since: t0, Why: WhyProbes, Down: 1}},
	} {
		got := hear(webBackend, tt.nodes).Judge(view, Moment{Now: t0})
		if diff := cmp.Diff(tt.want, got.Of(webBackend)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
		later := hear(webBackend, "fra1:-").Judge(got, Moment{Now: t0}).Of(webBackend)
		if later.Restored != tt.want.Restored {
			t.Errorf("%s: then silence: restored %v, want %v", tt.name, later.Restored, tt.want.Restored)
		}
	}
}

func TestRestoreViewRefuses(t *testing.T) {
	good, err := EncodeView(was(webBackend, StatusUp))
	if err != nil {
		t.Fatal(err)
	}
	// edit changes the body and signs it again.
	edit := func(f func(b []byte) []byte) []byte {
		body := f(bytes.Clone(good[:len(good)-viewTail]))
		return binary.BigEndian.AppendUint32(body, viewChecksum(body))
	}
	first := viewHead // the first verdict: status, kind, since, service…
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"empty", nil, "not a saved view"},
		{"something else", []byte(strings.Repeat("x", 100)), "not a saved view"},
		{"cut off", good[:len(good)-1], "checksum"},
		{"count too large", edit(func(b []byte) []byte { b[first-1] = 2; return b }), "cut off"},
		{"absurd count", edit(func(b []byte) []byte { b[first-4] = 255; return b }), "cut off"},
		{"bytes too many", edit(func(b []byte) []byte { return append(b, 0) }), "1 bytes too many"},
		{"impossible status", edit(func(b []byte) []byte { b[first] = 9; return b }), "does not exist"},
		{"impossible kind", edit(func(b []byte) []byte { b[first+1] = 9; return b }), "does not exist"},
		{"name too long", edit(func(b []byte) []byte { b[first+10] = 255; return b }), "cut off in a name"},
		{"no address", edit(func(b []byte) []byte { b[len(b)-1] = 'x'; return b }), "x"},
	} {
		v, err := RestoreView(tt.b, webLayout, t0)
		if v != nil || !errors.Is(err, ErrView) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, %v; want %q", tt.name, v, err, tt.want)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if v, err := RestoreView(bad, webLayout, t0); v != nil || err == nil {
			t.Errorf("accepted a flipped bit in byte %d", i)
		}
	}
	var version *VersionError
	_, err = RestoreView(edit(func(b []byte) []byte { b[len(viewMagic)] = 2; return b }), webLayout, t0)
	if !errors.As(err, &version) {
		t.Errorf("got %v, want a VersionError", err)
	}
}

func TestEncodeViewEdges(t *testing.T) {
	if b, err := EncodeView(nil); err != nil {
		t.Error(err)
	} else if v, err := RestoreView(b, nil, t0); err != nil || len(v.Verdicts) != 0 {
		t.Errorf("nothing saved: %v, %v", v, err)
	}
	long := backend(strings.Repeat("x", MaxTargetNameLen+1), "fra", 1)
	v := &View{Layout: NewLayout([]Target{long}), Verdicts: []Verdict{{Status: StatusUp}}}
	if _, err := EncodeView(v); err == nil {
		t.Error("encoded a name that does not fit")
	}
	for _, tt := range []struct {
		t    time.Time
		want int64
	}{
		{time.Time{}, math.MinInt64},
		{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), math.MaxInt64},
		{t0, t0.UnixNano()},
		{time.Unix(0, math.MinInt64+1), math.MinInt64 + 1},
		{time.Unix(0, math.MaxInt64-1), math.MaxInt64 - 1},
	} {
		if got := unixNano(tt.t); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.t, got, tt.want)
		}
	}
}

// FuzzRestoreView: whatever is accepted is a whole view of restored or unknown
// verdicts, and survives being saved again.
func FuzzRestoreView(f *testing.F) {
	for _, s := range []Status{StatusNone, StatusUp, StatusDown} {
		b, err := EncodeView(was(webBackend, s))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:len(b)-viewTail])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b := binary.BigEndian.AppendUint32(bytes.Clone(body), viewChecksum(body))
		v, err := RestoreView(b, webLayout, t0)
		if err != nil {
			return
		}
		for i, verdict := range v.Verdicts {
			if known := verdict.Status == StatusUp || verdict.Status == StatusDown; known != verdict.Restored || known == (verdict.Status == StatusUnknown) {
				t.Fatalf("verdict %d: %+v", i, verdict)
			}
		}
		again, err := EncodeView(v)
		if err != nil {
			t.Fatal(err)
		}
		w, err := RestoreView(again, webLayout, t0)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(v.Verdicts, w.Verdicts); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestChanged(t *testing.T) {
	a, b, c := backend("a", "fra", 1), backend("b", "fra", 1), backend("c", "fra", 1)
	view := func(targets ...Target) *View {
		l := NewLayout(targets)
		v := &View{Layout: l, Verdicts: make([]Verdict, len(targets))}
		for i := range v.Verdicts {
			v.Verdicts[i].Status = StatusUp
		}
		return v
	}
	down := view(a, b)
	down.Verdicts[1].Status = StatusDown
	for _, tt := range []struct {
		name       string
		prev, next *View
		want       []int
	}{
		{"nothing before", nil, view(a, b), []int{0, 1}},
		{"nothing after", view(a), nil, nil},
		{"equal", view(a, b), view(a, b), nil},
		{"one", view(a, b), down, []int{1}},
		{"another layout", view(a, b), view(b, c), []int{1}},
	} {
		if diff := cmp.Diff(tt.want, tt.next.Changed(tt.prev)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}
