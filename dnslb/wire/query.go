package wire

import (
	"encoding/binary"
	"net/netip"
)

// A Query is one parsed query. Its slices alias the message that was parsed, so
// it lives no longer than that message. Its owner uses it again for the next.
type Query struct {
	ID     uint16
	Opcode uint8
	RD     bool

	// Question is the question section as received, empty when it could not be
	// read: it is what the response repeats, byte for byte.
	Question    []byte
	Name        Name
	Type, Class uint16

	// EDNS: an OPT record was there (RFC 6891).
	EDNS    bool
	Version uint8
	DO      bool
	UDPSize uint16 // at least 512
	// NSID and Keepalive: the client asks for these options.
	NSID, Keepalive bool
	// ECS is the client subnet option, HasECS whether there was one.
	HasECS bool
	ECS    Subnet
	// TSIG: the query is signed.
	TSIG bool

	badECS, badKeepalive bool
	signature            signature
}

// A Subnet is an EDNS Client Subnet option (RFC 7871) as a query carries it.
type Subnet struct {
	Family uint16 // 1 IPv4, 2 IPv6; 0 only with Source 0
	Source uint8  // prefix length that the client reveals
	// Addr is the prefix's address; invalid with Source 0.
	Addr netip.Addr
	raw  []byte // address octets as received
}

// BadECS reports whether the query has a client subnet option that breaks
// RFC 7871. A server that heeds the option answers FORMERR; others ignore it.
func (q *Query) BadECS() bool { return q.badECS }

// BadKeepalive reports whether the query has a keepalive option with a time,
// which only servers may give. A server answers FORMERR over TCP and ignores
// the option over UDP (RFC 7828 3.2.1).
func (q *Query) BadKeepalive() bool { return q.badKeepalive }

// Parse reads a message. ok is false when it deserves no response at all:
// shorter than a header, or a response itself. Otherwise rcode is NoError when
// q can be answered, or what to respond with: FORMERR for what is malformed or
// has other than one question (RFC 9619), NOTIMP or REFUSED for other opcodes,
// BADVERS for an EDNS version over 0. Fields of q that could be read before the
// problem are set. The message may be up to 65535 octets.
func Parse(msg []byte, q *Query) (rcode Rcode, ok bool) {
	q.reset()
	if len(msg) < HeaderSize || msg[2]&0x80 != 0 {
		return 0, false
	}
	q.ID = binary.BigEndian.Uint16(msg)
	q.Opcode = msg[2] >> 3 & 0xf
	q.RD = msg[2]&1 != 0
	switch q.Opcode {
	case OpcodeQuery:
	case OpcodeNotify, OpcodeUpdate:
		q.question(msg)
		q.ednsOnly(msg)
		return Refused, true
	default:
		q.ednsOnly(msg)
		return NotImp, true
	}
	if binary.BigEndian.Uint16(msg[4:]) != 1 {
		q.ednsOnly(msg)
		return FormErr, true
	}
	off, ok := q.question(msg)
	if !ok {
		return FormErr, true
	}
	if binary.BigEndian.Uint64(msg[4:])&0xffff_ffff_ffff == 0 && off == len(msg) {
		off = -1 // nothing but the question
	}
	if q.Type == TypeOPT || off >= 0 && !q.records(msg, off) {
		return FormErr, true
	}
	if q.Version > 0 {
		return BadVers, true
	}
	return NoError, true
}

// reset clears everything but Name, which question overwrites.
func (q *Query) reset() {
	q.ID, q.Opcode, q.RD = 0, 0, false
	q.Question, q.Type, q.Class = nil, 0, 0
	q.TSIG, q.signature = false, signature{}
	q.resetEDNS()
}

func (q *Query) resetEDNS() {
	q.EDNS, q.Version, q.DO, q.UDPSize = false, 0, false, MinUDPSize
	q.NSID, q.Keepalive, q.badKeepalive = false, false, false
	q.HasECS, q.badECS, q.ECS = false, false, Subnet{}
}

