package ranges

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func drawTable(t *rapid.T) *Table {
	table := &Table{Built: rapid.Int64().Draw(t, "built"), Codes: []string{"DE", "US", "SG"}}
	value := rapid.Uint16Range(0, 3)
	last4, last6 := uint64(0), uint64(0)
	for range rapid.IntRange(1, 20).Draw(t, "v4") {
		table.V4 = append(table.V4, uint32(last4))
		table.V4Values = append(table.V4Values, value.Draw(t, "value"))
		if last4 += rapid.Uint64Range(1, 1<<29).Draw(t, "length"); last4 >= 1<<32 {
			break
		}
	}
	for range rapid.IntRange(1, 20).Draw(t, "v6") {
		table.V6 = append(table.V6, last6)
		table.V6Values = append(table.V6Values, value.Draw(t, "value"))
		next := last6 + rapid.Uint64Range(1, 1<<63).Draw(t, "length")
		if next <= last6 {
			break
		}
		last6 = next
	}
	return table
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := drawTable(t)
		data, err := Encode(table)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Encode(table)
		if err != nil || !bytes.Equal(data, again) {
			t.Fatal("the same table has two encodings")
		}
		decoded, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(table, decoded); diff != "" {
			t.Fatal(diff)
		}
		cut := rapid.IntRange(0, len(data)-1).Draw(t, "cut")
		if _, err := Decode(data[:cut]); err == nil {
			t.Fatalf("no error for the first %d of %d bytes", cut, len(data))
		}
	})
}

func TestEncodeErrors(t *testing.T) {
	valid := func() *Table {
		return &Table{Codes: []string{"DE"}, V4: []uint32{0}, V4Values: []uint16{1}, V6: []uint64{0}, V6Values: []uint16{0}}
	}
	if _, err := Encode(valid()); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(*Table){
		"no ranges":       func(t *Table) { t.V4, t.V4Values = nil, nil },
		"not from 0":      func(t *Table) { t.V6[0] = 1 },
		"value missing":   func(t *Table) { t.V4 = append(t.V4, 5) },
		"not ascending":   func(t *Table) { t.V4, t.V4Values = []uint32{0, 5, 5}, []uint16{0, 1, 0} },
		"value too large": func(t *Table) { t.V4Values[0] = 2 },
		"long code":       func(t *Table) { t.Codes[0] = "DEU" },
	} {
		table := valid()
		damage(table)
		if _, err := Encode(table); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzDecode: what decodes is a valid table, so it encodes and decodes to itself.
func FuzzDecode(f *testing.F) {
	data, err := Encode(&Table{
		Built: 1781725900, Codes: []string{"DE", "US"},
		V4: []uint32{0, 1 << 24, 5 << 20 << 4}, V4Values: []uint16{0, 1, 2},
		V6: []uint64{0, 0x2001 << 48, 0x2a00 << 48}, V6Values: []uint16{0, 2, 1},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := Decode(data)
		if err != nil {
			return
		}
		encoded, err := Encode(table)
		if err != nil {
			t.Fatalf("decoded table does not encode: %v", err)
		}
		again, err := Decode(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(table, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
