package udp

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// QUIC says how servers write their number into the connection IDs that they
// give out: the plaintext scheme of QUIC-LB. The first byte is the server's own
// business, the number follows.
type QUIC struct {
	// Length of a connection ID, 2 … 20: packets with a short header do not tell it.
	Length int
	// Servers are the backends by their number, all of one length.
	Servers map[string]netip.AddrPort

	// Set by check.
	size   int // of a number
	places map[string]uint16
	order  []netip.AddrPort // by place
}

// check refuses what could not be read, and makes the rest ready.
func (q *QUIC) check() error {
	if len(q.Servers) > maxServers {
		return errors.New("quic: more than 65,000 servers")
	}
	size := 0
	for id := range q.Servers {
		if size == 0 {
			size = len(id)
		}
		if len(id) == 0 || len(id) != size || 1+len(id) > q.Length {
			return fmt.Errorf("quic: server number %x: want all of one length, and room for it in %d bytes", id, q.Length)
		}
	}
	if q.Length < 2 || q.Length > 20 || size == 0 {
		return fmt.Errorf("quic: connection IDs of %d bytes for %d servers: want 2 … 20 bytes and a server", q.Length, len(q.Servers))
	}
	q.size, q.order, q.places = size, nil, make(map[string]uint16, len(q.Servers))
	for _, id := range slices.Sorted(maps.Keys(q.Servers)) {
		q.places[id] = uint16(len(q.order))
		q.order = append(q.order, q.Servers[id])
	}
	return nil
}

// address returns the backend at a place.
func (q *QUIC) address(place uint16) netip.AddrPort { return q.order[place] }

// placeOf returns the place of a backend.
func (q *QUIC) placeOf(address netip.AddrPort) (uint16, bool) {
	i := slices.Index(q.order, address)
	return uint16(max(i, 0)), i >= 0
}

// alike reports whether the datagrams of a message all go to the same backend.
func (q *QUIC) alike(data []byte, segment int) bool {
	first, known := q.server(data[:segment])
	for data = data[segment:]; len(data) > 0; data = data[min(segment, len(data)):] {
		if place, ok := q.server(data[:min(segment, len(data))]); place != first || ok != known {
			return false
		}
	}
	return true
}

const (
	longHeader    = 0x80
	typeHandshake = 2
	maxID         = 20
	maxServers    = 65000
)

// server returns the place of the backend that has given out the connection ID of a packet.
// The ID of a client's first packets is its own invention and says nothing.
func (q *QUIC) server(packet []byte) (place uint16, ok bool) {
	var id []byte
	switch {
	case len(packet) < 1:
		return 0, false
	case packet[0]&longHeader == 0:
		if len(packet) < 1+q.Length {
			return 0, false
		}
		id = packet[1 : 1+q.Length]
	case len(packet) > 6 && packet[0]>>4&3 == typeHandshake:
		size := int(packet[5])
		if size != q.Length || size > maxID || len(packet) < 6+size {
			return 0, false
		}
		id = packet[6 : 6+size]
	default:
		return 0, false
	}
	place, ok = q.places[string(id[1:1+q.size])]
	return place, ok
}
