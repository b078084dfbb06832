package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strconv"
)

// Limits of a header.
const (
	// MaxLine is the length of the longest header of version 1.
	MaxLine = 107
	// MaxBinary is the length of the longest header of version 2 that is read,
	// TLVs included. The format would allow 65,551.
	MaxBinary = 4096
)

// The ways in which bytes are no header.
var (
	// ErrIncomplete: so far it is the beginning of one.
	ErrIncomplete = errors.New("the PROXY header is not complete")
	// ErrNone: it does not begin like one.
	ErrNone = errors.New("no PROXY header")
	// ErrInvalid: it begins like one and breaks the rules. Errors wrap it and say which.
	ErrInvalid = errors.New("invalid PROXY header")
)

// signature begins version 2, prefix version 1.
const (
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	prefix    = "PROXY "
)

// A Header is what a PROXY header says.
type Header struct {
	// Version is 1 or 2.
	Version int
	// Local: the proxy speaks for itself, or does not know the client. Source and
	// Destination are invalid, and the connection's own addresses hold.
	Local bool
	// Source is the client, Destination the address that it connected to.
	Source, Destination netip.AddrPort
	// TLVs are the type-length-value fields of version 2 as they came, checked to be
	// well-formed and, if there is a checksum, to be whole. They are part of the bytes given to Parse.
	TLVs []byte
}

// Starts reports whether b begins like a header of either version, or could
// still become one (maybe).
func Starts(b []byte) (yes, maybe bool) {
	for _, s := range []string{signature, prefix} {
		n := min(len(s), len(b))
		if string(b[:n]) == s[:n] {
			return n == len(s), n < len(s)
		}
	}
	return false, false
}

// Parse reads the header at the beginning of b and returns its length.
func Parse(b []byte) (Header, int, error) {
	yes, maybe := Starts(b)
	switch {
	case maybe:
		return Header{}, 0, ErrIncomplete
	case !yes:
		return Header{}, 0, ErrNone
	case b[0] == prefix[0]:
		return parseLine(b)
	}
	return parseBinary(b)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// parseLine reads version 1.
func parseLine(b []byte) (Header, int, error) {
	end := bytes.Index(b[:min(len(b), MaxLine)], []byte("\r\n"))
	switch {
	case end < 0 && len(b) >= MaxLine:
		return Header{}, 0, invalid("the line is longer than %d bytes", MaxLine)
	case end < 0:
		return Header{}, 0, ErrIncomplete
	}
	fields := bytes.Split(b[len(prefix):end], []byte{' '})
	n := end + 2
	if string(fields[0]) == "UNKNOWN" {
		return Header{Version: 1, Local: true}, n, nil
	}
	if len(fields) != 5 {
		return Header{}, 0, invalid("%d fields, want 5", len(fields))
	}
	var is4 bool
	switch string(fields[0]) {
	case "TCP4":
		is4 = true
	case "TCP6":
	default:
		return Header{}, 0, invalid("protocol %q", fields[0])
	}
	source, err := parseAddress(fields[1], fields[3], is4)
	if err != nil {
		return Header{}, 0, err
	}
	destination, err := parseAddress(fields[2], fields[4], is4)
	if err != nil {
		return Header{}, 0, err
	}
	return Header{Version: 1, Source: source, Destination: destination}, n, nil
}

func parseAddress(text, port []byte, is4 bool) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(string(text))
	if err != nil || a.Zone() != "" || a.Is4() != is4 {
		return netip.AddrPort{}, invalid("address %q", text)
	}
	if len(port) == 0 || len(port) > 1 && port[0] == '0' || port[0] == '+' || port[0] == '-' {
		return netip.AddrPort{}, invalid("port %q", port)
	}
	p, err := strconv.ParseUint(string(port), 10, 16)
	if err != nil {
		return netip.AddrPort{}, invalid("port %q", port)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), nil
}

// fixed is the length of what comes before the addresses of version 2.
const fixed = len(signature) + 4

