package health

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestReplayAfterRestart: what was recorded before a restart is old after it, on
// every path, and changes nothing.
func TestReplayAfterRestart(t *testing.T) {
	before := NewLedger(fleetOf("fra1", "fra2", "fra3"), webLayout)
	recorded := []*Report{
		saying("fra1", webLayout, 3, 7, map[Target]Status{webBackend: StatusDown}),
		saying("fra1", webLayout, 4, 1, map[Target]Status{webBackend: StatusDown}),
		saying("fra2", webLayout, 1, 1, map[Target]Status{webBackend: StatusDown}),
	}
	for _, r := range recorded {
		before.Merge(r, 0, t0)
	}
	b, err := EncodeRegisters(before.Registers())
	if err != nil {
		t.Fatal(err)
	}
	registers, err := RestoreRegisters(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Register{{"fra1", 4, 1}, {"fra2", 1, 1}}, registers); diff != "" {
		t.Fatal(diff)
	}
	after := NewLedger(fleetOf("fra1", "fra2", "fra3"), webLayout)
	for _, r := range registers {
		after.SetFloor(r.Observer, r.Epoch, r.Seq)
	}
	after.SetFloor("fra1", 2, 99)    // never lowered
	after.SetFloor("stranger", 1, 1) // of no consequence
	empty := stateOf(after)
	for _, r := range recorded {
		if got := after.Merge(r, 0, t0.Add(time.Hour)); got != OutcomeOld {
			t.Errorf("replayed %s %d/%d: %v", r.Observer, r.Epoch, r.Seq, got)
		}
	}
	if diff := cmp.Diff(empty, stateOf(after)); diff != "" {
		t.Errorf("a replay changed the ledger: %s", diff)
	}
	if epoch, seq := after.Floor("fra1"); epoch != 4 || seq != 1 {
		t.Errorf("floor %d/%d", epoch, seq)
	}
	if diff := cmp.Diff(registers, after.Registers()); diff != "" {
		t.Errorf("registers of a node that heard nobody: %s", diff)
	}
	next := after.Rebase(fleetOf("fra1", "fra2"), webLayout)
	for _, l := range []*Ledger{after, next} {
		if got := l.Merge(recorded[1], 0, t0); got != OutcomeOld {
			t.Errorf("after a reload: %v", got)
		}
		if got := l.Merge(saying("fra1", webLayout, 4, 2, nil), 0, t0); got != OutcomeNew {
			t.Errorf("newer: %v", got)
		}
	}
	if got := after.Merge(saying("fra3", webLayout, 0, 0, nil), 0, t0); got != OutcomeNew {
		t.Errorf("an observer without a floor: %v", got)
	}
}

func drawRegisters(t *rapid.T) []Register {
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9]{1,63}`), 0, 20, rapid.ID).Draw(t, "names")
	slices.Sort(names)
	out := []Register{}
	for _, n := range names {
		out = append(out, Register{n, rapid.Uint64().Draw(t, "epoch"), rapid.Uint64().Draw(t, "seq")})
	}
	return out
}

func TestRegistersRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawRegisters(t)
		b, err := EncodeRegisters(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := RestoreRegisters(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if got, err := RestoreRegisters(b); err == nil || got != nil {
			t.Fatalf("accepted a flipped bit: %v", got)
		}
	})
}

// signed puts a checksum on a body.
func signed(body []byte) []byte {
	return binary.BigEndian.AppendUint32(bytes.Clone(body), registersChecksum(body))
}

func TestRestoreRegistersRefuses(t *testing.T) {
	good, err := EncodeRegisters([]Register{{"fra1", 1, 2}, {"fra2", math.MaxUint64, 4}})
	if err != nil {
		t.Fatal(err)
	}
	edit := func(f func(b []byte) []byte) []byte { return signed(f(bytes.Clone(good[:len(good)-registersTail]))) }
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "not saved registers"},
		{"something else", bytes.Repeat([]byte("x"), 99), "not saved registers"},
		{"far too long", make([]byte, MaxRegistersLen+1), "not saved registers"},
		{"cut off", good[:len(good)-1], "checksum"},
		{"version 0", edit(func(b []byte) []byte { b[len(registersMagic)] = 0; return b }), "version 0 does not exist"},
		{"an absurd count", edit(func(b []byte) []byte { b[registersHead-4] = 0xff; return b }), "announced"},
		{"one too few", edit(func(b []byte) []byte { b[registersHead-1] = 1; return b }), "21 bytes too many"},
		{"one too many", edit(func(b []byte) []byte { b[registersHead-1] = 3; return b }), "announced"},
		{"no name", edit(func(b []byte) []byte { b[registersHead] = 0; return b }), "observer name of 0 bytes"},
		{"a name too long", edit(func(b []byte) []byte { b[registersHead] = 64; return b }), "observer name of 64 bytes"},
		{"not sorted", edit(func(b []byte) []byte { b[registersHead+1] = 'x'; return b }), `"fra2" after "xra1"`},
		{"twice", edit(func(b []byte) []byte { b[len(b)-17] = '1'; return b }), `"fra1" after "fra1"`},
	} {
		got, err := RestoreRegisters(tt.b)
		if got != nil || !errors.Is(err, ErrRegisters) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, %v; want %q", tt.name, got, err, tt.want)
		}
	}
	var version *VersionError
	if _, err := RestoreRegisters(edit(func(b []byte) []byte { b[len(registersMagic)]++; return b })); !errors.As(err, &version) {
		t.Errorf("the future: %v", err)
	}
	for _, bad := range [][]Register{{{Observer: ""}}, {{Observer: strings.Repeat("x", 64)}}, {{Observer: "b"}, {Observer: "a"}}, {{Observer: "a"}, {Observer: "a"}}, make([]Register, MaxRegisters+1)} {
		if b, err := EncodeRegisters(bad); err == nil || b != nil {
			t.Errorf("encoded %d registers", len(bad))
		}
	}
}

// FuzzRestoreRegisters: whatever is accepted has exactly one encoding, its own.
func FuzzRestoreRegisters(f *testing.F) {
	for _, registers := range [][]Register{nil, {{"fra1", 1, 2}}, {{"fra1", 1, 2}, {"fra2", 3, 4}}} {
		b, err := EncodeRegisters(registers)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:len(b)-registersTail])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		registers, err := RestoreRegisters(signed(body))
		if err != nil {
			if registers != nil {
				t.Fatal("registers and an error")
			}
			return
		}
		again, err := EncodeRegisters(registers)
		if err != nil || !bytes.Equal(again, signed(body)) {
			t.Fatalf("re-encoded %x, %v; from %x", again, err, body)
		}
	})
}
