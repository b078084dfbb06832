package offload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// A datagram is what the oracle makes packets of, from scratch.
type datagram struct {
	src, dst netip.AddrPort
	ttl      byte
	payload  []byte
	noSum    bool
}

// packet builds the whole frame, with every checksum computed over all that it covers.
func (d *datagram) packet() []byte {
	udp := make([]byte, 8, 8+len(d.payload))
	binary.BigEndian.PutUint16(udp, d.src.Port())
	binary.BigEndian.PutUint16(udp[2:], d.dst.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(d.payload)))
	udp = append(udp, d.payload...)
	src, dst := d.src.Addr().AsSlice(), d.dst.Addr().AsSlice()
	if !d.noSum {
		pseudo := append(append([]byte(nil), src...), dst...)
		pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(udp)))
		pseudo = binary.BigEndian.AppendUint32(pseudo, 17)
		sum := ^onesSum(pseudo, udp)
		if sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(udp[6:], sum)
	}
	frame := make([]byte, 14)
	if d.src.Addr().Is4() {
		copy(frame[12:], []byte{8, 0})
		ip := []byte{0x45, 0xb8, 0, 0, 0x12, 0x34, 0x40, 0, d.ttl, 17, 0, 0}
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(udp)))
		ip = append(append(ip, src...), dst...)
		binary.BigEndian.PutUint16(ip[10:], ^onesSum(ip))
		return append(append(frame, ip...), udp...)
	}
	copy(frame[12:], []byte{0x86, 0xdd})
	ip := []byte{0x6b, 0x81, 0x23, 0x45, 0, 0, 17, d.ttl}
	binary.BigEndian.PutUint16(ip[4:], uint16(len(udp)))
	return append(append(append(append(frame, ip...), src...), dst...), udp...)
}

