package health

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func backend(service, site string, port uint16) Target {
	return Target{KindBackend, service, site, netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port)}
}

func vip(service, site string) Target {
	return Target{KindVIP, service, site, netip.MustParseAddrPort("198.51.100.80:443")}
}

func drawReport(t *rapid.T) *Report {
	return &Report{
		Observer:  rapid.StringMatching(`[a-z0-9]{1,63}`).Draw(t, "observer"),
		Epoch:     rapid.Uint64().Draw(t, "epoch"),
		Seq:       rapid.Uint64().Draw(t, "seq"),
		Layout:    rapid.Uint64().Draw(t, "layout"),
		Config:    rapid.Uint64().Draw(t, "config"),
		Overrides: rapid.Uint64().Draw(t, "overrides"),
		Flags:     Flags(rapid.Byte().Draw(t, "flags")),
		States:    rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "states"),
	}
}

func TestReportRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawReport(t)
		prefix := []byte("kept")
		version := rapid.ByteRange(OldestReportVersion, ReportVersion).Draw(t, "version")
		b, err := want.AppendVersion(prefix, version)
		if err != nil {
			t.Fatal(err)
		}
		length := len(prefix) + reportFixedLen + len(want.Observer) + len(want.States)
		if version == 1 {
			want.Overrides, length = 0, length-8
		}
		got, err := ParseReport(b[len(prefix):])
		if err != nil {
			t.Fatal(err)
		}
		if len(want.States) == 0 {
			want.States = nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		if len(b) != length {
			t.Fatalf("%d bytes", len(b))
		}
	})
}

func TestReportKeepsNoPartOfTheInput(t *testing.T) {
	b, err := (&Report{Observer: "fra1", States: []byte{1, 2}}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseReport(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if got.Observer != "fra1" || !bytes.Equal(got.States, []byte{1, 2}) {
		t.Errorf("the report changed with the packet: %+v", got)
	}
}

func TestParseReportRefuses(t *testing.T) {
	good, err := (&Report{Observer: "fra1", States: []byte{1, 2, 3}}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "empty"},
		{"version 0", edit(func(b []byte) []byte { b[0] = 0; return b }), "version 0 does not exist"},
		{"trailing byte", edit(func(b []byte) []byte { return append(b, 0) }), "3 bytes of states announced, 4 present"},
		{"a byte short", good[:len(good)-1], "3 bytes of states announced, 2 present"},
		{"cut in the name", good[:reportFixedLen], "cut off in the observer name"},
		{"cut in the head", good[:20], "20 bytes, want 47 to"},
		{"no name", edit(func(b []byte) []byte { b[42] = 0; return append(b[:43], 0, 0, 0, 0) }), "no observer name"},
		{"long name", longName(64), "observer name of 64 bytes, at most 63"},
		{"huge length", edit(func(b []byte) []byte { binary.BigEndian.PutUint32(b[47:], 1<<31); return b }), "announced"},
		{"too many targets", manyStates(MaxTargets/4 + 1), "bytes of states, at most"},
		{"far too large", make([]byte, MaxReportLen+1), "version 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseReport(tt.b)
			if got != nil || !errors.Is(err, ErrReport) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v; want an error with %q", got, err, tt.want)
			}
		})
	}
}

func longName(n int) []byte {
	b := append([]byte{ReportVersion, 0}, make([]byte, 40)...)
	b = append(append(b, byte(n)), strings.Repeat("x", n)...)
	return append(b, 0, 0, 0, 0)
}

func manyStates(n int) []byte {
	b := append([]byte{ReportVersion, 0}, make([]byte, 40)...)
	b = binary.BigEndian.AppendUint32(append(b, 1, 'a'), uint32(n))
	return append(b, make([]byte, n)...)
}

func TestParseReportOfTheFuture(t *testing.T) {
	var version *VersionError
	_, err := ParseReport([]byte{ReportVersion + 1, 1, 2, 3})
	if !errors.As(err, &version) || version.Got != 3 || version.Want != 2 || errors.Is(err, ErrReport) {
		t.Errorf("got %v, want a VersionError", err)
	}
}

func TestAppendBinaryRefuses(t *testing.T) {
	for _, r := range []*Report{
		{}, {Observer: strings.Repeat("x", 64)}, {Observer: "a", States: make([]byte, MaxTargets/4+1)},
	} {
		b, err := r.AppendBinary([]byte("kept"))
		if !errors.Is(err, ErrReport) || string(b) != "kept" {
			t.Errorf("got %q, %v", b, err)
		}
	}
}