// question reads the one question behind the header and returns its end.
func (q *Query) question(msg []byte) (int, bool) {
	if binary.BigEndian.Uint16(msg[4:]) != 1 {
		return 0, false
	}
	n, ok := q.Name.Set(msg[HeaderSize:])
	end := HeaderSize + n + 4
	if !ok || end > len(msg) {
		return 0, false
	}
	q.Type = binary.BigEndian.Uint16(msg[end-4:])
	q.Class = binary.BigEndian.Uint16(msg[end-2:])
	q.Question = msg[HeaderSize:end]
	return end, true
}

// ednsOnly reads the OPT record of a message that is not answered otherwise:
// the error has to carry one if the query did (RFC 6891 6.1.1). What follows
// the header in a message that cannot be walked says nothing about EDNS.
func (q *Query) ednsOnly(msg []byte) {
	off := HeaderSize
	for range binary.BigEndian.Uint16(msg[4:]) {
		next, ok := skipName(msg, off)
		if off = next + 4; !ok || off > len(msg) {
			return
		}
	}
	if !q.records(msg, off) {
		q.resetEDNS()
	}
	q.TSIG = false // its place and meaning are those of queries
}

// records walks the records after the question: all must be well-formed, and
// OPT may be there once, in the additional section. Nothing may follow.
func (q *Query) records(msg []byte, off int) bool {
	before := int(binary.BigEndian.Uint16(msg[6:])) + int(binary.BigEndian.Uint16(msg[8:]))
	total := before + int(binary.BigEndian.Uint16(msg[10:]))
	for i := range total {
		start := off
		next, ok := skipName(msg, off)
		if !ok || next+10 > len(msg) {
			return false
		}
		rtype := binary.BigEndian.Uint16(msg[next:])
		rdata := next + 10
		end := rdata + int(binary.BigEndian.Uint16(msg[next+8:]))
		if end > len(msg) {
			return false
		}
		switch rtype {
		case TypeOPT:
			if q.EDNS || i < before || msg[start] != 0 || !q.opt(msg[next:rdata], msg[rdata:end]) {
				return false
			}
		case TypeTSIG:
			if i != total-1 || i < before { // RFC 8945 5.2: last, and only once
				return false
			}
			q.TSIG = true
			q.signature = signature{msg[start:next], msg[rdata:end]}
		}
		off = end
	}
	return off == len(msg)
}

// opt reads an OPT record: fixed is type, class, TTL and length.
func (q *Query) opt(fixed, options []byte) bool {
	q.EDNS = true
	q.UDPSize = max(binary.BigEndian.Uint16(fixed[2:]), MinUDPSize)
	q.Version = fixed[5]
	q.DO = fixed[6]&0x80 != 0
	for len(options) > 0 {
		if len(options) < 4 {
			return false
		}
		code := binary.BigEndian.Uint16(options)
		size := int(binary.BigEndian.Uint16(options[2:]))
		if len(options) < 4+size {
			return false
		}
		value := options[4 : 4+size]
		options = options[4+size:]
		switch code {
		case optionNSID:
			q.NSID = true
		case optionKeepalive:
			q.Keepalive = true
			q.badKeepalive = q.badKeepalive || size != 0 // only servers give a time
		case optionECS:
			q.badECS = q.badECS || q.HasECS || !q.ECS.parse(value)
			q.HasECS = true
		}
	}
	return true
}

// parse reads the option as a query may carry it (RFC 7871 6, 7.1): a family
// that exists, scope 0, no more and no fewer octets than the prefix needs, no
// bits beyond it.
func (s *Subnet) parse(value []byte) bool {
	if len(value) < 4 || value[3] != 0 {
		return false
	}
	s.Family = binary.BigEndian.Uint16(value)
	s.Source = value[2]
	s.raw = value[4:]
	if len(s.raw) != (int(s.Source)+7)/8 {
		return false
	}
	if rest := s.Source % 8; rest != 0 && s.raw[len(s.raw)-1]&(0xff>>rest) != 0 {
		return false
	}
	switch {
	case s.Source == 0:
		return s.Family <= 2
	case s.Family == 1 && s.Source <= 32:
		var a [4]byte
		copy(a[:], s.raw)
		s.Addr = netip.AddrFrom4(a)
	case s.Family == 2 && s.Source <= 128:
		var a [16]byte
		copy(a[:], s.raw)
		s.Addr = netip.AddrFrom16(a)
	default:
		return false
	}
	return true
}
