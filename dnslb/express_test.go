package dnslb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/pharos-lb/pharos/dnslb/wire"
	"github.com/pharos-lb/pharos/dnslb/zone"
)

// lanes are two responders of one server, one of which knows the general lane only.
type lanes struct{ fast, general *responder }

func newLanes(s *Server) lanes {
	l := lanes{newResponder(s, s.metrics.socket(nil)), newResponder(s, s.metrics.socket(nil))}
	l.general.express.off = true
	return l
}

// compare sends one message down both lanes, with the same luck, and reports whether
// the fast one answered by itself.
func (l lanes) compare(t testing.TB, msg []byte, from netip.AddrPort, tcp bool) (took bool) {
	t.Helper()
	l.general.random = l.fast.random
	l.fast.Flush()
	e := &l.fast.express.tally
	got := l.fast.Respond(make([]byte, 0, 4096), msg, from, tcp)
	took = e.noerror+e.nxdomain > 0
	want := l.general.Respond(make([]byte, 0, 4096), msg, from, tcp)
	if !bytes.Equal(got, want) {
		t.Fatalf("the lanes differ for %x from %v, tcp %v (the fast one took it: %v)\n got %x\nwant %x", msg, from, tcp, took, got, want)
	}
	if l.fast.random != l.general.random {
		t.Fatalf("the lanes drew different numbers for %x", msg)
	}
	l.fast.Flush()
	return took
}

// A questioner makes queries of every sort, most of them nearly common.
type questioner struct{ *rand.Rand }

var (
	askedNames = []string{
		"example.com", "ns1.example.com", "mail.example.com", "txt.example.com", "alias.example.com", "c1.example.com",
		"dangling.example.com", "outside.example.com", "wild.example.com", "x.wild.example.com", "x.y.wild.example.com",
		"*.wild.example.com", "sub.wild.example.com", "z.sub.wild.example.com", "b.ent.example.com", "ent.example.com",
		"a.b.ent.example.com", "child.example.com", "www.child.example.com", "old.example.com", "a.old.example.com", "www.example.com",
		"geo.example.com", "eu.geo.example.com", "*.geo.example.com", "any.example.com", "four.example.com", "gone.example.com",
		"big.example.com", "tobig.example.com", "nowhere.example.com", "a.b.c.d.e.f.example.com", "com", "example.org", "",
	}
	askedTypes   = []uint16{1, 28, 1, 28, 1, 16, 15, 2, 6, 5, 33, 39, 43, 41, 65, 255, 252, 249, 250, 0, 65535}
	askedSubnets = []string{"46.4.0.0/24", "8.8.8.0/24", "203.116.0.0/22", "0.0.0.0/0", "10.0.0.0/8", "1.2.3.4/32", "2a01:4f8::/48", "::/0", "2001:db8::/56", "::ffff:8.8.8.0/120"}
	clients      = []netip.AddrPort{
		netip.MustParseAddrPort("127.0.0.1:5353"), netip.MustParseAddrPort("46.4.1.2:1024"), netip.MustParseAddrPort("[2a01:4f8::1]:53"), netip.MustParseAddrPort("8.8.8.8:9"),
	}
)

func (q questioner) one(list []uint16) uint16 { return list[q.IntN(len(list))] }

// often is true n times of ten.
func (q questioner) often(n int) bool { return q.IntN(10) < n }

