package offload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"github.com/cilium/ebpf"
)

// rewritesIPv6 has the program carry a datagram of a session that is on no network, and reports whether it did.
func rewritesIPv6(p *ebpf.Program, sessions *ebpf.Map) (bool, error) {
	a, b := netip.MustParseAddrPort("[2001:db8::1]:1"), netip.MustParseAddrPort("[2001:db8::2]:2") // RFC 3849
	w := way{old: pair{a, b}, fresh: pair{b, a}, direction: tooLong}                               // counted where nobody looks yet
	key, entry := w.old.key(), w.entry(0, 0)
	if err := sessions.Update(unsafe.Pointer(&key), unsafe.Pointer(&entry), ebpf.UpdateAny); err != nil {
		return false, fmt.Errorf("enter session: %w", err)
	}
	defer func() { _ = sessions.Delete(unsafe.Pointer(&key)) }()
	packet := make([]byte, 14+40+8)
	copy(packet[12:], ipv6.etherType[:])
	packet[14] = 6 << 4
	binary.BigEndian.PutUint16(packet[ipv6.length:], 8)
	packet[20], packet[ipv6.ttl] = 17, 64
	copy(packet[ipv6.src:], a.Addr().AsSlice())
	copy(packet[ipv6.src+ipv6.addr:], b.Addr().AsSlice())
	binary.BigEndian.PutUint16(packet[ipv6.udp:], a.Port())
	binary.BigEndian.PutUint16(packet[ipv6.udp+2:], b.Port())
	binary.BigEndian.PutUint16(packet[ipv6.udp+4:], 8)
	binary.BigEndian.PutUint16(packet[ipv6.udp+6:], 1) // that there is one is enough here
	run := ebpf.RunOptions{Data: packet, DataOut: make([]byte, len(packet)+64)}
	verdict, err := p.Run(&run)
	if err != nil {
		return false, err
	}
	source := run.DataOut[ipv6.src:][:ipv6.addr]
	return int32(verdict) == tcxNext && bytes.Equal(source, b.Addr().AsSlice()), nil
}
