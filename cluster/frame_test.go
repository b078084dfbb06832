package cluster

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseFrame(t *testing.T) {
	report := []byte("report")
	one := appendEntryFrame(nil, kindNews, 1500*time.Millisecond, report)
	table, left := appendTableFrame(nil, []entry{{time.Second, report}, {0, nil}}, maxTableBytes)
	if left != 0 {
		t.Fatalf("%d entries did not fit", left)
	}
	edit := func(b []byte, at int, v byte) []byte {
		b = bytes.Clone(b)
		b[at] = v
		return b
	}
	for _, tt := range []struct {
		name  string
		frame []byte
		kind  frameKind
		want  []entry
		err   error
	}{
		{"one report", one, kindNews, []entry{{1500 * time.Millisecond, report}}, nil},
		{"table", table, kindTable, []entry{{time.Second, report}, {0, nil}}, nil},
		{"empty table", []byte{'p', 'h', 1, 3, 0, 0}, kindTable, []entry{}, nil},
		{"nothing", nil, 0, nil, errFrame},
		{"other magic", edit(one, 0, 'x'), 0, nil, errFrame},
		{"later version", edit(one, 2, 2), 0, nil, errFrameVersion},
		{"unknown kind", edit(one, 3, 77), 0, nil, errFrameVersion},
		{"age cut off", one[:6], 0, nil, errFrame},
		{"count cut off", table[:5], 0, nil, errFrame},
		{"table cut off", table[:len(table)-1], 0, nil, errFrame},
		{"count too large", edit(table, 4, 255), 0, nil, errFrame},
		{"count too small", edit(table, 5, 1), 0, nil, errFrame},
		{"entry without age", []byte{'p', 'h', 1, 3, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4}, 0, nil, errFrame},
		{"trailing byte", append(bytes.Clone(table), 0), 0, nil, errFrame},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kind, got, err := parseFrame(tt.frame)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error = %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			equal := cmp.Comparer(func(a, b entry) bool { return a.age == b.age && bytes.Equal(a.report, b.report) })
			if diff := cmp.Diff(tt.want, got, equal); diff != "" || kind != tt.kind {
				t.Errorf("kind = %v, want %v; entries (-want +got):\n%s", kind, tt.kind, diff)
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
		_, got, err := parseFrame(withAge(appendEntryFrame(nil, kindReport, time.Hour, nil), tt.age))
		if err != nil || got[0].age != tt.want {
			t.Errorf("age %v became %v (%v), want %v", tt.age, got[0].age, err, tt.want)
		}
	}
}

func TestTableIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(0, 300), 0, 30).Draw(t, "sizes")
		limit := rapid.IntRange(frameHeaderLen+tableCountLen, 3000).Draw(t, "limit")
		var entries []entry
		for i, size := range sizes {
			entries = append(entries, entry{time.Duration(i) * time.Second, make([]byte, size)})
		}
		frame, left := appendTableFrame(nil, entries, limit)
		if len(frame) > limit {
			t.Fatalf("table of %d bytes exceeds %d", len(frame), limit)
		}
		_, got, err := parseFrame(frame)
		if err != nil || len(got)+left != len(entries) {
			t.Fatalf("%d of %d entries read back, %d left out: %v", len(got), len(entries), left, err)
		}
	})
}

// FuzzParseFrame holds the parser against the writers: what is accepted is
// exactly what they write.
func FuzzParseFrame(f *testing.F) {
	f.Add(appendEntryFrame(nil, kindReport, time.Second, []byte("report")))
	table, _ := appendTableFrame(nil, []entry{{time.Second, []byte("a")}, {2 * time.Second, nil}}, maxTableBytes)
	f.Add(table)
	f.Add([]byte{'p', 'h', 1, 3, 255, 255, 0, 0})
	f.Add([]byte{'p', 'h', 2, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, entries, err := parseFrame(b)
		if err != nil {
			if kind != 0 || entries != nil {
				t.Errorf("error with a result: %v %v", kind, entries)
			}
			if !errors.Is(err, errFrame) && !errors.Is(err, errFrameVersion) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		var again []byte
		switch kind {
		case kindTable:
			var left int
			if again, left = appendTableFrame(nil, entries, len(b)); left != 0 {
				t.Fatalf("%d of %d entries do not fit into the frame they came from", left, len(entries))
			}
		default:
			if len(entries) != 1 {
				t.Fatalf("%d entries in a frame of one", len(entries))
			}
			again = appendEntryFrame(nil, kind, entries[0].age, entries[0].report)
			if !bytes.Equal(withAge(b, entries[0].age), b) {
				t.Error("withAge changes more than the age")
			}
		}
		if !bytes.Equal(again, b) {
			t.Errorf("read and written again:\n%x\nwas:\n%x", again, b)
		}
	})
}

func FuzzParseMeta(f *testing.F) {
	f.Add(Meta{Site: "fra", Version: "v1.2.3", Config: 7}.encode())
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := parseMeta(b)
		if !ok {
			if m != (Meta{}) {
				t.Errorf("refused with a result: %+v", m)
			}
			return
		}
		if err := m.check(); err != nil {
			t.Errorf("accepted what may not be sent: %v", err)
		}
		if again := m.encode(); !bytes.HasPrefix(b, again) || len(again) > maxEncodedMeta {
			t.Errorf("read and written again:\n%x\nwas:\n%x", again, b)
		}
	})
}