func (q questioner) message() []byte {
	msg := make([]byte, wire.HeaderSize, 512)
	binary.BigEndian.PutUint16(msg, uint16(q.Uint32()))
	msg[2] = byte(q.IntN(2)) // RD
	if !q.often(9) {
		msg[2] |= byte(q.IntN(256))
		msg[3] = byte(q.IntN(256))
	}
	msg[5] = 1
	name := dns.Fqdn(askedNames[q.IntN(len(askedNames))])
	packed := make([]byte, 300)
	n, err := dns.PackDomainName(name, packed, 0, nil, false)
	if err != nil {
		panic(err)
	}
	for i, c := range packed[:n] {
		if c >= 'a' && c <= 'z' && q.often(2) {
			packed[i] = c - 0x20
		}
	}
	msg = append(msg, packed[:n]...)
	msg = binary.BigEndian.AppendUint16(msg, q.one(askedTypes))
	class := uint16(1)
	if !q.often(9) {
		class = uint16(q.IntN(5))
	}
	msg = binary.BigEndian.AppendUint16(msg, class)
	if q.often(7) {
		msg[11] = 1
		msg = q.opt(msg)
	}
	if !q.often(9) { // noise
		msg[q.IntN(len(msg))] ^= 1 << q.IntN(8)
	}
	if !q.often(9) {
		msg = append(msg, make([]byte, q.IntN(12))...)
	}
	if !q.often(9) {
		msg = msg[:q.IntN(len(msg)+1)]
	}
	return msg
}

func (q questioner) opt(msg []byte) []byte {
	var options []byte
	option := func(code uint16, data []byte) {
		options = binary.BigEndian.AppendUint16(options, code)
		options = binary.BigEndian.AppendUint16(options, uint16(len(data)))
		options = append(options, data...)
	}
	if q.often(5) {
		p := netip.MustParsePrefix(askedSubnets[q.IntN(len(askedSubnets))])
		family := uint16(1)
		if p.Addr().Is6() {
			family = 2
		}
		data := binary.BigEndian.AppendUint16(nil, family)
		data = append(data, byte(p.Bits()), 0)
		data = append(data, p.Addr().AsSlice()[:(p.Bits()+7)/8]...)
		if !q.often(9) {
			data[q.IntN(len(data))] ^= 1 << q.IntN(8)
		}
		option(8, data)
	}
	if q.often(2) {
		option(10, make([]byte, 8)) // a cookie
	}
	if q.often(1) {
		option(q.one([]uint16{3, 8, 11, 12, 15}), make([]byte, q.IntN(5)))
	}
	sizes := []uint16{0, 512, 600, 1232, 1232, 4096, 65535}
	msg = append(msg, 0, 0, 41)
	msg = binary.BigEndian.AppendUint16(msg, q.one(sizes))
	version, flags := byte(0), byte(q.IntN(2))<<7
	if !q.often(9) {
		version, flags = byte(q.IntN(3)), byte(q.IntN(256))
	}
	msg = append(msg, byte(q.IntN(2)), version, flags, byte(q.IntN(2)))
	msg = binary.BigEndian.AppendUint16(msg, uint16(len(options)))
	return append(msg, options...)
}

// TestLanesAgree: the fast lane and the general one give the same octets to the same
// query, whatever it is, and count the same. Most common queries take the fast one.
func TestLanesAgree(t *testing.T) {
	for name, tunables := range map[string]Tunables{
		"plain": {}, "ECS": {ECS: true}, "small": {ECS: true, UDPSize: 512}, "named": {ECS: true, UDPSize: 4096, ServerID: "id", Version: "v"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLanes(detached(t, tunables).server)
			q := questioner{rand.New(rand.NewPCG(uint64(len(name)), 11))}
			took := 0
			const messages = 8_000
			for range messages {
				from := clients[q.IntN(len(clients))]
				if !q.often(9) {
					from = netip.AddrPortFrom(from.Addr(), 0)
				}
				if l.compare(t, q.message(), from, !q.often(8)) {
					took++
				}
			}
			if took < messages/5 {
				t.Errorf("%d of %d messages took the fast lane", took, messages)
			}
			got, want := l.fast.count, l.general.count
			for i := range want.queries {
				if got.queries[i].Load() != want.queries[i].Load() {
					t.Errorf("queries over %s: counted %d, want %d", transportNames[i], got.queries[i].Load(), want.queries[i].Load())
				}
			}
			for i := range want.responses {
				if got.responses[i].Load() != want.responses[i].Load() {
					t.Errorf("responses %v: counted %d, want %d", rcodeSlots[i], got.responses[i].Load(), want.responses[i].Load())
				}
			}
			for i := range want.dropped {
				if got.dropped[i].Load() != want.dropped[i].Load() {
					t.Errorf("dropped for %s: counted %d, want %d", dropNames[i], got.dropped[i].Load(), want.dropped[i].Load())
				}
			}
			if got.truncated.Load() != want.truncated.Load() {
				t.Errorf("truncated: counted %d, want %d", got.truncated.Load(), want.truncated.Load())
			}
		})
	}
}

