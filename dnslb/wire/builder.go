package wire

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// A Section says where in the response a record goes. Records are added in
// this order.
type Section uint8

// The sections of a response.
const (
	Answer Section = iota
	Authority
	Additional
)

// An Owner is where in the message the owner name of a record already stands:
// an offset that becomes a compression pointer (RFC 1035 4.1.4).
type Owner uint16

// QuestionOwner is the name in the question.
const QuestionOwner Owner = HeaderSize

// maxPointer is the last offset that a compression pointer can name.
const maxPointer = 0x3fff

// A Builder assembles one response at a time. The zero Builder is ready for
// Begin. Records that do not fit are left out whole, never in part.
type Builder struct {
	buf   []byte
	q     *Query
	start int // len of what was in the buffer before the message
	// limit bounds the message without its OPT record.
	limit     int
	reserve   int
	counts    [3]uint16
	truncated bool
}

// A Reply is what the header and the OPT record of a response say.
type Reply struct {
	Rcode         Rcode
	Authoritative bool
	// Scope is the ECS scope; it is only sent when Subnet is set.
	Scope uint8
}

// Options are the EDNS options of a response. They are sent only to a client
// whose query had an OPT record.
type Options struct {
	NSID      string        // sent when not empty
	Subnet    bool          // echo the query's client subnet
	Keepalive time.Duration // sent when over 0; TCP only
	Extended  uint16        // RFC 8914 code; 0 for none
	// UnknownKey: answer the query's TSIG record with error BADKEY, if that fits.
	// It needs no OPT record in the query.
	UnknownKey bool
}

// size returns the octets of the options in the response to q.
func (o *Options) size(q *Query) int {
	size := 0
	if o.NSID != "" {
		size += 4 + len(o.NSID)
	}
	if o.Subnet {
		size += 8 + len(q.ECS.raw)
	}
	if o.Keepalive > 0 {
		size += 6
	}
	if o.Extended != 0 {
		size += 6
	}
	return size
}

// Begin starts the response to q by appending header and question to dst. size
// is the largest message allowed in octets, its OPT record included; at least
// 512, and dst should have that capacity, or the Builder has to allocate.
func (b *Builder) Begin(dst []byte, q *Query, size int) {
	b.q = q
	b.start = len(dst)
	b.counts = [3]uint16{}
	b.truncated = false
	b.reserve = 0
	b.limit = size
	b.buf = append(dst, make([]byte, HeaderSize)...)
	b.buf = append(b.buf, q.Question...)
}

// Reserve keeps room for an OPT record with these options.
func (b *Builder) Reserve(o Options) {
	if b.q.EDNS {
		b.reserve = optBaseSize + o.size(b.q)
	}
}

// Offset returns where the next record begins.
func (b *Builder) Offset() int { return len(b.buf) - b.start }

// Truncated reports whether Truncate was called.
func (b *Builder) Truncated() bool { return b.truncated }

// Truncate sets the TC bit: something that belongs to the response was left out.
func (b *Builder) Truncate() { b.truncated = true }

// A Mark is a point to return to.
type Mark struct {
	length    int
	counts    [3]uint16
	truncated bool
}

// Mark remembers what has been added so far.
func (b *Builder) Mark() Mark { return Mark{len(b.buf), b.counts, b.truncated} }

// Rewind takes back what was added after the mark.
func (b *Builder) Rewind(m Mark) {
	b.buf, b.counts, b.truncated = b.buf[:m.length], m.counts, m.truncated
}

func (b *Builder) fits(size int) bool {
	return len(b.buf)-b.start+size+b.reserve <= b.limit
}

// RRset adds count compiled records, each beginning with a compression pointer
// to the question (see package zone), and gives them the owner. It adds all or
// none, and reports which.
func (b *Builder) RRset(s Section, owner Owner, records []byte, count int) bool {
	if !b.fits(len(records)) || owner > maxPointer {
		return false
	}
	at := len(b.buf)
	b.buf = append(b.buf, records...)
	if owner != QuestionOwner {
		SetOwner(b.buf[at:], owner)
	}
	b.counts[s] += uint16(count)
	return true
}