// onesSum is the sum of RFC 1071.
func onesSum(parts ...[]byte) uint16 {
	var sum uint64
	for _, p := range parts {
		for i := 0; i < len(p); i++ {
			if i%2 == 0 {
				sum += uint64(p[i]) << 8
			} else {
				sum += uint64(p[i])
			}
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// run has the program see a packet that has come by an interface, and returns its verdict and what it has made of the packet.
func run(t *testing.T, l *Lane, packet []byte, ifindex int) (int32, []byte) {
	t.Helper()
	if ifindex != loopbackIndex {
		packet[0] = outsideMAC
	}
	context := make([]byte, 192) // struct __sk_buff
	binary.NativeEndian.PutUint32(context[skbIfindex:], uint32(ifindex))
	opts := ebpf.RunOptions{Data: packet, DataOut: make([]byte, len(packet)+64), Context: context}
	verdict, err := l.program.Run(&opts)
	if err != nil {
		t.Fatalf("run over %x: %v", packet, err)
	}
	return int32(verdict), opts.DataOut
}

// put enters one direction by hand.
func put(t *testing.T, l *Lane, w way) {
	t.Helper()
	key, entry := w.old.key(), w.entry(l.Generation(), 0)
	if err := l.sessions.Update(unsafe.Pointer(&key), unsafe.Pointer(&entry), ebpf.UpdateAny); err != nil {
		t.Fatal(err)
	}
}

// drop takes it out again.
func (l *Lane) drop(w way) {
	key := w.old.key()
	_ = l.sessions.Delete(unsafe.Pointer(&key))
}

func randomAddress(r *rand.Rand, v6 bool) netip.AddrPort {
	var b [16]byte
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	a := netip.AddrFrom4([4]byte{b[0]&0x3f | 1, b[1], b[2], b[3]})
	if v6 {
		b[0] = 0x20
		a = netip.AddrFrom16(b)
	}
	return netip.AddrPortFrom(a, uint16(1+r.IntN(65535)))
}

// outsideMAC is the first byte of the interface's address; the others are zero.
const outsideMAC = 2

// outside makes an interface that is not loopback, and returns its number.
func outside(t *testing.T) int {
	t.Helper()
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "outside", HardwareAddr: make([]byte, 6)}, PeerName: "peer"}
	v.HardwareAddr[0] = outsideMAC
	if err := netlink.LinkAdd(v); err != nil {
		t.Fatal(err)
	}
	at, err := netlink.LinkByName("outside")
	if err != nil {
		t.Fatal(err)
	}
	return at.Attrs().Index
}

const redirected = 7 // TC_ACT_REDIRECT

// Random sessions and datagrams: what the program makes of a packet is, to the last bit, what the oracle builds for the new addresses.
func TestRewrite(t *testing.T) {
	namespace(t)
	l := still(t)
	out := outside(t)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	t.Log("seed", seed)
	for i := range 2000 {
		v6, forward := i&1 != 0, i&2 != 0
		old := pair{randomAddress(r, v6), randomAddress(r, v6)}
		fresh := pair{randomAddress(r, v6), randomAddress(r, v6)}
		d := datagram{src: old.src, dst: old.dst, ttl: byte(2 + r.IntN(254)), payload: make([]byte, r.IntN(1400)), noSum: !v6 && i%7 == 0}
		for j := range d.payload {
			d.payload[j] = byte(r.Uint32())
		}
		want := d
		want.src, want.dst = fresh.src, fresh.dst
		w := way{old: old, fresh: fresh, direction: uint32(i % 2)}
		ifindex, verdict := 1, int32(tcxNext)
		if forward {
			w.route, ifindex, verdict, want.ttl = route{out, 1500}, out, redirected, d.ttl-1
		}
		if i%5 == 0 && len(d.payload) >= 2 && !d.noSum { // a checksum of zero, which is written as ffff
			balance(&want)
			copy(d.payload, want.payload)
		}
		before := l.total(w.direction)
		put(t, l, w)
		got, packet := run(t, l, d.packet(), ifindex)
		l.drop(w)
		if got != verdict {
			t.Fatalf("packet %d: verdict %d, want %d", i, got, verdict)
		}
		wanted := want.packet()
		if !bytes.Equal(packet[14:], wanted[14:]) {
			t.Fatalf("packet %d of %v → %v, %d bytes:\n%s", i, old, fresh, len(d.payload), cmp.Diff(fmt.Sprintf("%x", wanted), fmt.Sprintf("%x", packet)))
		}
		if n := l.total(w.direction) - before; n != 1 {
			t.Fatalf("packet %d: counted %d", i, n)
		}
	}
}

// balance changes the first word of a payload so that the checksum is zero.
func balance(d *datagram) {
	d.payload[0], d.payload[1] = 0, 0
	p := d.packet()
	at := 40
	if !d.src.Addr().Is4() {
		at = 60
	}
	copy(d.payload, p[at:at+2])
}

// What the program is not to carry it leaves as it is.
func TestLeftAlone(t *testing.T) {
	ns := namespace(t)
	l := still(t)
	out := outside(t)
	for _, v6 := range []bool{false, true} {
		r := rand.New(rand.NewPCG(1, 2))
		old := pair{randomAddress(r, v6), randomAddress(r, v6)}
		fresh := pair{randomAddress(r, v6), randomAddress(r, v6)}
		ip, udp := 14, 34
		if v6 {
			udp = 54
		}
		size := udp + 8 - ip + 11
		d := datagram{src: old.src, dst: old.dst, ttl: 64, payload: []byte("hello world")}
		for _, tt := range []struct {
			name    string
			only    string
			change  func(p []byte) []byte
			route   route
			ifindex int
			carried bool
		}{
			{name: "whole", carried: true},
			{name: "whole, forwarded", route: route{out, size}, ifindex: out, carried: true},
			{name: "padded", change: func(p []byte) []byte { return append(p, make([]byte, 9)...) }, carried: true},
			{name: "another port", change: func(p []byte) []byte { p[udp+1]++; return p }},
			{name: "another address", change: func(p []byte) []byte { p[udp-1]++; return p }},
			{name: "to another machine", change: func(p []byte) []byte { p[0] = 0x04; return p }},
			{name: "TCP", change: func(p []byte) []byte { p[protocolAt(v6)] = 6; return p }},
			{name: "ICMP", change: func(p []byte) []byte { p[protocolAt(v6)] = 1; return p }},
			{name: "ARP", change: func(p []byte) []byte { p[12], p[13] = 8, 6; return p }},
			{name: "another version", change: func(p []byte) []byte { p[14] ^= 0x90; return p }},
			{name: "options", only: "4", change: func(p []byte) []byte { p[14] = 0x46; return p }},
			{name: "first fragment", only: "4", change: func(p []byte) []byte { p[20] |= 0x20; return p }},
			{name: "later fragment", only: "4", change: func(p []byte) []byte { p[21] = 1; return p }},
			{name: "extension header", only: "6", change: func(p []byte) []byte { p[20] = 0; return p }},
			{name: "fragment header", only: "6", change: func(p []byte) []byte { p[20] = 44; return p }},
			{name: "no checksum", only: "6", change: func(p []byte) []byte { p[60], p[61] = 0, 0; return p }},
			{name: "cut in the payload", change: func(p []byte) []byte { return p[:len(p)-1] }},
			{name: "cut in the UDP header", change: func(p []byte) []byte { return p[:udp+7] }},
			{name: "cut after the IP header", change: func(p []byte) []byte { return p[:udp] }},
			{name: "UDP longer than IP", change: func(p []byte) []byte { p[udp+5]++; return p }},
			{name: "UDP shorter than IP", change: func(p []byte) []byte { p[udp+5]--; return p }},
			{name: "UDP shorter than its header", change: func(p []byte) []byte { p[udp+5] = 7; return p }},
			{name: "forwarded, by loopback", route: route{out, size}, ifindex: 1},
			{name: "local, from outside", ifindex: out},
			{name: "too long for the way out", route: route{out, size - 1}, ifindex: out},
			{name: "has travelled for too long", route: route{out, size}, ifindex: out, change: func(p []byte) []byte { p[ttlAt(v6)] = 1; return p }},
		} {
			if tt.only == "4" && v6 || tt.only == "6" && !v6 {
				continue
			}
			t.Run(fmt.Sprintf("%s/v6=%t", tt.name, v6), func(t *testing.T) {
				enter(t, ns)
				w := way{old: old, fresh: fresh, route: tt.route}
				put(t, l, w)
				defer l.drop(w)
				p := d.packet()
				if tt.change != nil {
					p = tt.change(p)
				}
				was := bytes.Clone(p)
				verdict, got := run(t, l, p, max(tt.ifindex, 1))
				if carried := !bytes.Equal(got[14:], was[14:]); carried != tt.carried {
					t.Errorf("carried: %t, want %t\n%x\n%x", carried, tt.carried, was, got)
				}
				if !tt.carried && verdict != tcxNext {
					t.Errorf("verdict %d, want that it goes on", verdict)
				}
			})
		}
	}
}

func protocolAt(v6 bool) int {
	if v6 {
		return 20
	}
	return 23
}

func ttlAt(v6 bool) int {
	if v6 {
		return 21
	}
	return 22
}

// What routers say of the size of packets is counted; other ICMP is not.
func TestTooLongIsHeard(t *testing.T) {
	ns := namespace(t)
	l := still(t)
	for _, tt := range []struct {
		name       string
		v6         bool
		kind, code byte
		want       uint64
	}{
		{"fragmentation needed", false, 3, 4, 1},
		{"port unreachable", false, 3, 3, 0},
		{"packet too big", true, 2, 0, 1},
		{"packet too big, some code", true, 2, 9, 1},
		{"no route", true, 1, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			enter(t, ns)
			r := rand.New(rand.NewPCG(3, 4))
			d := datagram{src: randomAddress(r, tt.v6), dst: randomAddress(r, tt.v6), ttl: 9, payload: make([]byte, 40)}
			p := d.packet()
			at := 34
			p[protocolAt(tt.v6)] = 1
			if tt.v6 {
				at, p[protocolAt(true)] = 54, 58
			}
			p[at], p[at+1] = tt.kind, tt.code
			before := l.total(tooLong)
			if verdict, _ := run(t, l, p, 1); verdict != tcxNext {
				t.Errorf("verdict %d", verdict)
			}
			if n := l.total(tooLong) - before; n != tt.want {
				t.Errorf("counted %d, want %d", n, tt.want)
			}
		})
	}
}

