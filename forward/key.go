package forward

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"net/netip"
)

// A KeyKind names what a unit of work is bound to a backend by.
type KeyKind uint8

// The kinds of keys. Whoever cannot tell one (L4 a header, a request without the cookie)
// takes the client's address.
const (
	KeyNone   KeyKind = iota // the algorithm does not hash
	KeyClient                // the client's address
	KeyFlow                  // the client's and the local address with their ports
	KeyHeader                // the value of the request header Name
	KeyCookie                // the value of the cookie Name
	KeyPath                  // the request's path
	KeyHost                  // the request's host, lower case
)

// keyTexts are the words that the configuration uses for the kinds.
var keyTexts = [...]string{"", "client", "flow", "header", "cookie", "path", "host"}

// KeyOf returns the key that the configuration calls by a word; the zero Key if there is none such.
func KeyOf(word, name string) Key {
	for kind, w := range keyTexts {
		if w == word && kind > 0 {
			return Key{Kind: KeyKind(kind), Name: name}
		}
	}
	return Key{}
}

// A Key says what is to be hashed and how. Its methods are the only way to make
// the number that Terms.Key and Pick want: equal on every node, and well mixed.
type Key struct {
	Kind KeyKind
	Name string // of the header or cookie
	crc  bool   // for Ring, which nginx hashes by CRC-32 of the text
}

// Addr hashes an address. An IPv4 address mapped into IPv6 is the IPv4 address.
func (k Key) Addr(a netip.Addr) uint64 {
	a = a.Unmap()
	if k.crc {
		var text [64]byte
		return uint64(crc32.ChecksumIEEE(a.AppendTo(text[:0])))
	}
	b := a.As16()
	return mix(binary.BigEndian.Uint64(b[:8])^mixA, binary.BigEndian.Uint64(b[8:])^mixB)
}

// Flow hashes both ends of a flow.
func (k Key) Flow(client, local netip.AddrPort) uint64 {
	c := Key{}.Addr(client.Addr())
	l := Key{}.Addr(local.Addr())
	h := mix(c^mixB, bits.RotateLeft64(l, 32)^uint64(client.Port())<<16^uint64(local.Port()))
	if k.crc {
		return h & 0xffffffff
	}
	return h
}

// Bytes hashes a header, a cookie, a path or a host.
func (k Key) Bytes(p []byte) uint64 {
	if k.crc {
		return uint64(crc32.ChecksumIEEE(p))
	}
	h := mix(uint64(len(p))^mixA, mixB)
	for len(p) >= 8 {
		h = mix(h^binary.LittleEndian.Uint64(p), mixA)
		p = p[8:]
	}
	var rest uint64
	for i, c := range p {
		rest |= uint64(c) << (8 * i)
	}
	return mix(h^rest, mixB)
}

// The odd constants of mix: fractional digits of the golden ratio and of the square root of 3.
const (
	mixA = 0x9e3779b97f4a7c15
	mixB = 0xbb67ae8584caa73b
)

// mix spreads two words over 64 bits, by one wide product and two folds.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, mixA|1)
	x := hi ^ lo ^ b
	hi, lo = bits.Mul64(x^mixB, mixA)
	x = hi ^ lo
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return x ^ x>>32
}

// again derives the number for another try with the same key.
func again(h uint64, try int) uint64 { return mix(h, uint64(try)*mixA) }