// TestReportOfVersionOne pins what nodes of the minor version before write and read.
func TestReportOfVersionOne(t *testing.T) {
	r := &Report{
		Observer: "fra1", Epoch: 1, Seq: 2, Layout: 3, Config: 4, Overrides: 5, Flags: FlagDoubt,
		States: []byte{0xab},
	}
	b, err := r.AppendVersion(nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	want := "\x01\x01" + "\x00\x00\x00\x00\x00\x00\x00\x01" + "\x00\x00\x00\x00\x00\x00\x00\x02" +
		"\x00\x00\x00\x00\x00\x00\x00\x03" + "\x00\x00\x00\x00\x00\x00\x00\x04" + "\x04fra1" + "\x00\x00\x00\x01\xab"
	if string(b) != want {
		t.Errorf("got %x, want %x", b, want)
	}
	for _, version := range []byte{0, ReportVersion + 1} {
		if got, err := r.AppendVersion([]byte("kept"), version); !errors.Is(err, ErrReport) || string(got) != "kept" {
			t.Errorf("version %d: %q, %v", version, got, err)
		}
	}
}

func TestGetSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 200).Draw(t, "n")
		r, model := &Report{States: make([]byte, statesLen(n))}, make([]Status, n)
		for range rapid.IntRange(0, 50).Draw(t, "sets") {
			i, s := rapid.IntRange(0, n-1).Draw(t, "i"), Status(rapid.IntRange(0, 3).Draw(t, "s"))
			r.Set(i, s)
			model[i] = s
		}
		for i, want := range model {
			if got := r.Get(i); got != want {
				t.Fatalf("target %d: got %v, want %v", i, got, want)
			}
		}
	})
	var r Report
	r.Set(-1, StatusUp)
	r.Set(MaxTargets, StatusUp)
	if len(r.States) != 0 || r.Get(-1) != StatusNone || r.Get(9) != StatusNone {
		t.Errorf("out of range: %v", r)
	}
	r.Set(9, StatusDown)
	if len(r.States) != 3 || r.Get(9) != StatusDown || r.Get(8) != StatusNone {
		t.Errorf("did not grow: %v", r)
	}
}

func TestNewer(t *testing.T) {
	for _, tt := range []struct {
		name string
		a, b *Report
		want bool
	}{
		{"than none", &Report{}, nil, true},
		{"equal", &Report{Epoch: 1, Seq: 1}, &Report{Epoch: 1, Seq: 1}, false},
		{"larger seq", &Report{Epoch: 1, Seq: 2}, &Report{Epoch: 1, Seq: 1}, true},
		{"larger epoch beats seq", &Report{Epoch: 2, Seq: 0}, &Report{Epoch: 1, Seq: 9}, true},
		{"smaller epoch", &Report{Epoch: 1, Seq: 9}, &Report{Epoch: 2, Seq: 0}, false},
	} {
		if got := tt.a.Newer(tt.b); got != tt.want {
			t.Errorf("%s: got %v", tt.name, got)
		}
	}
}

// TestReportSize holds the promise of the data model: about 354 bytes per 1000
// checks whatever they say.
func TestReportSize(t *testing.T) {
	var targets []Target
	for port := range uint16(1000) {
		targets = append(targets, backend("web", "fra", port+1))
	}
	r := NewReport("node-with-a-long-name.fra", NewLayout(targets))
	b, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range targets {
		r.Set(i, StatusDown)
	}
	worst, _ := r.AppendBinary(nil)
	t.Logf("%d bytes for 1000 targets", len(b))
	if len(b) > 354 || len(worst) != len(b) {
		t.Errorf("%d bytes when nothing fails, %d when everything does; want the same and at most 354", len(b), len(worst))
	}
}

// FuzzParseReport: whatever is accepted has exactly one encoding, its own.
func FuzzParseReport(f *testing.F) {
	b, _ := (&Report{Observer: "fra1", Epoch: 1, Seq: 2, States: []byte{1, 2, 3}}).AppendBinary(nil)
	f.Add(b)
	f.Add(b[:40])
	f.Add(longName(63))
	f.Add(longName(64))
	f.Add([]byte{ReportVersion})
	f.Add([]byte{ReportVersion + 1})
	old, _ := (&Report{Observer: "fra1", Epoch: 1, Seq: 2, States: []byte{1, 2, 3}}).AppendVersion(nil, 1)
	f.Add(old)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReport(b)
		if err != nil {
			if r != nil {
				t.Fatal("a report and an error")
			}
			return
		}
		again, err := r.AppendVersion(nil, b[0])
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("re-encoded %x, %v; from %x", again, err, b)
		}
		if len(r.Observer) > MaxObserverLen || len(r.Observer) == 0 || len(r.States) > MaxTargets/4 {
			t.Fatalf("out of bounds: %+v", r)
		}
	})
}