// SetOwner gives compiled records an owner.
func SetOwner(records []byte, owner Owner) {
	for len(records) > 0 {
		binary.BigEndian.PutUint16(records, 0xc000|uint16(owner))
		records = records[12+int(binary.BigEndian.Uint16(records[10:])):]
	}
}

// SetTTL gives compiled records a TTL.
func SetTTL(records []byte, ttl uint32) {
	for len(records) > 0 {
		binary.BigEndian.PutUint32(records[6:], ttl)
		records = records[12+int(binary.BigEndian.Uint16(records[10:])):]
	}
}

// Raw adds count records that carry their own owner names: all or none.
func (b *Builder) Raw(s Section, records []byte, count int) bool {
	if !b.fits(len(records)) {
		return false
	}
	b.buf = append(b.buf, records...)
	b.counts[s] += uint16(count)
	return true
}

// Addresses adds an A or AAAA record per address, beginning with addrs[first]
// and wrapping round: all or none. Every address has to be of the family.
func (b *Builder) Addresses(owner Owner, ipv6 bool, ttl uint32, addrs []netip.Addr, first int) bool {
	size := 4
	if ipv6 {
		size = 16
	}
	if !b.fits(len(addrs)*(12+size)) || owner > maxPointer {
		return false
	}
	at, size := len(b.buf), len(addrs)*(12+size)
	b.buf = slices.Grow(b.buf, size)[:at+size]
	PutAddresses(b.buf[at:], ipv6, ttl, addrs, first)
	if owner != QuestionOwner {
		for ; at < len(b.buf); at += size / len(addrs) {
			binary.BigEndian.PutUint16(b.buf[at:], 0xc000|uint16(owner))
		}
	}
	b.counts[Answer] += uint16(len(addrs))
	return true
}

// PutAddresses writes an A or AAAA record per address into out, which has room for
// them, beginning with addrs[first] and wrapping round, their owner being the
// name in the question. It returns what follows.
func PutAddresses(out []byte, ipv6 bool, ttl uint32, addrs []netip.Addr, first int) []byte {
	const pointer = 0xc000 | uint64(QuestionOwner)
	for range addrs {
		addr := &addrs[first]
		if first++; first == len(addrs) {
			first = 0
		}
		if ipv6 {
			a := addr.As16()
			record := out[:28]
			binary.BigEndian.PutUint64(record, pointer<<48|uint64(TypeAAAA)<<32|uint64(ClassIN)<<16|uint64(ttl>>16))
			binary.BigEndian.PutUint32(record[8:], ttl<<16|16)
			copy(record[12:], a[:])
			out = out[28:]
			continue
		}
		a := addr.As4()
		record := out[:16]
		binary.BigEndian.PutUint64(record, pointer<<48|uint64(TypeA)<<32|uint64(ClassIN)<<16|uint64(ttl>>16))
		binary.BigEndian.PutUint32(record[8:], ttl<<16|4)
		copy(record[12:], a[:])
		out = out[16:]
	}
	return out
}

// Text adds a TXT record in class CH whose owner is the question.
func (b *Builder) Text(text string) bool {
	text = text[:min(len(text), 255)]
	if !b.fits(13 + len(text)) {
		return false
	}
	b.fixed(QuestionOwner, TypeTXT, ClassCH, 0, 1+len(text))
	b.buf = append(b.buf, byte(len(text)))
	b.buf = append(b.buf, text...)
	b.counts[Answer]++
	return true
}

