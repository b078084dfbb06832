package dnslb

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/pharos-lb/pharos/internal/steer"
)

// TestSteering asks as clients of three continents.
func TestSteering(t *testing.T) {
	all, noFra, allDown := newBoard(t), newBoard(t, "fra"), newBoard(t, "fra", "iad", "sin")
	s := start(t, Options{Tunables: Tunables{ECS: true}})
	tests := []struct {
		name, ask, rtype, subnet string
		board                    *steer.Board
		want                     []string // sorted
		ttl                      uint32
		placed                   bool
	}{
		{"Germany", "www.example.com.", "A", "46.4.0.0/24", all, []string{"198.51.100.80", "198.51.100.81"}, 30, true},
		{"USA", "www.example.com.", "A", "8.8.8.0/24", all, []string{"203.0.113.80"}, 30, true},
		{"Singapore", "www.example.com.", "A", "203.116.0.0/24", all, []string{"192.0.2.80"}, 30, true},
		{"Germany over IPv6", "www.example.com.", "AAAA", "2a01:4f8::/32", all, []string{"2001:db8:1::80"}, 30, true},
		{"wildcard", "x.geo.example.com.", "A", "8.8.8.0/24", all, []string{"203.0.113.80"}, 30, true},
		{"source 0 is the resolver", "www.example.com.", "A", "0.0.0.0/0", all, []string{"192.0.2.80"}, 30, false},
		{"not placed", "four.example.com.", "A", "46.4.0.0/24", all, []string{"203.0.113.4"}, 30, false},
		{"not placed, no such family", "four.example.com.", "AAAA", "46.4.0.0/24", all, nil, 0, false},
		{"anycast", "any.example.com.", "A", "46.4.0.0/24", all, []string{"192.0.2.200"}, 30, false},
		{"Germany without its site", "www.example.com.", "A", "46.4.0.0/24", noFra, []string{"203.0.113.80"}, 15, true},
		{"all down: answered still", "www.example.com.", "A", "46.4.0.0/24", allDown, []string{"198.51.100.80", "198.51.100.81"}, 15, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plan := tt.board.Load()
			s.board.Publish(plan)
			got := ask(t, s, "udp", withSubnet(query(tt.ask, tt.rtype), tt.subnet))
			var addrs []string
			ttl := uint32(0)
			for _, rr := range got.Answer {
				ttl = rr.Header().Ttl
				switch rr := rr.(type) {
				case *dns.A:
					addrs = append(addrs, rr.A.String())
				case *dns.AAAA:
					addrs = append(addrs, rr.AAAA.String())
				}
			}
			slices.Sort(addrs)
			if diff := cmp.Diff(tt.want, addrs); diff != "" || ttl != tt.ttl || got.Rcode != 0 {
				t.Errorf("TTL %d, want %d; addresses (-want +got):\n%s", ttl, tt.ttl, diff)
			}
			prefix := netip.MustParsePrefix(tt.subnet)
			scope := 0
			if tt.placed {
				_, scope = plan.Topology.Locate(prefix.Addr())
			}
			e := subnetOf(got)
			if e == nil || int(e.SourceScope) != scope || int(e.SourceNetmask) != prefix.Bits() || e.Address.String() != prefix.Addr().String() {
				t.Errorf("client subnet %v, want %v with scope %d", e, prefix, scope)
			}
		})
	}
}

