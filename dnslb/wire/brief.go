package wire

import (
	"encoding/binary"
	"net/netip"
)

// foldSpace is a name and the words that reading it eight octets at a time may
// touch behind it.
const foldSpace = MaxName + 1 + 16

// A Folded is a domain name in wire form and lower case, in the form that a look-up
// by words wants: what follows it is zero. Set it with [Brief.Parse] or [Folded.Set].
type Folded struct {
	octets [foldSpace]byte
	length int
	labels int
}

// Len returns the length in octets, the root's included.
func (f *Folded) Len() int { return f.length }

// Labels returns the number of labels without the root's.
func (f *Folded) Labels() int { return f.labels }

// From returns the name that remains after the first octets. It aliases f.
func (f *Folded) From(at int) []byte { return f.octets[at:f.length] }

// Next returns where the label after the one at an offset begins.
func (f *Folded) Next(at int) int { return at + 1 + int(f.octets[at]) }

// Word returns eight octets of the name, the first of them lowest; what is behind
// its end is zero.
func (f *Folded) Word(at int) uint64 { return binary.LittleEndian.Uint64(f.octets[at&0xff:]) }

// Set takes the uncompressed wire name at the front of msg[at:] and returns where it
// ends; false when there is none that ends before the message does.
func (f *Folded) Set(msg []byte, at int) (end int, ok bool) {
	i, labels := at, 0
	for {
		if i >= len(msg) || i-at >= MaxName {
			return 0, false
		}
		size := int(msg[i])
		if size == 0 {
			break
		}
		if size > 63 {
			return 0, false
		}
		labels++
		i += 1 + size
	}
	f.length, f.labels = i+1-at, labels
	f.fold(msg[at : i+1])
	return i + 1, true
}

// fold copies the name in lower case, eight octets at a time. The octets that give
// the length of a label are under 64 and so no letters.
func (f *Folded) fold(name []byte) {
	at := 0
	for ; len(name)-at >= 8; at += 8 {
		binary.LittleEndian.PutUint64(f.octets[at:], lower8(binary.LittleEndian.Uint64(name[at:])))
	}
	word := uint64(0)
	for i := len(name) - 1; i >= at; i-- {
		word = word<<8 | uint64(name[i])
	}
	binary.LittleEndian.PutUint64(f.octets[at:], lower8(word))
	binary.LittleEndian.PutUint64(f.octets[at+8:], 0)
}

// lower8 folds the ASCII upper case among eight octets (RFC 4343).
func lower8(word uint64) uint64 {
	const ones = 0x0101010101010101
	low := word &^ (0x80 * ones)
	fromA := low + (0x80-'A')*ones // bit 7 where ≥ 'A'
	overZ := low + (0x7f-'Z')*ones // bit 7 where > 'Z'
	upper := (fromA ^ overZ) &^ word & (0x80 * ones)
	return word | upper>>2
}

// A Brief is what the fast lane needs to know of a query. Its slices alias the
// message that was parsed.
type Brief struct {
	Name Folded
	// End is where the question ends.
	End  int
	Type uint16
	// EDNS: an OPT record of version 0 was there.
	EDNS, DO bool
	UDPSize  uint16 // at least 512
	// ECS is the client subnet option, HasECS whether there was one.
	HasECS bool
	ECS    Subnet
}

