package dnslb

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/pharos-lb/pharos/dnslb/zone"
)

// signature makes up an RRSIG record of a set: nobody checks it here.
func signature(t testing.TB, name string, rtype uint16, seed string, variant ...netip.Addr) zone.Signature {
	t.Helper()
	rr := &dns.RRSIG{
		Hdr:         dns.RR_Header{Name: ".", Rrtype: dns.TypeRRSIG, Class: dns.ClassINET, Ttl: 77},
		TypeCovered: rtype, Algorithm: dns.ECDSAP256SHA256, Labels: uint8(dns.CountLabel(name)), OrigTtl: 3600,
		Expiration: 2, Inception: 1, KeyTag: 4711, SignerName: "example.com.", Signature: strings.Repeat(seed, 86) + "==",
	}
	packed := make([]byte, 512)
	n, err := dns.PackRR(rr, packed, 0, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return zone.Signature{Name: name, Type: rtype, Variant: variant, Records: [][]byte{packed[1:n]}} // without the root that owned it
}

// signedSpecs are specs with signatures for what most tests ask, but for AAAA of mail
// and for the variants of iad and of IPv6.
func signedSpecs(t testing.TB) []zone.Spec {
	t.Helper()
	s := specs()
	for i, covered := range []string{"example.com. SOA", "example.com. NS", "mail.example.com. A", "*.wild.example.com. TXT", "alias.example.com. CNAME", "old.example.com. DNAME", "big.example.com. TXT", "child.example.com. DS"} {
		name, rtype, _ := strings.Cut(covered, " ")
		s[0].Signatures = append(s[0].Signatures, signature(t, name, dns.StringToType[rtype], string(rune('A'+i))))
	}
	for _, name := range []string{"www.example.com.", "*.geo.example.com."} {
		s[0].Signatures = append(s[0].Signatures,
			signature(t, name, dns.TypeA, "f", addrs("198.51.100.81", "198.51.100.80")...), signature(t, name, dns.TypeA, "s", addrs("192.0.2.80")...))
	}
	return s
}

// signedServer serves signedSpecs without sockets.
func signedServer(t testing.TB, tunables Tunables) *detachedResponder {
	t.Helper()
	set, err := zone.Compile(signedSpecs(t))
	if err != nil {
		t.Fatal(err)
	}
	d := detached(t, tunables)
	d.server.zones.Store(serve(set, d.server.board))
	return d
}

// TestSignedLanesAgree: with signatures in the zones the lanes give the same octets
// too, whoever wants them.
func TestSignedLanesAgree(t *testing.T) {
	for name, tunables := range map[string]Tunables{"ECS": {ECS: true}, "small": {ECS: true, UDPSize: 512}, "large": {UDPSize: 4096}} {
		t.Run(name, func(t *testing.T) {
			l := newLanes(signedServer(t, tunables).server)
			q := questioner{rand.New(rand.NewPCG(uint64(len(name)), 12))}
			took := 0
			const messages = 3_000
			for range messages {
				if l.compare(t, q.message(), clients[q.IntN(len(clients))], !q.often(8)) {
					took++
				}
			}
			if took < messages/5 {
				t.Errorf("%d of %d messages took the fast lane", took, messages)
			}
		})
	}
}

// TestSignatures: who sets DO gets the signature of the very answer, with its TTL, from
// both lanes; nobody else gets any.
func TestSignatures(t *testing.T) {
	l := newLanes(signedServer(t, Tunables{ECS: true}).server)
	for _, tt := range []struct {
		name, rtype, subnet string
		covered             []string // by the signatures, in order
		slow                bool
	}{
		{"mail.example.com.", "A", "", []string{"A"}, false},
		{"mail.example.com.", "AAAA", "", nil, false},
		{"mail.example.com.", "SRV", "", []string{"SOA"}, false},
		{"nowhere.example.com.", "A", "", []string{"SOA"}, false},
		{"x.wild.example.com.", "TXT", "", []string{"TXT"}, false},
		{"example.com.", "SOA", "", []string{"SOA"}, false},
		{"www.example.com.", "A", "46.4.0.0/24", []string{"A"}, false},    // fra, two addresses in any order
		{"www.example.com.", "A", "203.116.0.0/22", []string{"A"}, false}, // sin
		{"www.example.com.", "A", "8.8.8.0/24", nil, false},               // iad, which has no signature
		{"www.example.com.", "AAAA", "46.4.0.0/24", nil, false},
		{"eu.geo.example.com.", "A", "46.4.0.0/24", []string{"A"}, false},
		{"alias.example.com.", "A", "", []string{"CNAME", "A"}, true},
		{"a.old.example.com.", "A", "", []string{"DNAME"}, true},
	} {
		for _, do := range []bool{false, true} {
			m := query(tt.name, tt.rtype)
			m.SetEdns0(1232, do)
			if tt.subnet != "" {
				m = withSubnet(query(tt.name, tt.rtype), tt.subnet)
				m.IsEdns0().SetDo(do)
			}
			msg, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			if took := l.compare(t, msg, client, false); took == tt.slow {
				t.Errorf("%s %s, DO %v: took the fast lane: %v", tt.name, tt.rtype, do, took)
			}
			got := new(dns.Msg)
			if err := got.Unpack(l.fast.Respond(nil, msg, client, false)); err != nil {
				t.Fatal(err)
			}
			var covered []string
			ttls := map[uint16]uint32{}
			for _, rr := range append(got.Answer, got.Ns...) {
				if sig, ok := rr.(*dns.RRSIG); ok {
					covered = append(covered, dns.TypeToString[sig.TypeCovered])
					if sig.Hdr.Ttl != ttls[sig.TypeCovered] {
						t.Errorf("%s %s: TTL %d of the signature, %d of the set", tt.name, tt.rtype, sig.Hdr.Ttl, ttls[sig.TypeCovered])
					}
				} else {
					ttls[rr.Header().Rrtype] = rr.Header().Ttl
				}
			}
			want := tt.covered
			if !do {
				want = nil
			}
			if strings.Join(covered, " ") != strings.Join(want, " ") {
				t.Errorf("%s %s %s, DO %v: signatures of %v, want %v\n%v", tt.name, tt.rtype, tt.subnet, do, covered, want, got)
			}
		}
	}
}

// TestSignedAllocations: signatures cost no allocation either.
func TestSignedAllocations(t *testing.T) {
	s := signedServer(t, Tunables{ECS: true})
	for _, name := range []string{"mail.example.com.", "www.example.com.", "nowhere.example.com."} {
		m := withSubnet(query(name, "A"), "46.4.0.0/24")
		m.IsEdns0().SetDo()
		msg, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(200, func() { s.Respond(s.out[:0], msg, client, false) }); n != 0 {
			t.Errorf("%s: %.1f allocations", name, n)
		}
	}
}

// TestSignedTooLarge: a set that fits without its signature only is truncated as a
// whole.
func TestSignedTooLarge(t *testing.T) {
	s := signedServer(t, Tunables{UDPSize: 4096})
	m := query("big.example.com.", "TXT")
	m.SetEdns0(760, true) // 3 strings of 231 octets and a signature of 64
	got := new(dns.Msg)
	if err := got.Unpack(s.respond(t, m)); err != nil {
		t.Fatal(err)
	}
	if !got.Truncated || len(got.Answer) != 0 {
		t.Errorf("got\n%v", got)
	}
}
