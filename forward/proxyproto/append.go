package proxyproto

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// AppendLine appends a header of version 1. Addresses of two families, or
// invalid ones, make it UNKNOWN.
func AppendLine(b []byte, source, destination netip.AddrPort) []byte {
	s, d := source.Addr(), destination.Addr()
	b = append(b, prefix...)
	switch {
	case s.Is4() && d.Is4():
		b = append(b, "TCP4 "...)
	case s.Is6() && d.Is6():
		b = append(b, "TCP6 "...)
	default:
		return append(b, "UNKNOWN\r\n"...)
	}
	b = s.WithZone("").AppendTo(b)
	b = append(b, ' ')
	b = d.WithZone("").AppendTo(b)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(source.Port()), 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(destination.Port()), 10)
	return append(b, '\r', '\n')
}

// A TLV is one field of a header of version 2.
type TLV struct {
	Type  byte
	Value []byte
}

// AppendBinary appends a header of version 2. An IPv4 address next to an IPv6
// one is written as the IPv6 address that means it. With checksum it ends with
// a CRC-32C of itself. TLVs that would make it longer than MaxBinary are left
// out, from the first that does.
func AppendBinary(b []byte, source, destination netip.AddrPort, tlvs []TLV, checksum bool) []byte {
	begin := len(b)
	b = append(b, signature...)
	s, d := source.Addr(), destination.Addr()
	switch {
	case !s.IsValid() || !d.IsValid():
		b = append(b, 0x20, 0x00, 0, 0)
	case s.Is4() && d.Is4():
		b = append(b, 0x21, 0x11, 0, 0)
		b = append(b, s.AsSlice()...)
		b = append(b, d.AsSlice()...)
	default:
		b = append(b, 0x21, 0x21, 0, 0)
		s16, d16 := s.As16(), d.As16()
		b = append(b, s16[:]...)
		b = append(b, d16[:]...)
	}
	if b[begin+12] == 0x21 {
		b = binary.BigEndian.AppendUint16(b, source.Port())
		b = binary.BigEndian.AppendUint16(b, destination.Port())
	}
	room := MaxBinary
	if checksum {
		room -= 7
	}
	for _, t := range tlvs {
		if len(b)-begin+3+len(t.Value) > room {
			break
		}
		b = append(b, t.Type)
		b = binary.BigEndian.AppendUint16(b, uint16(len(t.Value)))
		b = append(b, t.Value...)
	}
	if checksum {
		b = append(b, TypeCRC32C, 0, 4, 0, 0, 0, 0)
	}
	binary.BigEndian.PutUint16(b[begin+14:], uint16(len(b)-begin-fixed))
	if checksum {
		binary.BigEndian.PutUint32(b[len(b)-4:], sum(b[begin:], len(b)-begin-4))
	}
	return b
}
