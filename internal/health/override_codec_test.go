package health

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func encoded(t testing.TB, v Override) []byte {
	t.Helper()
	b, err := v.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOverrideRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawOverride(t)
		want.Scope = drawScope(t, "scope")
		want.Counter = rapid.Uint64Range(1, MaxOverrideCounter).Draw(t, "counter")
		b, err := want.AppendBinary([]byte("kept"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseOverride(b[4:])
		if err != nil || got != want {
			t.Fatalf("%v (-want +got):\n%s", err, cmp.Diff(want, got, scopeCmp))
		}
	})
}

func TestLongestOverrideFits(t *testing.T) {
	long := strings.Repeat("a", 63)
	v := Override{
		Scope: scope("backend/" + long + "/" + long + "/[2001:db8:1111:2222:3333:4444:5555:6666]:65535"), Order: OrderDrain,
		Counter: MaxOverrideCounter, Writer: long, By: strings.Repeat("b", MaxOverrideBy), Reason: strings.Repeat("c", MaxOverrideReason),
		At: t0.UTC(), Until: t0.UTC(), Keeper: long,
	}
	if got, err := ParseOverride(encoded(t, v)); err != nil || got != v {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestParseOverrideRefuses(t *testing.T) {
	good := encoded(t, standing("site/fra", OrderDrain, 1, "fra1"))
	for name, b := range map[string][]byte{
		"nothing":         {},
		"version 0":       append([]byte{0}, good[1:]...),
		"a byte too many": append(bytes.Clone(good), 0),
		"an order":        append([]byte{1, 9}, good[2:]...),
		"another scope":   bytes.Replace(good, []byte("site/fra"), []byte("site/FRA"), 1),
		"another form":    bytes.Replace(encoded(t, standing("prefix/2001:db8::/32", OrderUp, 1, "fra1")), []byte("2001:db8::/32"), []byte("2001:DB8::/32"), 1),
		"a line break":    bytes.Replace(good, []byte("maintenance"), []byte("maintenanc\n"), 1),
		"much":            make([]byte, 1<<20),
	} {
		if got, err := ParseOverride(b); !errors.Is(err, ErrOverride) || got != (Override{}) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	for n := range good {
		if _, err := ParseOverride(good[:n]); !errors.Is(err, ErrOverride) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
	var future *VersionError
	if _, err := ParseOverride(append([]byte{2}, good[1:]...)); !errors.As(err, &future) || future.What != "override" {
		t.Errorf("version 2: %v", err)
	}
}

func TestOverridesFileRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := setOf(t, rapid.SliceOfN(rapid.Custom(drawOverride), 0, 9).Draw(t, "registers")...)
		b, err := EncodeOverrides(want.All())
		if err != nil {
			t.Fatal(err)
		}
		list, err := ParseOverrides(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.All(), list, scopeCmp); diff != "" || setOf(t, list...).Digest() != want.Digest() {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		i := rapid.IntRange(0, len(b)-1).Draw(t, "byte")
		b[i] ^= byte(rapid.IntRange(1, 255).Draw(t, "damage"))
		if list, err := ParseOverrides(b); !errors.Is(err, ErrOverride) || list != nil {
			t.Fatalf("damaged byte %d: %v, %v", i, list, err)
		}
	})
}

// sealed puts the checksum on bytes that were tampered with.
func sealed(body []byte) []byte {
	return binary.BigEndian.AppendUint32(bytes.Clone(body), viewChecksum(body))
}

func TestParseOverridesRefuses(t *testing.T) {
	a, b := standing("site/fra", OrderDrain, 1, "fra1"), standing("site/iad", OrderDrain, 1, "fra1")
	good, err := EncodeOverrides([]Override{a, b})
	if err != nil {
		t.Fatal(err)
	}
	body := good[:len(good)-overridesTail]
	change := func(at int, to byte) []byte {
		c := bytes.Clone(body)
		c[at] = to
		return sealed(c)
	}
	for name, b := range map[string][]byte{
		"nothing":      nil,
		"another file": []byte(strings.Repeat("pharos-view", 9)),
		"cut off":      good[:len(good)-1],
		"too few":      change(overridesHead-1, 1),
		"too many":     change(overridesHead-1, 3),
		"far too many": change(overridesHead-4, 255),
		"there twice":  sealed(bytes.Replace(body, []byte("iad"), []byte("fra"), 1)),
		"version 0":    change(len(overridesMagic), 0),
		"bytes after":  sealed(append(bytes.Clone(body), 0)),
	} {
		if list, err := ParseOverrides(b); !errors.Is(err, ErrOverride) || list != nil {
			t.Errorf("%s: got %v, %v", name, list, err)
		}
	}
	var future *VersionError
	if _, err := ParseOverrides(change(len(overridesMagic), 2)); !errors.As(err, &future) || future.What != "overrides" {
		t.Errorf("a list of the future: %v", err)
	}
	if _, err := ParseOverrides(change(overridesHead+2, 2)); !errors.As(err, &future) || future.What != "override" {
		t.Errorf("an override of the future: %v", err)
	}
	for name, list := range map[string][]Override{
		"out of order": {b, a},
		"twice":        {a, a},
		"not valid":    {{}},
		"too many":     make([]Override, MaxOverrides+1),
	} {
		if got, err := EncodeOverrides(list); !errors.Is(err, ErrOverride) || got != nil {
			t.Errorf("encode %s: %v", name, err)
		}
	}
}

// FuzzParseOverride: whatever is accepted has exactly one encoding, its own, and
// can be merged.
func FuzzParseOverride(f *testing.F) {
	f.Add(encoded(f, standing("site/fra", OrderDrain, 1, "fra1")))
	f.Add(encoded(f, standing("backend/web/fra/[2001:db8::1]:80", OrderNone, 1<<40, "fra1")))
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseOverride(b)
		if err != nil {
			if v != (Override{}) {
				t.Fatal("an override and an error")
			}
			return
		}
		if again := encoded(t, v); !bytes.Equal(again, b) {
			t.Fatalf("re-encoded %x from %x", again, b)
		}
		if changed, err := NewOverrides().Merge(v); !changed || err != nil {
			t.Fatalf("merge: %v, %v", changed, err)
		}
	})
}

