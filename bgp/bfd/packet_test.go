package bfd

import (
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// wire is a packet as BIRD sends it: up, multiplier 3, 300 ms both ways.
const wire = "20c003181111111122222222000493e0000493e000000000"

func decode(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	got, err := Parse(decode(t, wire))
	want := Packet{
		State: Up, Multiplier: 3, Mine: 0x11111111, Yours: 0x22222222,
		DesiredMinTx: 300 * time.Millisecond, RequiredMinRx: 300 * time.Millisecond,
	}
	if err != nil || got != want {
		t.Fatalf("Parse = %+v, %v, want %+v", got, err, want)
	}
	if again := hex.EncodeToString(want.Append(nil)); again != wire {
		t.Errorf("Append = %s, want %s", again, wire)
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(b []byte) []byte
		want   error
	}{
		{"empty", func([]byte) []byte { return nil }, ErrShort},
		{"cut", func(b []byte) []byte { return b[:23] }, ErrShort},
		{"version 0", func(b []byte) []byte { b[0] = 0; return b }, ErrVersion},
		{"version 2", func(b []byte) []byte { b[0] = 2 << 5; return b }, ErrVersion},
		{"length below the header", func(b []byte) []byte { b[3] = 23; return b }, ErrLength},
		{"length beyond the datagram", func(b []byte) []byte { b[3] = 25; return b }, ErrLength},
		{"multiplier 0", func(b []byte) []byte { b[2] = 0; return b }, ErrMultiplier},
		{"multipoint", func(b []byte) []byte { b[1] |= 1; return b }, ErrMultipoint},
		{"sender's discriminator 0", func(b []byte) []byte { clear(b[4:8]); return b }, ErrDiscriminator},
		{"up without our discriminator", func(b []byte) []byte { clear(b[8:12]); return b }, ErrDiscriminator},
		{"init without our discriminator", func(b []byte) []byte { clear(b[8:12]); b[1] = 0x80; return b }, ErrDiscriminator},
		{"down without our discriminator", func(b []byte) []byte { clear(b[8:12]); b[1] = 0x40; return b }, nil},
		{"admin down without our discriminator", func(b []byte) []byte { clear(b[8:12]); b[1] = 0; return b }, nil},
		{"authenticated", func(b []byte) []byte { b[1] |= 4; return b }, ErrAuth},
		{"trailing bytes", func(b []byte) []byte { return append(b, 1, 2, 3) }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse(tt.change(decode(t, wire))); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

// oracle reads a packet bit by bit, as the figure of RFC 5880, section 4.1 draws it.
func oracle(b []byte) (Packet, bool) {
	at := 0
	take := func(bits int) (v uint32) {
		for range bits {
			v = v<<1 | uint32(b[at/8]>>(7-at%8)&1)
			at++
		}
		return v
	}
	flag := func() bool { return take(1) == 1 }
	if len(b) < 24 {
		return Packet{}, false
	}
	vers := take(3)
	var p Packet
	p.Diag, p.State = Diag(take(5)), State(take(2))
	p.Poll, p.Final, p.ControlPlaneIndp = flag(), flag(), flag()
	auth := flag()
	p.Demand = flag()
	multipoint := flag()
	p.Multiplier = uint8(take(8))
	length := int(take(8))
	p.Mine, p.Yours = take(32), take(32)
	p.DesiredMinTx = time.Duration(take(32)) * time.Microsecond
	p.RequiredMinRx = time.Duration(take(32)) * time.Microsecond
	p.RequiredMinEcho = time.Duration(take(32)) * time.Microsecond
	ok := vers == 1 && length >= 24 && length <= len(b) && p.Multiplier != 0 && !multipoint && p.Mine != 0 &&
		(p.Yours != 0 || p.State <= Down) && !auth
	return p, ok
}

func FuzzParse(f *testing.F) {
	f.Add(decode(f, wire))
	f.Add(decode(f, "2348050000000001000000000000000100000001000000ff"))
	f.Add(decode(f, "20c403281111111122222222000493e0000493e0000000000210010100000001"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Parse(b)
		want, ok := oracle(b)
		if ok != (err == nil) {
			t.Fatalf("Parse(%x): %v, the oracle says %v", b, err, ok)
		}
		if err != nil {
			return
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("Parse(%x):\n%s", b, d)
		}
		again, err := Parse(got.Append(nil))
		if err != nil || again != got {
			t.Fatalf("%+v comes back as %+v, %v", got, again, err)
		}
	})
}