// BenchmarkProgram measures what the program takes for a datagram that it carries, and for what it does not.
func BenchmarkProgram(b *testing.B) {
	l, err := New(Options{})
	if err != nil {
		b.Skip(err)
	}
	defer l.Close()
	r := rand.New(rand.NewPCG(7, 8))
	for _, v6 := range []bool{false, true} {
		there, back := pair{randomAddress(r, v6), randomAddress(r, v6)}, pair{randomAddress(r, v6), randomAddress(r, v6)}
		for _, w := range []way{{old: there, fresh: back}, {old: back, fresh: there}} { // so that what was rewritten is known again
			key, entry := w.old.key(), w.entry(l.Generation(), 0)
			if err := l.sessions.Update(unsafe.Pointer(&key), unsafe.Pointer(&entry), ebpf.UpdateAny); err != nil {
				b.Fatal(err)
			}
		}
		d := datagram{src: there.src, dst: there.dst, ttl: 64, payload: make([]byte, 100)}
		other := d
		other.src = netip.AddrPortFrom(d.src.Addr(), d.src.Port()^1)
		tcp := d.packet()
		tcp[protocolAt(v6)] = 6
		for _, tt := range []struct {
			name   string
			packet []byte
		}{{"carried", d.packet()}, {"unknown", other.packet()}, {"TCP", tcp}} {
			b.Run(fmt.Sprintf("%s/v6=%t", tt.name, v6), func(b *testing.B) {
				_, took, err := l.program.Benchmark(tt.packet, b.N, nil)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(took.Nanoseconds()), "ns/packet")
			})
		}
	}
}