// parseBinary reads version 2.
func parseBinary(b []byte) (Header, int, error) {
	if len(b) < fixed {
		return Header{}, 0, ErrIncomplete
	}
	command, family := b[12], b[13]
	if command != 0x20 && command != 0x21 {
		return Header{}, 0, invalid("version and command %#02x", command)
	}
	n := fixed + int(binary.BigEndian.Uint16(b[14:]))
	switch {
	case n > MaxBinary:
		return Header{}, 0, invalid("%d bytes long, at most %d are read", n, MaxBinary)
	case len(b) < n:
		return Header{}, 0, ErrIncomplete
	}
	h := Header{Version: 2}
	body := b[fixed:n]
	size := 0
	switch family {
	case 0x00:
		h.Local = true
	case 0x11:
		size = 12
	case 0x21:
		size = 36
	case 0x31: // unix sockets: nobody's address
		size, h.Local = 216, true
	default:
		if command == 0x21 {
			return Header{}, 0, invalid("address family and protocol %#02x", family)
		}
	}
	if command == 0x20 { // whatever the addresses are, they are to be ignored
		h.Local = true
		size = min(size, len(body))
	}
	if len(body) < size {
		return Header{}, 0, invalid("%d bytes of addresses, want %d", len(body), size)
	}
	if !h.Local {
		half := (size - 4) / 2
		source, _ := netip.AddrFromSlice(body[:half])
		destination, _ := netip.AddrFromSlice(body[half : 2*half])
		h.Source = netip.AddrPortFrom(source.Unmap(), binary.BigEndian.Uint16(body[2*half:]))
		h.Destination = netip.AddrPortFrom(destination.Unmap(), binary.BigEndian.Uint16(body[2*half+2:]))
	}
	h.TLVs = body[size:]
	if err := checkTLVs(b[:n], n-len(h.TLVs)); err != nil {
		return Header{}, 0, err
	}
	return h, n, nil
}

// Types of TLVs.
const (
	TypeALPN      = 0x01
	TypeAuthority = 0x02
	TypeCRC32C    = 0x03
	TypeNoop      = 0x04
	TypeUniqueID  = 0x05
	TypeSSL       = 0x20
	TypeNetNS     = 0x30
)

// maxUniqueID is the length of the longest unique id.
const maxUniqueID = 128

// checkTLVs checks the TLVs of a whole header, which begin at from.
func checkTLVs(header []byte, from int) error {
	seen := false
	for at := from; at < len(header); {
		if len(header)-at < 3 {
			return invalid("a TLV is cut")
		}
		kind, size := header[at], int(binary.BigEndian.Uint16(header[at+1:]))
		value := header[at+3:]
		if len(value) < size {
			return invalid("TLV %#02x is cut", kind)
		}
		switch kind {
		case TypeCRC32C:
			if seen || size != 4 {
				return invalid("bad checksum TLV")
			}
			seen = true
			if sum(header, at+3) != binary.BigEndian.Uint32(value) {
				return invalid("wrong checksum")
			}
		case TypeUniqueID:
			if size > maxUniqueID {
				return invalid("a unique id of %d bytes, at most %d are allowed", size, maxUniqueID)
			}
		}
		at += 3 + size
	}
	return nil
}

// sum is the checksum of a header, with the four bytes at hole taken as zero.
func sum(header []byte, hole int) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	c := crc32.Update(0, table, header[:hole])
	c = crc32.Update(c, table, []byte{0, 0, 0, 0})
	return crc32.Update(c, table, header[hole+4:])
}

// Each calls f for every TLV of well-formed TLVs.
func Each(tlvs []byte, f func(kind byte, value []byte)) {
	for len(tlvs) >= 3 {
		size := int(binary.BigEndian.Uint16(tlvs[1:]))
		if len(tlvs) < 3+size {
			return
		}
		f(tlvs[0], tlvs[3:3+size])
		tlvs = tlvs[3+size:]
	}
}
