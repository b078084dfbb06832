package udp

import (
	"fmt"
	"net/netip"
)

// QUIC says how servers write their number into the connection IDs that they
// give out: the plaintext scheme of QUIC-LB. The first byte is the server's own
// business, the number follows.
type QUIC struct {
	// Length of a connection ID, 2 … 20: packets with a short header do not tell it.
	Length int
	// Servers are the backends by their number, all of one length.
	Servers map[string]netip.AddrPort
}

// check refuses what could not be read.
func (q *QUIC) check() error {
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
	return nil
}

const (
	longHeader    = 0x80
	typeHandshake = 2
	maxID         = 20
)

// server returns the backend that has given out the connection ID of a packet.
// The ID of a client's first packets is its own invention and says nothing.
func (q *QUIC) server(packet []byte) (netip.AddrPort, bool) {
	var id []byte
	switch {
	case len(packet) < 1:
		return netip.AddrPort{}, false
	case packet[0]&longHeader == 0:
		if len(packet) < 1+q.Length {
			return netip.AddrPort{}, false
		}
		id = packet[1 : 1+q.Length]
	case len(packet) > 6 && packet[0]>>4&3 == typeHandshake:
		size := int(packet[5])
		if size != q.Length || size > maxID || len(packet) < 6+size {
			return netip.AddrPort{}, false
		}
		id = packet[6 : 6+size]
	default:
		return netip.AddrPort{}, false
	}
	for number := range q.Servers { // any of them tells the length
		address, ok := q.Servers[string(id[1:1+len(number)])]
		return address, ok
	}
	return netip.AddrPort{}, false
}
