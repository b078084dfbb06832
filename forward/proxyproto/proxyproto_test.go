package proxyproto

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	oracle "github.com/pires/go-proxyproto"
)

// binaryHeader is a header of version 2 with any command, family and body.
func binaryHeader(command, family byte, body []byte) []byte {
	b := append([]byte(signature), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

var tcp4 = []byte{192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 0x01, 0xbb}

func TestParse(t *testing.T) {
	longest := "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
	tests := []struct {
		name   string
		in     string
		source string // "" = Local
		err    error
	}{
		{"v1 tcp4", "PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n", "192.0.2.1:12345", nil},
		{"v1 tcp6", "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", "[2001:db8::1]:1", nil},
		{"v1 longest", longest, "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", nil},
		{"v1 unknown", "PROXY UNKNOWN\r\n", "", nil},
		{"v1 unknown with words", "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "", nil},
		{"v1 too long", "PROXY UNKNOWN " + strings.Repeat("x", 100) + "\r\n", "", ErrInvalid},
		{"v1 endless", "PROXY TCP4 " + strings.Repeat("1", 200), "", ErrInvalid},
		{"v1 family differs", "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", "", ErrInvalid},
		{"v1 leading zero", "PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n", "", ErrInvalid},
		{"v1 port too large", "PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n", "", ErrInvalid},
		{"v1 port with zero", "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n", "", ErrInvalid},
		{"v1 port with sign", "PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n", "", ErrInvalid},
		{"v1 two spaces", "PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n", "", ErrInvalid},
		{"v1 zone", "PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n", "", ErrInvalid},
		{"v1 udp", "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n", "", ErrInvalid},
		{"v1 bare line feed", "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n", "", ErrIncomplete},
		{"v1 cut", "PROXY TCP4 192.0.2.1", "", ErrIncomplete},
		{"cut signature", signature[:7], "", ErrIncomplete},
		{"nothing", "", "", ErrIncomplete},
		{"something else", "GET / HTTP/1.1\r\n", "", ErrNone},
		{"lower case", "proxy tcp4", "", ErrNone},
		{"v2 tcp4", string(binaryHeader(0x21, 0x11, tcp4)), "192.0.2.1:12345", nil},
		{"v2 local", string(binaryHeader(0x20, 0x11, tcp4)), "", nil},
		{"v2 local, no body", string(binaryHeader(0x20, 0, nil)), "", nil},
		{"v2 unspecified", string(binaryHeader(0x21, 0, nil)), "", nil},
		{"v2 unix", string(binaryHeader(0x21, 0x31, make([]byte, 216))), "", nil},
		{"v2 addresses cut", string(binaryHeader(0x21, 0x11, tcp4[:11])), "", ErrInvalid},
		{"v2 datagrams", string(binaryHeader(0x21, 0x12, tcp4)), "", ErrInvalid},
		{"v2 version 3", string(binaryHeader(0x31, 0x11, tcp4)), "", ErrInvalid},
		{"v2 command 2", string(binaryHeader(0x22, 0x11, tcp4)), "", ErrInvalid},
		{"v2 too long", string(binaryHeader(0x21, 0x11, make([]byte, MaxBinary))), "", ErrInvalid},
		{"v2 cut TLV", string(binaryHeader(0x21, 0x11, append(bytes.Clone(tcp4), 1, 0, 9, 'x'))), "", ErrInvalid},
		{"v2 half a TLV", string(binaryHeader(0x21, 0x11, append(bytes.Clone(tcp4), 1, 0))), "", ErrInvalid},
		{"v2 wrong checksum", string(binaryHeader(0x21, 0x11, append(bytes.Clone(tcp4), 3, 0, 4, 1, 2, 3, 4))), "", ErrInvalid},
		{"v2 cut", string(binaryHeader(0x21, 0x11, tcp4)[:20]), "", ErrIncomplete},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, n, err := Parse([]byte(tt.in + "rest")[:len(tt.in)+4*min(1, len(tt.in))*btoi(tt.err == nil)])
			if !errors.Is(err, tt.err) {
				t.Fatalf("got error %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			if n != len(tt.in) {
				t.Errorf("%d bytes, want %d", n, len(tt.in))
			}
			if h.Local != (tt.source == "") || !h.Local && h.Source.String() != tt.source {
				t.Errorf("got %+v, want %s", h, tt.source)
			}
			for cut := range len(tt.in) { // every beginning is incomplete, never something else
				if _, _, err := Parse([]byte(tt.in[:cut])); !errors.Is(err, ErrIncomplete) {
					t.Fatalf("the first %d bytes: %v", cut, err)
				}
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestAppend: what is written is read back, by us and by others.
func TestAppend(t *testing.T) {
	a4, b4 := netip.MustParseAddrPort("192.0.2.1:1234"), netip.MustParseAddrPort("198.51.100.2:443")
	a6, b6 := netip.MustParseAddrPort("[2001:db8::1]:1234"), netip.MustParseAddrPort("[2001:db8::2]:443")
	tlvs := []TLV{{TypeAuthority, []byte("www.example.com")}, {TypeALPN, []byte("h2")}, {0xe0, make([]byte, 300)}}
	for _, tt := range []struct {
		name   string
		header []byte
		source netip.AddrPort
	}{
		{"line 4", AppendLine(nil, a4, b4), a4},
		{"line 6", AppendLine(nil, a6, b6), a6},
		{"line mixed", AppendLine(nil, a4, b6), netip.AddrPort{}},
		{"binary 4", AppendBinary(nil, a4, b4, tlvs, true), a4},
		{"binary 6", AppendBinary(nil, a6, b6, nil, false), a6},
		{"binary mixed", AppendBinary(nil, a4, b6, tlvs, true), a4},
		{"binary nobody", AppendBinary(nil, netip.AddrPort{}, b6, tlvs, true), netip.AddrPort{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, n, err := Parse(append(bytes.Clone(tt.header), "GET"...))
			if err != nil || n != len(tt.header) || h.Source != tt.source || h.Local != !tt.source.IsValid() {
				t.Fatalf("got %+v, %d, %v", h, n, err)
			}
			theirs, err := oracle.Read(bufio.NewReader(bytes.NewReader(tt.header)))
			if err != nil {
				t.Fatalf("others cannot read it: %v", err)
			}
			if tt.source.IsValid() {
				if got := theirs.SourceAddr.String(); got != tt.source.String() && !strings.Contains(got, "192.0.2.1") {
					t.Errorf("others read %s, want %s", got, tt.source)
				}
			}
		})
	}
	var got []TLV
	h, _, _ := Parse(AppendBinary(nil, a4, b4, tlvs, true))
	Each(h.TLVs, func(kind byte, value []byte) { got = append(got, TLV{kind, value}) })
	if len(got) != 4 || got[0].Type != TypeAuthority || string(got[0].Value) != "www.example.com" || got[3].Type != TypeCRC32C {
		t.Errorf("got %v", got)
	}
	huge := AppendBinary(nil, a4, b4, []TLV{{0xe0, make([]byte, 3000)}, {0xe1, make([]byte, 3000)}}, true)
	if _, n, err := Parse(huge); err != nil || n != len(huge) || n > MaxBinary {
		t.Errorf("TLVs that do not fit: %d, %v", n, err)
	}
}

// FuzzParse: what we take a laxer reader takes for the same, and what is
// incomplete stays a header's beginning.
func FuzzParse(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\nrest"))
	f.Add([]byte("PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add(binaryHeader(0x21, 0x11, tcp4))
	f.Add(binaryHeader(0x20, 0, nil))
	f.Add(AppendBinary(nil, netip.MustParseAddrPort("[2001:db8::1]:1"), netip.MustParseAddrPort("[2001:db8::2]:2"),
		[]TLV{{TypeUniqueID, []byte("id")}}, true))
	for _, v := range vectors() {
		f.Add(append(bytes.Clone(v.header), "rest"...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := Parse(b)
		if err != nil {
			return
		}
		if n > len(b) || n > MaxBinary {
			t.Fatalf("%d bytes of %d", n, len(b))
		}
		theirs, err := oracle.Read(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			// They demand of LOCAL and of unknown clients more than the specification does.
			if h.Local {
				return
			}
			t.Fatalf("we read %+v, others: %v", h, err)
		}
		if h.Local {
			return
		}
		source, destination, ok := theirs.TCPAddrs()
		if !ok {
			t.Fatalf("others read %+v, we %+v", theirs, h)
		}
		unmap := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
		if unmap(source.AddrPort()) != h.Source || unmap(destination.AddrPort()) != h.Destination {
			t.Fatalf("we read %v → %v, others %v → %v", h.Source, h.Destination, source, destination)
		}
	})
}