// TestScopeCovers: whatever prefix a response is said to hold for, every other
// client in it gets the same answer (RFC 7871 7.2.1): tailored prefixes do not
// overlap.
func TestScopeCovers(t *testing.T) {
	s := detached(t, Tunables{ECS: true})
	random := rand.New(rand.NewPCG(1, 2))
	answer := func(addr netip.Addr, bits int) (string, int) {
		prefix, err := addr.Prefix(bits)
		if err != nil {
			t.Fatal(err)
		}
		reply := new(dns.Msg)
		if err := reply.Unpack(s.respond(t, withSubnet(query("www.example.com.", "A"), prefix.String()))); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, rr := range reply.Answer {
			got = append(got, rr.(*dns.A).A.String())
		}
		slices.Sort(got)
		return got[0], int(subnetOf(reply).SourceScope)
	}
	for range 3000 {
		var a [4]byte
		n := random.Uint32()
		a[0], a[1], a[2], a[3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
		addr := netip.AddrFrom4(a)
		site, scope := answer(addr, 32)
		prefix, err := addr.Prefix(scope)
		if err != nil {
			t.Fatal(err)
		}
		other := prefix.Addr().As4()
		for i := range 4 {
			free := max(0, min(8, 8*(i+1)-scope))
			other[i] |= byte(random.Uint32()) & byte(1<<free-1)
		}
		otherSite, otherScope := answer(netip.AddrFrom4(other), 32)
		if otherSite != site || otherScope != scope {
			t.Fatalf("%v gets %s for /%d, but %v in it gets %s for /%d", addr, site, scope, netip.AddrFrom4(other), otherSite, otherScope)
		}
	}
}

// TestAliasToTailored: with a client subnet only the first alias is answered,
// for everybody; without one, the whole chain.
func TestAliasToTailored(t *testing.T) {
	s := start(t, Options{Tunables: Tunables{ECS: true}})
	got := ask(t, s, "udp", withSubnet(query("c1.example.com.", "A"), "46.4.0.0/24"))
	if want := []string{"c1.example.com. 3600 CNAME c2.example.com."}; !cmp.Equal(lines(got.Answer), want) || subnetOf(got).SourceScope != 0 || got.Truncated {
		t.Errorf("want the first alias with scope 0, got:\n%v", got)
	}
	for name, q := range map[string]*dns.Msg{
		"no subnet":       query("c1.example.com.", "A"),
		"source 0":        withSubnet(query("c1.example.com.", "A"), "0.0.0.0/0"),
		"type without":    withSubnet(query("c1.example.com.", "TXT"), "46.4.0.0/24"),
		"anycast, subnet": withSubnet(query("toany.example.com.", "A"), "46.4.0.0/24"),
	} {
		if got := ask(t, s, "udp", q); len(got.Answer) < 2 || subnetOf(got) != nil && subnetOf(got).SourceScope != 0 {
			t.Errorf("%s: want the whole chain, scope 0; got:\n%v", name, got)
		}
	}
}

// TestRotation: every address of a site comes first for some client.
func TestRotation(t *testing.T) {
	s := detached(t, Tunables{ECS: true})
	first := make(map[string]int)
	for range 200 {
		reply := new(dns.Msg)
		if err := reply.Unpack(s.respond(t, withSubnet(query("www.example.com.", "A"), "46.4.0.0/24"))); err != nil {
			t.Fatal(err)
		}
		first[reply.Answer[0].(*dns.A).A.String()]++
	}
	if first["198.51.100.80"] < 50 || first["198.51.100.81"] < 50 {
		t.Errorf("the first addresses are not spread: %v", first)
	}
}

// TestNoPlan: before the first plan steered names fail, and nothing else does.
func TestNoPlan(t *testing.T) {
	s := start(t, Options{Board: new(steer.Board)})
	if got := ask(t, s, "udp", query("www.example.com.", "A")); got.Rcode != dns.RcodeServerFailure {
		t.Errorf("steered: got\n%v", got)
	}
	if got := ask(t, s, "udp", query("mail.example.com.", "A")); got.Rcode != 0 || len(got.Answer) != 1 {
		t.Errorf("static: got\n%v", got)
	}
	if got := ask(t, s, "udp", query("www.example.com.", "TXT")); got.Rcode != 0 || len(got.Answer) != 1 {
		t.Errorf("beside steered: got\n%v", got)
	}
}

// TestExistence: no client and no health turns a steered name into NXDOMAIN.
func TestExistence(t *testing.T) {
	for _, board := range []*steer.Board{newBoard(t), newBoard(t, "fra"), newBoard(t, "fra", "iad", "sin"), new(steer.Board)} {
		s := detached(t, Tunables{ECS: true})
		s.server.board = board
		for _, rtype := range []string{"A", "AAAA", "TXT", "HTTPS", "ANY"} {
			for _, client := range []string{"46.4.0.0/24", "8.8.8.0/24", "2001:db8::/32", "::/0"} {
				for _, name := range []string{"www.example.com.", "four.example.com.", "any.example.com.", "x.geo.example.com."} {
					reply := new(dns.Msg)
					if err := reply.Unpack(s.respond(t, withSubnet(query(name, rtype), client))); err != nil {
						t.Fatal(err)
					}
					if reply.Rcode == dns.RcodeNameError {
						t.Errorf("%s %s from %s: NXDOMAIN", name, rtype, client)
					}
				}
			}
		}
	}
}