// Alias adds the CNAME that a DNAME implies (RFC 6672 3.1): the labels of from
// up to cut, as they stand in the message at owner, followed by target. It
// reports whether the record fits; the caller has made sure that the new name
// is no longer than 255 octets.
func (b *Builder) Alias(owner Owner, cut int, target []byte, ttl uint32) bool {
	if !b.fits(12+cut+len(target)) || owner > maxPointer {
		return false
	}
	b.fixed(owner, TypeCNAME, ClassIN, ttl, cut+len(target))
	from := b.start + int(owner)
	b.buf = append(b.buf, b.buf[from:from+cut]...)
	b.buf = append(b.buf, target...)
	b.counts[Answer]++
	return true
}

// Since returns what has been added from offset on; it aliases the buffer.
func (b *Builder) Since(offset int) []byte { return b.buf[b.start+offset:] }

func (b *Builder) fixed(owner Owner, rtype, class uint16, ttl uint32, size int) {
	b.buf = append(b.buf,
		0xc0|byte(owner>>8), byte(owner),
		byte(rtype>>8), byte(rtype), byte(class>>8), byte(class),
		byte(ttl>>24), byte(ttl>>16), byte(ttl>>8), byte(ttl),
		byte(size>>8), byte(size))
}

// Finish adds the OPT record that EDNS calls for, writes the header and
// returns dst with the message appended. udpSize is the payload size offered.
// The options may not be larger than what was reserved, unless no record was
// added.
func (b *Builder) Finish(r Reply, o Options, udpSize uint16) []byte {
	additional := b.counts[Additional]
	if b.q.EDNS {
		b.opt(r, o, udpSize)
		additional++
	}
	if o.UnknownKey { // after OPT: TSIG comes last
		var ok bool
		if b.buf, ok = b.q.signature.appendUnknownKey(b.buf, b.q.ID, b.start+b.limit); ok {
			additional++
		}
	}
	h := b.buf[b.start : b.start+HeaderSize]
	binary.BigEndian.PutUint16(h, b.q.ID)
	h[2] = 0x80 | b.q.Opcode<<3
	if r.Authoritative {
		h[2] |= 0x04
	}
	if b.truncated {
		h[2] |= 0x02
	}
	if b.q.RD {
		h[2] |= 0x01
	}
	h[3] = byte(r.Rcode & 0xf) // RA, Z, AD and CD are clear
	h[4], h[5] = 0, 0
	if len(b.q.Question) > 0 {
		h[5] = 1
	}
	binary.BigEndian.PutUint16(h[6:], b.counts[Answer])
	binary.BigEndian.PutUint16(h[8:], b.counts[Authority])
	binary.BigEndian.PutUint16(h[10:], additional)
	return b.buf
}

// opt appends the OPT record: version 0, no flag but DO.
func (b *Builder) opt(r Reply, o Options, udpSize uint16) {
	flags := byte(0)
	if b.q.DO {
		flags = 0x80
	}
	size := o.size(b.q)
	b.buf = append(b.buf, 0, 0, byte(TypeOPT), byte(udpSize>>8), byte(udpSize),
		byte(r.Rcode>>4), 0, flags, 0, byte(size>>8), byte(size))
	if o.NSID != "" {
		b.option(optionNSID, len(o.NSID))
		b.buf = append(b.buf, o.NSID...)
	}
	if o.Subnet {
		s := &b.q.ECS
		b.option(optionECS, 4+len(s.raw))
		b.buf = append(b.buf, byte(s.Family>>8), byte(s.Family), s.Source, r.Scope)
		b.buf = append(b.buf, s.raw...)
	}
	if o.Keepalive > 0 {
		b.option(optionKeepalive, 2)
		b.buf = binary.BigEndian.AppendUint16(b.buf, uint16(min(o.Keepalive/(100*time.Millisecond), 65535)))
	}
	if o.Extended != 0 {
		b.option(optionEDE, 2)
		b.buf = binary.BigEndian.AppendUint16(b.buf, o.Extended)
	}
}

func (b *Builder) option(code uint16, size int) {
	b.buf = append(b.buf, byte(code>>8), byte(code), byte(size>>8), byte(size))
}
