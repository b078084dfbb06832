package cluster

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pharos-lb/pharos/internal/health"
)

func firstTable(entries ...entry) []byte {
	b, _ := appendFirstTable(nil, entries, nil, maxTableBytes)
	return b
}

func state(entries []entry, records []record) []byte {
	b, _ := appendState(nil, entries, records, maxTableBytes)
	return b
}

func edit(b []byte, at int, v byte) []byte {
	b = bytes.Clone(b)
	b[at] = v
	return b
}

// frameEqual compares what was parsed by content.
func frameEqual() cmp.Option {
	return cmp.Options{
		cmp.AllowUnexported(frame{}, entry{}, record{}, mail{}),
		cmp.Comparer(bytes.Equal), // nil is empty
	}
}

func TestParseFrame(t *testing.T) {
	report, seal := []byte("report"), bytes.Repeat([]byte{7}, sealLen)
	old := appendEntryFrame(nil, wireFirst, kindNews, entry{age: 1500 * time.Millisecond, report: report, seal: seal})
	one := appendEntryFrame(nil, wireNow, kindReport, entry{age: 1500 * time.Millisecond, report: report, seal: seal})
	table := firstTable(entry{age: time.Second, report: report}, entry{})
	orders := appendOverridesFrame(nil, []record{{override: []byte("o"), seal: seal}, {override: []byte("p")}})
	full := state([]entry{{age: time.Second, report: report, seal: seal}}, []record{{override: []byte("o")}})
	question := appendMailFrame(nil, kindQuestion, mail{id: 9, from: "fra", text: []byte("why")})
	both, _ := appendFirstTable(nil, []entry{{report: report}}, full, maxTableBytes)
	for _, tt := range []struct {
		name  string
		frame []byte
		want  frame
		err   error
	}{
		{"one report of the first version", old, frame{wire: 1, kind: kindNews, entries: []entry{{1500 * time.Millisecond, report, nil}}}, nil},
		{"one report", one, frame{wire: 2, kind: kindReport, entries: []entry{{1500 * time.Millisecond, report, seal}}}, nil},
		{"table", table, frame{wire: 1, kind: kindTable, entries: []entry{{time.Second, report, nil}, {}}}, nil},
		{"empty table", []byte{'p', 'h', 1, 3, 0, 0}, frame{wire: 1, kind: kindTable, entries: []entry{}}, nil},
		{
			"state", full,
			frame{wire: 2, kind: kindTable, entries: []entry{{time.Second, report, seal}}, overrides: []record{{override: []byte("o")}}},
			nil,
		},
		{
			"state for all versions", both,
			frame{wire: 2, kind: kindTable, entries: []entry{{time.Second, report, seal}}, overrides: []record{{override: []byte("o")}}},
			nil,
		},
		{"state of a later version", append(bytes.Clone(full), 9, 0, 0, 0, 2, 1, 2), frame{
			wire: 2, kind: kindTable, skipped: 1,
			entries: []entry{{time.Second, report, seal}}, overrides: []record{{override: []byte("o")}},
		}, nil},
		{"empty state", []byte{'p', 'h', 2, 3}, frame{wire: 2, kind: kindTable}, nil},
		{"overrides", orders, frame{wire: 2, kind: kindOverrides, overrides: []record{{[]byte("o"), seal}, {override: []byte("p")}}}, nil},
		{"question", question, frame{wire: 2, kind: kindQuestion, mail: mail{9, "fra", []byte("why")}}, nil},
		{"nothing", nil, frame{}, errFrame},
		{"other magic", edit(one, 0, 'x'), frame{}, errFrame},
		{"version zero", edit(one, 2, 0), frame{}, errFrameVersion},
		{"later version", edit(one, 2, 3), frame{}, errFrameVersion},
		{"unknown kind", edit(one, 3, 77), frame{}, errFrameVersion},
		{"kind the first version lacks", edit(orders, 2, 1), frame{}, errFrameVersion},
		{"age cut off", one[:6], frame{}, errFrame},
		{"seal cut off", one[:40], frame{}, errFrame},
		{"seal of no length", edit(one, 8, 63), frame{}, errFrame},
		{"count cut off", table[:5], frame{}, errFrame},
		{"table cut off", table[:len(table)-1], frame{}, errFrame},
		{"count too large", edit(table, 4, 255), frame{}, errFrame},
		{"count too small", edit(table, 5, 1), frame{}, errFrame},
		{"entry without age", []byte{'p', 'h', 1, 3, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4}, frame{}, errFrame},
		{"trailing byte", append(bytes.Clone(table), 0), frame{}, errFrame},
		{"state cut off", full[:len(full)-1], frame{}, errFrame},
		{"section cut off in its header", append(bytes.Clone(full), 9, 0), frame{}, errFrame},
		{"section longer than the state", append(bytes.Clone(full), 9, 255, 0, 0, 0), frame{}, errFrame},
		{"sections out of order", append(bytes.Clone(full), 1, 0, 0, 0, 2, 0, 0), frame{}, errFrame},
		{"overrides cut off", orders[:len(orders)-1], frame{}, errFrame},
		{"overrides cut off in their count", orders[:5], frame{}, errFrame},
		{"more overrides than there may be", edit(orders, 4, 255), frame{}, errFrame},
		{"byte after the overrides", append(bytes.Clone(orders), 0), frame{}, errFrame},
		{"override cut off in its seal", []byte{'p', 'h', 2, 4, 0, 1, 0, 2, 64, 1}, frame{}, errFrame},
		{"question cut off", question[:12], frame{}, errFrame},
		{"question of nobody", append(append([]byte{'p', 'h', 2, 5}, make([]byte, 9)...), "text"...), frame{}, errFrame},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseFrame(tt.frame)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error = %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got, frameEqual()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAgeIsNeverRoundedDown(t *testing.T) {
	for _, tt := range []struct {
		age, want time.Duration
	}{
		{-time.Second, 0},
		{0, 0},
		{1, time.Millisecond},
		{time.Millisecond, time.Millisecond},
		{1e18, (1<<32 - 1) * time.Millisecond},
	} {
		got, err := parseFrame(withAge(appendEntryFrame(nil, wireNow, kindReport, entry{age: time.Hour}), tt.age))
		if err != nil || got.entries[0].age != tt.want {
			t.Errorf("age %v became %v (%v), want %v", tt.age, got, err, tt.want)
		}
	}
}

func TestTableIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(0, 300), 0, 30).Draw(t, "sizes")
		limit := rapid.IntRange(frameHeaderLen+2*sectionHeaderLen+recordsCountLen+tableCountLen, 3000).Draw(t, "limit")
		var entries []entry
		for i, size := range sizes {
			entries = append(entries, entry{age: time.Duration(i) * time.Second, report: make([]byte, size)})
		}
		for _, first := range []bool{false, true} {
			frame, left := appendState(nil, entries, nil, limit)
			if first {
				frame, left = appendFirstTable(nil, entries, nil, limit)
			}
			if len(frame) > limit {
				t.Fatalf("table of %d bytes exceeds %d", len(frame), limit)
			}
			got, err := parseFrame(frame)
			if err != nil || len(got.entries)+left != len(entries) {
				t.Fatalf("%d of %d entries read back, %d left out: %v", len(got.entries), len(entries), left, err)
			}
		}
	})
}

