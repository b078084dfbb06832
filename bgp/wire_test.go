package bgp

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func genRoute(t *rapid.T) Route {
	return Route{
		Prefix:    genPrefix(t),
		NextHop:   netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "hop")}),
		Standing:  Standing(rapid.ByteRange(0, 2).Draw(t, "standing")),
		LocalOnly: rapid.Bool().Draw(t, "local only"),
		Attributes: Attributes{
			Communities: rapid.SliceOfN(rapid.Uint32(), 0, 3).Draw(t, "communities"),
			Large:       rapid.SliceOfN(rapid.Just(LargeCommunity{64500, 1, 2}), 0, 1).Draw(t, "large"),
			Extended:    rapid.SliceOfN(rapid.Just("rt:64500:1"), 0, 1).Draw(t, "extended"),
			MED:         rapid.Uint32Range(0, 3).Draw(t, "med"),
			Prepend:     rapid.IntRange(0, 3).Draw(t, "prepend"),
		},
	}
}

// genPrefix draws from few prefixes, so that sets of them meet.
func genPrefix(t *rapid.T) netip.Prefix {
	n := rapid.ByteRange(0, 9).Draw(t, "prefix")
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, n, 0}), 24)
}

func TestMessageRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := order{
			Kind: orderState, Generation: rapid.Uint64().Draw(t, "generation"),
			Config: Config{ASN: rapid.Uint32().Draw(t, "asn"), LocalAddress: netip.MustParseAddr("192.0.2.1")},
			Peers:  []Peer{{Address: netip.MustParseAddr("2001:db8::1"), Password: rapid.String().Draw(t, "password")}},
			Routes: rapid.SliceOfN(rapid.Custom(genRoute), 0, 5).Draw(t, "routes"),
		}
		var b bytes.Buffer
		for range 2 { // two in a row: the first must not eat of the second
			if err := writeMessage(&b, want); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			var got order
			if err := readMessage(&b, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("(-want +got):\n%s", diff)
			}
		}
		var none order
		if err := readMessage(&b, &none); !errors.Is(err, io.EOF) {
			t.Fatalf("after the last message: %v, want EOF", err)
		}
	})
}

func TestMessageTooLong(t *testing.T) {
	var b bytes.Buffer
	if err := writeMessage(&b, strings.Repeat("x", maxMessage)); !errors.Is(err, errTooLong) {
		t.Errorf("write: %v, want errTooLong", err)
	}
	if b.Len() != 0 {
		t.Errorf("%d bytes were written of a message that is too long", b.Len())
	}
	binary.Write(&b, binary.BigEndian, uint32(maxMessage+1)) // a buffer takes all
	if _, err := readFrame(&b); !errors.Is(err, errTooLong) {
		t.Errorf("read: %v, want errTooLong", err)
	}
}

// TestLargestStateFits: the limits on routes and peers keep within the limit on messages.
func TestLargestStateFits(t *testing.T) {
	o := order{Kind: orderState}
	for i := range MaxRoutes {
		r := Route{
			Prefix:  netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, byte(i >> 8), byte(i), 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}), 128),
			NextHop: netip.MustParseAddr("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"), Attributes: Attributes{MED: 1<<32 - 1},
			To: make([]Override, MaxOverrides),
		}
		for j := range MaxCommunities {
			r.Communities = append(r.Communities, 1<<32-1-uint32(j))
		}
		for j := range r.To {
			r.To[j] = Override{Peers: []netip.Prefix{r.Prefix}, Attributes: r.Attributes}
		}
		o.Routes = append(o.Routes, r)
	}
	for range MaxPeers {
		o.Peers = append(o.Peers, Peer{Password: string(make([]byte, MaxPassword))})
	}
	if err := writeMessage(io.Discard, o); err != nil {
		t.Errorf("the largest state: %v", err)
	}
}

// FuzzReadMessage holds readFrame to an independent reading of the same bytes.
func FuzzReadMessage(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{0, 0, 0, 2, '{'})
	f.Add([]byte{255, 255, 255, 255})
	f.Add([]byte("\x00\x00\x00\x0f" + `{"Kind":"stop"}` + "\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		got, err := readFrame(r)
		var want []byte
		ok := false
		if len(in) >= 4 {
			n := int(in[0])<<24 | int(in[1])<<16 | int(in[2])<<8 | int(in[3])
			if n <= maxMessage && len(in)-4 >= n {
				want, ok = in[4:4+n], true
			}
		}
		if ok != (err == nil) {
			t.Fatalf("readFrame(%x) = %v, want success: %v", in, err, ok)
		}
		if !ok {
			return
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("readFrame(%x) = %x, want %x", in, got, want)
		}
		if r.Len() != len(in)-4-len(want) {
			t.Fatalf("readFrame(%x) left %d bytes", in, r.Len())
		}
		// What decodes encodes to something that decodes to the same.
		var o, again order
		if json.Unmarshal(got, &o) != nil {
			return
		}
		var b bytes.Buffer
		if err := writeMessage(&b, o); err != nil {
			t.Fatalf("write of what was read: %v", err)
		}
		if err := readMessage(&b, &again); err != nil {
			t.Fatalf("second read: %v", err)
		}
		if !cmp.Equal(o, again, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()) {
			t.Fatalf("round trip of %s: %+v, then %+v", got, o, again)
		}
	})
}
