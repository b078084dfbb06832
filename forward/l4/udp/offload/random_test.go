package offload

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// model says, step by step as the documents of the protocols do, whether the lane carries a packet of a way that has come by
// loopback, and what it makes of it.
func model(p []byte, w way) ([]byte, bool) {
	out := bytes.Clone(p)
	if p[0] != 0 || len(p) < 14 {
		return nil, false
	}
	ip, v6 := out[14:], !w.old.is4()
	var udp []byte
	switch kind := binary.BigEndian.Uint16(p[12:]); {
	case kind == 0x0800 && !v6:
		if len(ip) < 28 || ip[0] != 0x45 || ip[9] != 17 || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
			return nil, false
		}
		total := int(binary.BigEndian.Uint16(ip[2:]))
		if total > len(ip) || total != 20+int(binary.BigEndian.Uint16(ip[24:])) {
			return nil, false
		}
		udp = ip[20:total]
	case kind == 0x86dd && v6:
		if len(ip) < 48 || ip[0]>>4 != 6 || ip[6] != 17 {
			return nil, false
		}
		length := int(binary.BigEndian.Uint16(ip[4:]))
		if 40+length > len(ip) || length != int(binary.BigEndian.Uint16(ip[44:])) || binary.BigEndian.Uint16(ip[46:]) == 0 {
			return nil, false
		}
		udp = ip[40 : 40+length]
	default:
		return nil, false
	}
	if len(udp) < 8 {
		return nil, false
	}
	addresses := ip[12:20]
	if v6 {
		addresses = ip[8:40]
	}
	was := append(bytes.Clone(addresses), udp[:4]...)
	if !bytes.Equal(was, w.old.bytes()) {
		return nil, false
	}
	is := w.fresh.bytes()
	copy(addresses, is)
	copy(udp, is[len(addresses):])
	if !v6 {
		ip[10], ip[11] = patched(ip[10:12], was[:8], is[:8])
	}
	if udp[6] != 0 || udp[7] != 0 {
		if udp[6], udp[7] = patched(udp[6:8], was, is); udp[6] == 0 && udp[7] == 0 {
			udp[6], udp[7] = 0xff, 0xff
		}
	}
	return out, true
}

// bytes are the addresses and ports in a row.
func (p pair) bytes() []byte {
	b := append(append([]byte(nil), p.src.Addr().AsSlice()...), p.dst.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, p.src.Port()), p.dst.Port())
}

// patched is equation 3 of RFC 1624.
func patched(sum, was, is []byte) (byte, byte) {
	not := bytes.Clone(was)
	for i := range not {
		not[i] = ^not[i]
	}
	n := ^onesSum([]byte{^sum[0], ^sum[1]}, not, is)
	return byte(n >> 8), byte(n)
}

// TestRandomPackets: packets with some bytes changed, cut or made longer are carried exactly if the model says so, and become what it says.
func TestRandomPackets(t *testing.T) {
	namespace(t)
	l := still(t)
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	carried := 0
	const rounds = 20_000
	for i := range rounds {
		v6 := i&1 != 0
		w := way{old: pair{randomAddress(r, v6), randomAddress(r, v6)}, fresh: pair{randomAddress(r, v6), randomAddress(r, v6)}}
		d := datagram{src: w.old.src, dst: w.old.dst, ttl: byte(r.Uint32()), payload: make([]byte, 20+r.IntN(40)), noSum: !v6 && i%9 == 0}
		p := d.packet()
		headers := len(p) - len(d.payload)
		for range r.IntN(3) {
			p[12+r.IntN(headers-12)] = byte(r.Uint32())
		}
		switch r.IntN(6) {
		case 0:
			p = p[:54+r.IntN(len(p)-53)] // the kernel tries none that is shorter than an IPv6 header
		case 1:
			p = append(p, make([]byte, r.IntN(20))...)
		}
		want, ok := model(p, w)
		if ok {
			carried++
		}
		put(t, l, w)
		verdict, got := run(t, l, bytes.Clone(p), 1)
		l.drop(w)
		if !ok {
			want = p
		}
		if verdict != tcxNext || !bytes.Equal(got[14:], want[14:]) {
			t.Fatalf("packet %d, carried %t, verdict %d\n was %x\n got %x\nwant %x", i, ok, verdict, p, got, want)
		}
	}
	if carried < rounds/10 || carried > rounds*9/10 {
		t.Errorf("%d of %d are carried: the test tries too little of one or the other", carried, rounds)
	}
}