// rewrite writes a parsed frame again.
func rewrite(f frame, size int) []byte {
	switch {
	case f.kind == kindTable && f.wire == wireFirst:
		b, _ := appendFirstTable(nil, f.entries, nil, size)
		return b
	case f.kind == kindTable:
		b := appendFrameHeader(nil, f.wire, f.kind)
		if f.overrides != nil {
			var body int
			b, body = openSection(b, sectionOverrides)
			b = appendRecords(b, f.overrides)
			closeSection(b, body)
		}
		if f.entries != nil {
			var body int
			b, body = openSection(b, sectionReports)
			b, _ = appendTable(b, f.wire, f.entries, size)
			closeSection(b, body)
		}
		return b
	case f.kind == kindOverrides:
		return appendOverridesFrame(nil, f.overrides)
	case f.kind == kindQuestion, f.kind == kindAnswer:
		return appendMailFrame(nil, f.kind, f.mail)
	default:
		return appendEntryFrame(nil, f.wire, f.kind, f.entries[0])
	}
}

// FuzzParseFrame holds the parser against the writers: what is accepted is
// exactly what they write.
func FuzzParseFrame(f *testing.F) {
	seal := bytes.Repeat([]byte{7}, sealLen)
	entries := []entry{{age: time.Second, report: []byte("a"), seal: seal}, {age: 2 * time.Second}}
	records := []record{{override: []byte("o"), seal: seal}, {override: []byte("p")}}
	f.Add(appendEntryFrame(nil, wireFirst, kindReport, entries[0]))
	f.Add(appendEntryFrame(nil, wireNow, kindNews, entries[0]))
	f.Add(firstTable(entries...))
	f.Add(state(entries, records))
	f.Add(state(nil, nil))
	both, _ := appendFirstTable(nil, entries, state(entries, records), maxTableBytes)
	f.Add(both)
	f.Add(appendOverridesFrame(nil, records))
	f.Add(appendMailFrame(nil, kindAnswer, mail{id: 1, from: "fra", text: []byte("t")}))
	f.Add([]byte{'p', 'h', 1, 3, 255, 255, 0, 0})
	f.Add([]byte{'p', 'h', 2, 3, 9, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseFrame(b)
		if err != nil {
			if diff := cmp.Diff(frame{}, got, frameEqual()); diff != "" {
				t.Errorf("error with a result: %s", diff)
			}
			if !errors.Is(err, errFrame) && !errors.Is(err, errFrameVersion) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		if got.skipped > 0 || b[2] == wireFirst && got.wire == wireNow {
			return // there is more in it than was read
		}
		if again := rewrite(got, len(b)); !bytes.Equal(again, b) {
			t.Errorf("read and written again:\n%x\nwas:\n%x", again, b)
		}
		if got.kind == kindReport && !bytes.Equal(withAge(b, got.entries[0].age), b) {
			t.Error("withAge changes more than the age")
		}
	})
}

func FuzzParseCard(f *testing.F) {
	c := card{Meta: Meta{Site: "fra", Version: "v1.2.3", Config: 7}, wire: 2, keys: "12345678"}
	f.Add(c.encode())
	f.Add(c.encode()[:metaFixedLen+len(c.Site)+len(c.Version)]) // of the first version
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ok := parseCard(b)
		if !ok {
			if c != (card{}) {
				t.Errorf("refused with a result: %+v", c)
			}
			return
		}
		if err := c.check(); err != nil {
			t.Errorf("accepted what may not be sent: %v", err)
		}
		again := c.encode()
		if c.wire == wireFirst {
			again = again[:metaFixedLen+len(c.Site)+len(c.Version)]
		}
		if !bytes.HasPrefix(b, again) || len(again) > maxEncodedMeta {
			t.Errorf("read and written again:\n%x\nwas:\n%x", again, b)
		}
	})
}

func TestLargestFramesAndCardsFitTheirLimits(t *testing.T) {
	text := func(n int) string { return string(slices.Repeat([]byte("x"), n)) }
	c := card{Meta: Meta{Site: text(maxSiteLen + 9), Version: text(maxVersionLen + 9)}, wire: wireNow, keys: text(maxKeys * fingerprintLen)}
	if got := len(c.encode()); got != maxEncodedMeta || got > 512 {
		t.Errorf("largest card has %d bytes, want %d and at most 512", got, maxEncodedMeta)
	}
	seal := make([]byte, sealLen)
	records := slices.Repeat([]record{{override: make([]byte, health.MaxOverrideLen), seal: seal}}, health.MaxOverrides)
	if got := len(appendOverridesFrame(nil, records)); got != maxOverridesFrame || got > maxTableBytes/2 {
		t.Errorf("largest frame of overrides has %d bytes, want %d and at most %d", got, maxOverridesFrame, maxTableBytes/2)
	}
}