// TestExpress: these go the fast way; what the rest of the tests call common does too,
// but for aliases, referrals, and what is not ours.
func TestExpress(t *testing.T) {
	l := newLanes(detached(t, Tunables{ECS: true}).server)
	slow := map[string]bool{"alias": true, "referral": true, "dname": true, "refused": true}
	for name, msg := range commonQueries(t) {
		if took := l.compare(t, msg, client, false); took == slow[name] {
			t.Errorf("%s: took the fast lane: %v", name, took)
		}
	}
}

// TestLanesAgreeAtTheEdges: the lanes agree on answers as long as a datagram may be and one octet more, on what belongs to the zone
// above, and on each letter's case. What fits takes the fast lane.
func TestLanesAgreeAtTheEdges(t *testing.T) {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	const least, most = 150, 250 // octets of a second string
	var text strings.Builder
	text.WriteString("@ SOA ns1 root 1 3600 600 86400 60\n@ NS ns.elsewhere.net.\nchild NS ns.elsewhere.net.\nchild DS 1 8 2 " + strings.Repeat("00", 32) + "\n" + letters + " A 192.0.2.1\n")
	for n := least; n < most; n++ {
		fmt.Fprintf(&text, "t%d TXT %s %s\n", n, strings.Repeat("x", 250), strings.Repeat("y", n))
	}
	set, err := zone.Compile([]zone.Spec{
		{Name: "example.com.", Master: text.String()},
		{Name: "child.example.com.", Master: "@ SOA ns1 root 1 3600 600 86400 60\n@ NS ns.elsewhere.net.\n"},
		{Name: "secret.example.com.", Master: "@ SOA ns1 root 1 3600 600 86400 60\n@ NS ns.elsewhere.net.\n"}, // which the zone above does not know
	})
	if err != nil {
		t.Fatal(err)
	}
	s := detached(t, Tunables{ECS: true})
	s.server.zones.Store(serve(set, s.server.board))
	l := newLanes(s.server)
	ask := func(m *dns.Msg) bool {
		t.Helper()
		msg, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return l.compare(t, msg, client, false)
	}
	for name, make := range map[string]func(*dns.Msg) *dns.Msg{
		"plain":  func(m *dns.Msg) *dns.Msg { return m },
		"EDNS":   func(m *dns.Msg) *dns.Msg { return m.SetEdns0(512, false) },
		"subnet": func(m *dns.Msg) *dns.Msg { m = withSubnet(m, "46.4.0.0/24"); m.IsEdns0().SetUDPSize(512); return m },
	} {
		fit := 0
		for n := least; n < most; n++ {
			if ask(make(query(fmt.Sprintf("t%d.example.com.", n), "TXT"))) {
				fit++
			}
		}
		if fit == 0 || fit == most-least {
			t.Errorf("%s: %d of %d answers fit: the test misses the edge", name, fit, most-least)
		}
	}
	for _, name := range []string{"child.example.com.", "secret.example.com.", "example.com.", "www.child.example.com.", letters + ".example.com."} {
		ask(query(name, "DS"))
	}
	for i := range letters {
		if !ask(query(strings.ToUpper(letters[:i+1])+letters[i+1:]+".example.com.", "A")) {
			t.Errorf("%c: not for the fast lane", letters[i])
		}
	}
}

// FuzzLanes: as TestLanesAgree, for what nobody thought of.
func FuzzLanes(f *testing.F) {
	for _, msg := range commonQueries(f) {
		f.Add(msg, false)
		f.Add(msg, true)
	}
	l := newLanes(detached(f, Tunables{ECS: true, ServerID: "fuzz"}).server)
	f.Fuzz(func(t *testing.T, msg []byte, tcp bool) { l.compare(t, msg, client, tcp) })
}