// FuzzParseOverrides: whatever is accepted is what EncodeOverrides would write.
func FuzzParseOverrides(f *testing.F) {
	good, _ := EncodeOverrides([]Override{standing("site/fra", OrderDrain, 1, "fra1"), standing("prefix/192.0.2.0/24", OrderUp, 1, "fra1")})
	f.Add(good[:len(good)-overridesTail])
	f.Add([]byte(overridesMagic + "\x01\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		b := sealed(body) // or hardly anything would get past the checksum
		list, err := ParseOverrides(b)
		if err != nil {
			if list != nil {
				t.Fatal("a list and an error")
			}
			return
		}
		if again, err := EncodeOverrides(list); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("re-encoded %x, %v from %x", again, err, b)
		}
	})
}

func TestParseOverridesFile(t *testing.T) {
	got, err := ParseOverridesFile(strings.NewReader(`# written by the maintenance calendar
site/fra  drain for=2h   maintenance of the power  supply
backend/web/*/*	none

  pool/web/iad down	# see the ticket
service/db up for=90m # until Monday
prefix/192.0.2.0/24 down ticket#7
`))
	want := []Wanted{
		{2, "site/fra", OrderDrain, 2 * time.Hour, "maintenance of the power supply"},
		{3, "backend/web/*/*", OrderNone, 0, ""},
		{5, "pool/web/iad", OrderDown, 0, ""},
		{6, "service/db", OrderUp, 90 * time.Minute, ""},
		{7, "prefix/192.0.2.0/24", OrderDown, 0, "ticket#7"},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got, err := ParseOverridesFile(strings.NewReader("\n# nothing\n")); err != nil || got != nil {
		t.Errorf("a file of comments: %v, %v", got, err)
	}
}

// TestParseOverridesFileTellsAll: every mistake with its line, and nothing used.
func TestParseOverridesFileTellsAll(t *testing.T) {
	got, err := ParseOverridesFile(strings.NewReader(`site/fra drain
site/FRA drain
site/iad
site/sin drian
* drain
pool/web/fra drain for=2
pool/web/iad drain for=400000h
pool/web/sin none for=1h
site/fra down
service/web down ` + strings.Repeat("x", 257) + `
service/db down ` + "a\x1b[2J" + `
`))
	if err == nil || got != nil {
		t.Fatalf("got %v, %v", got, err)
	}
	lines := strings.Split(err.Error(), "\n")
	want := []string{
		"line 2: not a scope", "line 3: site/iad: the order is missing", `line 4: "drian" is not an order`, "line 5: not a scope",
		"line 6: for=2: not a duration", "line 7: for 400000h0m0s: want", "line 8: none is for good", "line 9: site/fra is already given in line 1",
		"line 10: malformed override: reason of 257 bytes", "line 11: malformed override: reason has a character",
	}
	if len(lines) != len(want) {
		t.Fatalf("got %d errors:\n%s", len(lines), err)
	}
	for i, w := range want {
		if !strings.HasPrefix(lines[i], w) {
			t.Errorf("got %q, want %q", lines[i], w)
		}
	}
	for name, text := range map[string]string{
		"too large": strings.Repeat("#\n", MaxOverridesFile),
		"not UTF-8": "site/fra drain \xff",
	} {
		if got, err := ParseOverridesFile(strings.NewReader(text)); err == nil || got != nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// FuzzParseOverridesFile: a file is taken whole, and each line of it again alone.
func FuzzParseOverridesFile(f *testing.F) {
	f.Add("site/fra drain for=2h power\n# x\npool/*/fra none")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseOverridesFile(strings.NewReader(text))
		if err != nil && list != nil {
			t.Fatal("a list and an error")
		}
		lines := strings.Split(text, "\n")
		for _, w := range list {
			alone, err := ParseOverridesFile(strings.NewReader(lines[w.Line-1]))
			if err != nil || len(alone) != 1 {
				t.Fatalf("line %d alone: %v, %v", w.Line, alone, err)
			}
			alone[0].Line = w.Line
			if alone[0] != w || CheckScopePattern(w.Pattern) != nil || w.Order > OrderDrain {
				t.Fatalf("line %d: %+v, alone %+v", w.Line, w, alone[0])
			}
		}
	})
}