// Parse reads a message that is what nearly all queries are: opcode QUERY, one
// question of class IN for a type that records have, and nothing else but an
// OPT record of version 0, whose options do not ask for more than a client subnet; with
// ecs that is read, else it is passed over. It reports whether the message is
// that; of any other it says nothing, not even that it is wrong. See [Parse].
func (b *Brief) Parse(msg []byte, ecs bool) bool {
	const one, oneAndOPT = 1 << 48, 1<<48 | 1 // QDCOUNT, ANCOUNT, NSCOUNT, ARCOUNT
	if len(msg) < HeaderSize+5 || msg[2]&0xf8 != 0 {
		return false
	}
	counts := binary.BigEndian.Uint64(msg[4:])
	if counts != one && counts != oneAndOPT {
		return false
	}
	end, ok := b.Name.Set(msg, HeaderSize)
	if !ok || end+4 > len(msg) {
		return false
	}
	question := binary.BigEndian.Uint32(msg[end:])
	b.Type, b.End = uint16(question>>16), end+4
	if uint16(question) != ClassIN || b.Type >= TypeTSIG-1 || b.Type == TypeOPT || b.Type == TypeDS {
		return false // TKEY and above are for queries
	}
	b.EDNS, b.DO, b.HasECS, b.UDPSize = false, false, false, MinUDPSize
	if counts == one {
		return b.End == len(msg)
	}
	return b.opt(msg[b.End:], ecs)
}

// opt reads what follows the question: one OPT record.
func (b *Brief) opt(rest []byte, ecs bool) bool {
	if len(rest) < optBaseSize || rest[0] != 0 || rest[1] != 0 || rest[2] != byte(TypeOPT) || rest[6] != 0 {
		return false
	}
	b.EDNS = true
	b.UDPSize = max(binary.BigEndian.Uint16(rest[3:]), MinUDPSize)
	b.DO = rest[7]&0x80 != 0
	size := int(binary.BigEndian.Uint16(rest[9:]))
	options := rest[optBaseSize:]
	if len(options) != size {
		return false
	}
	for len(options) > 0 {
		if len(options) < 4 {
			return false
		}
		code, end := binary.BigEndian.Uint16(options), 4+int(binary.BigEndian.Uint16(options[2:]))
		if len(options) < end || code == optionNSID || code == optionKeepalive {
			return false
		}
		if code == optionECS && ecs {
			b.ECS.Addr = netip.Addr{}
			if b.HasECS || !b.ECS.parse(options[4:end]) {
				return false
			}
			b.HasECS = true
		}
		options = options[end:]
	}
	return true
}

// Size returns the octets of the response with so many octets of records.
func (b *Brief) Size(records int) int {
	size := b.End + records
	if b.EDNS {
		size += optBaseSize
	}
	if b.HasECS {
		size += 8 + len(b.ECS.raw)
	}
	return size
}

// Begin writes the header and the question of an authoritative response into out,
// which has room for all of it, and returns what follows.
func (b *Brief) Begin(out, msg []byte, rcode Rcode, answers, authorities int) []byte {
	copy(out, msg[:b.End])
	out[2] = 0x84 | msg[2]&1 // QR, AA, RD as asked; RA, Z, AD and CD are clear
	out[3] = byte(rcode)
	additional := uint64(0)
	if b.EDNS {
		additional = 1
	}
	binary.BigEndian.PutUint64(out[4:], 1<<48|uint64(answers)<<32|uint64(authorities)<<16|additional)
	return out[b.End:]
}

// Finish writes the OPT record that EDNS calls for.
func (b *Brief) Finish(rest []byte, udpSize uint16, scope uint8) {
	if !b.EDNS {
		return
	}
	do := uint64(0)
	if b.DO {
		do = 0x80
	}
	options := 0
	if b.HasECS {
		options = 8 + len(b.ECS.raw)
	}
	binary.BigEndian.PutUint64(rest, uint64(TypeOPT)<<40|uint64(udpSize)<<24|do) // root, type, size; rcode and version 0; flags
	rest[8], rest[9], rest[10] = 0, byte(options>>8), byte(options)
	if options > 0 {
		s := &b.ECS
		rest = rest[optBaseSize:]
		binary.BigEndian.PutUint64(rest, uint64(optionECS)<<48|uint64(4+len(s.raw))<<32|uint64(s.Family)<<16|uint64(s.Source)<<8|uint64(scope))
		copy(rest[8:], s.raw)
	}
}
