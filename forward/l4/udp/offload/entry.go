package offload

import (
	"encoding/binary"
	"net/netip"
)

// The layout of a key and of an entry of the map.
const (
	keySrc    = 0
	keyDst    = 16
	keyPorts  = 32
	keyFamily = 36
	keySize   = 40

	entrySrc       = 0
	entryDst       = 16
	entryPorts     = 32
	entryIfindex   = 36
	entryAddrDiff  = 40
	entryPortDiff  = 44
	entryMTU       = 48
	entryDirection = 52
	entryLast      = 56
	entryGen       = 64
	entrySize      = 72
)

// A pair is the source and the destination of a datagram, of one IP version.
type pair struct{ src, dst netip.AddrPort }

func (p pair) is4() bool { return p.src.Addr().Is4() }

// put writes a pair: IPv4 addresses are the first four bytes.
func (p pair) put(b []byte) {
	clear(b[:keyFamily])
	copy(b[keySrc:], p.src.Addr().AsSlice())
	copy(b[keyDst:], p.dst.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[keyPorts:], p.src.Port())
	binary.BigEndian.PutUint16(b[keyPorts+2:], p.dst.Port())
}

func (p pair) key() (k [keySize]byte) {
	p.put(k[:])
	family := uint32(6)
	if p.is4() {
		family = 4
	}
	binary.NativeEndian.PutUint32(k[keyFamily:], family)
	return k
}

// difference returns what has to be added to a ones' complement sum over the old bytes to make it one over the new.
func difference(old, fresh []byte) uint32 {
	var sum uint64
	for i := 0; i < len(old); i += 2 {
		sum += uint64(^binary.NativeEndian.Uint16(old[i:])) + uint64(binary.NativeEndian.Uint16(fresh[i:]))
	}
	return uint32(sum)
}

// Directions, and the places of their counters; the last one counts what routers say of datagrams that are too long.
const (
	asked = iota
	answered
	tooLong
	totals
)

// A way is how datagrams of one direction go.
type way struct {
	old, fresh pair
	direction  uint32
	route      route
}

// entry describes a way; last is when the session was last used.
func (w *way) entry(generation uint64, last int64) (e [entrySize]byte) {
	var was [keySize]byte
	w.old.put(was[:])
	w.fresh.put(e[:])
	binary.NativeEndian.PutUint32(e[entryIfindex:], uint32(w.route.ifindex))
	binary.NativeEndian.PutUint32(e[entryAddrDiff:], difference(was[:keyPorts], e[:keyPorts]))
	binary.NativeEndian.PutUint32(e[entryPortDiff:], difference(was[keyPorts:keyFamily], e[keyPorts:keyFamily]))
	binary.NativeEndian.PutUint32(e[entryMTU:], uint32(w.route.mtu))
	binary.NativeEndian.PutUint32(e[entryDirection:], w.direction)
	binary.NativeEndian.PutUint64(e[entryLast:], uint64(last))
	binary.NativeEndian.PutUint64(e[entryGen:], generation)
	return e
}

// entryTime returns when an entry was last used.
func entryTime(e *[entrySize]byte) int64 { return int64(binary.NativeEndian.Uint64(e[entryLast:])) }
