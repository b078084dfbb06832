package proxyproto

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"testing"

	oracle "github.com/pires/go-proxyproto"
)

// A vector is a header as the specification of the protocol describes or shows it, put together byte by byte and not by
// what this package writes headers with.
type vector struct {
	name                string
	header              []byte
	version             int
	source, destination string // "" = Local
	tlvs                []TLV
}

// tlv is one field.
func tlv(kind byte, value ...byte) []byte {
	return append([]byte{kind, byte(len(value) >> 8), byte(len(value))}, value...)
}

// tlvSSL is the field of a connection over TLS: client is the field of bits, then the result of the verification, and fields in it.
func tlvSSL(client byte, verify uint32, fields ...[]byte) []byte {
	return tlv(TypeSSL, append(binary.BigEndian.AppendUint32([]byte{client}, verify), bytes.Join(fields, nil)...)...)
}

// summed fills in the checksum of a header that ends with the field of it.
func summed(header []byte) []byte {
	c := crc32.Checksum(header, crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(header[len(header)-4:], c)
	return header
}

// vectors are those of version 1 that the specification shows, and one of version 2 for each address family, command and field.
func vectors() []vector {
	ones := "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
	at6 := append(netip.MustParseAddr("2001:db8::1").AsSlice(), netip.MustParseAddr("2001:db8::2").AsSlice()...)
	at6 = append(at6, 0x30, 0x39, 0x01, 0xbb)
	sockets := make([]byte, 216)
	copy(sockets, "/run/client")
	copy(sockets[108:], "/run/server")
	out := []vector{
		{"v1 example", []byte("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"), 1, "192.168.0.1:56324", "192.168.0.11:443", nil},
		{"v1 longest of IPv4", []byte("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"), 1, "255.255.255.255:65535", "255.255.255.255:65535", nil},
		{"v1 longest of IPv6", []byte("PROXY TCP6 " + ones + " " + ones + " 65535 65535\r\n"), 1, "[" + ones + "]:65535", "[" + ones + "]:65535", nil},
		{"v1 unknown", []byte("PROXY UNKNOWN\r\n"), 1, "", "", nil},
		{"v1 longest", []byte("PROXY UNKNOWN " + ones + " " + ones + " 65535 65535\r\n"), 1, "", "", nil},
		{"v2 local, unspecified", binaryHeader(0x20, 0x00, nil), 2, "", "", nil},
		{"v2 local with addresses", binaryHeader(0x20, 0x11, tcp4), 2, "", "", nil},
		{"v2 unspecified", binaryHeader(0x21, 0x00, nil), 2, "", "", nil},
		{"v2 TCP over IPv4", binaryHeader(0x21, 0x11, tcp4), 2, "192.0.2.1:12345", "198.51.100.2:443", nil},
		{"v2 TCP over IPv6", binaryHeader(0x21, 0x21, at6), 2, "[2001:db8::1]:12345", "[2001:db8::2]:443", nil},
		{"v2 UNIX stream", binaryHeader(0x21, 0x31, sockets), 2, "", "", nil},
	}
	name := []byte("www.example.com")
	fields := []struct {
		name  string
		field []byte
	}{
		{"ALPN", tlv(TypeALPN, 'h', '2')},
		{"authority", tlv(TypeAuthority, name...)},
		{"noop", tlv(TypeNoop, 0, 0, 0, 0, 0)},
		{"empty noop", tlv(TypeNoop)},
		{"unique id", tlv(TypeUniqueID, 0xde, 0xad, 0xbe, 0xef)},
		{"longest unique id", tlv(TypeUniqueID, bytes.Repeat([]byte{7}, maxUniqueID)...)},
		{"SSL without fields", tlvSSL(0x01, 0)},
		{"SSL", tlvSSL(0x07, 0, tlv(0x21, []byte("TLSv1.3")...), tlv(0x22, []byte("client")...), tlv(0x23, []byte("TLS_AES_128_GCM_SHA256")...),
			tlv(0x24, []byte("SHA256")...), tlv(0x25, []byte("RSA2048")...))},
		{"SSL, not verified", tlvSSL(0x01, 1, tlv(0x21, []byte("TLSv1.2")...))},
		{"namespace", tlv(TypeNetNS, []byte("blue")...)},
		{"custom", tlv(0xe0, 1, 2, 3)},
		{"experimental", tlv(0xf0, 1)},
		{"future", tlv(0xf8)},
	}
	all := bytes.Clone(tcp4)
	var every []TLV
	for _, f := range fields {
		one := TLV{f.field[0], f.field[3:]}
		out = append(out, vector{"v2 " + f.name, binaryHeader(0x21, 0x11, append(bytes.Clone(tcp4), f.field...)), 2, "192.0.2.1:12345", "198.51.100.2:443", []TLV{one}})
		if f.name != "longest unique id" {
			all, every = append(all, f.field...), append(every, one)
		}
	}
	check := tlv(TypeCRC32C, 0, 0, 0, 0)
	for name, b := range map[string][]byte{"v2 checksum": bytes.Clone(tcp4), "v2 everything": all} {
		v := vector{name, summed(binaryHeader(0x21, 0x11, append(b, check...))), 2, "192.0.2.1:12345", "198.51.100.2:443", nil}
		if name == "v2 everything" {
			v.tlvs = append(v.tlvs, every...)
		}
		v.tlvs = append(v.tlvs, TLV{TypeCRC32C, v.header[len(v.header)-4:]})
		out = append(out, v)
	}
	return out
}

// TestVectors: each is read as what it says, by others, too, and what follows it is left alone.
func TestVectors(t *testing.T) {
	for _, v := range vectors() {
		t.Run(v.name, func(t *testing.T) {
			h, n, err := Parse(append(bytes.Clone(v.header), "GET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n"...))
			if err != nil || n != len(v.header) || h.Version != v.version || h.Local != (v.source == "") {
				t.Fatalf("got %+v, %d, %v", h, n, err)
			}
			if !h.Local && (h.Source.String() != v.source || h.Destination.String() != v.destination) {
				t.Errorf("got %s → %s, want %s → %s", h.Source, h.Destination, v.source, v.destination)
			}
			var got []TLV
			Each(h.TLVs, func(kind byte, value []byte) { got = append(got, TLV{kind, value}) })
			same := len(got) == len(v.tlvs)
			for i := range got {
				same = same && got[i].Type == v.tlvs[i].Type && bytes.Equal(got[i].Value, v.tlvs[i].Value)
			}
			if !same {
				t.Errorf("fields %v, want %v", got, v.tlvs)
			}
			theirs, err := oracle.Read(bufio.NewReader(bytes.NewReader(v.header)))
			if err != nil && !h.Local { // of whom they demand more
				t.Fatalf("others cannot read it: %v", err)
			}
			if h.Local {
				return
			}
			if source, destination, ok := theirs.TCPAddrs(); !ok || source.String() != v.source || destination.String() != v.destination {
				t.Errorf("others read %v → %v", source, destination)
			}
			for i := range v.header { // no byte of a checksummed header may change, but the one that says that it is
				if i == len(v.header)-len(tlv(TypeCRC32C, 0, 0, 0, 0)) {
					continue
				}
				if v.tlvs == nil || v.tlvs[len(v.tlvs)-1].Type != TypeCRC32C {
					break
				}
				bad := bytes.Clone(v.header)
				bad[i] ^= 0x10
				if h, _, err := Parse(bad); err == nil && !h.Local {
					t.Fatalf("byte %d is another one, and it was read as %+v", i, h)
				}
			}
		})
	}
}
