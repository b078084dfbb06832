package dnslb

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/pharos-lb/pharos/dnslb/zone"
	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/steer"
)

// answerFrom asks a zone of its own over UDP without sockets.
func answerFrom(t *testing.T, master string, q *dns.Msg) *dns.Msg {
	t.Helper()
	set, err := zone.Parse("example.com.", master, "z")
	if err != nil {
		t.Fatal(err)
	}
	s := detached(t, Tunables{})
	s.server.zones.Store(serve(set, s.server.board))
	got := new(dns.Msg)
	if err := got.Unpack(s.respond(t, q)); err != nil {
		t.Fatal(err)
	}
	return got
}

// TestNameTooLong: a DNAME that would make a name of over 255 octets (RFC 6672 2.2).
func TestNameTooLong(t *testing.T) {
	label := strings.Repeat("x", 60) + "."
	master := "old DNAME " + strings.Repeat(label, 3) + "new\nnew.example.com. A 192.0.2.1\n"
	got := answerFrom(t, master, query(label+"old.example.com.", "A"))
	if got.Rcode != dns.RcodeYXDomain || !got.Authoritative || len(got.Answer) != 1 || got.Answer[0].Header().Rrtype != dns.TypeDNAME {
		t.Errorf("want YXDOMAIN with the DNAME, got\n%v", got)
	}
	if got := answerFrom(t, master, query("a.old.example.com.", "A")); got.Rcode != dns.RcodeNameError && got.Rcode != 0 || len(got.Answer) != 2 {
		t.Errorf("a short name: got\n%v", got)
	}
}

// TestGlueThatDoesNotFit: a referral without the addresses that it needs is
// truncated (RFC 9471); addresses that only help are left out.
func TestGlueThatDoesNotFit(t *testing.T) {
	var inside, outside strings.Builder
	for i := range 8 {
		fmt.Fprintf(&inside, "sub NS ns%d.sub\nns%d.sub A 192.0.2.%d\nns%d.sub AAAA 2001:db8::%d\n", i, i, i, i, i)
		fmt.Fprintf(&outside, "sub NS ns%d\nns%d A 192.0.2.%d\nns%d AAAA 2001:db8::%d\n", i, i, i, i, i)
	}
	small, large := query("www.sub.example.com.", "A"), query("www.sub.example.com.", "A")
	large.SetEdns0(1232, false)
	for _, tt := range []struct {
		name, master string
		query        *dns.Msg
		truncated    bool
		glue         int
	}{
		{"needed, no room", inside.String(), small, true, 0},
		{"needed, room", inside.String(), large, false, 16},
		{"helpful, no room", outside.String(), small, false, 0},
		{"helpful, room", outside.String(), large, false, 16},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := answerFrom(t, tt.master, tt.query)
			glue := len(lines(got.Extra))
			if got.Truncated != tt.truncated || glue != tt.glue || len(got.Ns) != 8 || got.Authoritative {
				t.Errorf("TC %v with %d addresses and %d servers, want %v with %d and 8", got.Truncated, glue, len(got.Ns), tt.truncated, tt.glue)
			}
		})
	}
}

// TestChainBound: a loop ends, and so does a chain that is merely long.
func TestChainBound(t *testing.T) {
	var long strings.Builder
	for i := range 20 {
		fmt.Fprintf(&long, "c%d CNAME c%d\n", i, i+1)
	}
	for _, tt := range []struct {
		name, master string
		records      int
	}{
		{"loop", "c0 CNAME C1\nc1 CNAME c0\n", 2},
		{"self", "c0 CNAME c0\n", 1},
		{"into a loop", "c0 CNAME c1\nc1 CNAME c2\nc2 CNAME c1\n", 3},
		{"wildcard", "* CNAME x\n", 2},
		{"DNAME that nests", "c0 CNAME a.d\nd DNAME x.d\n", 9}, // the DNAME, and an alias for each hop
		{"DNAME into a loop", "c0 CNAME a.d\nd DNAME e\ne DNAME d\n", 5},
		{"long", long.String(), maxChain},
	} {
		got := answerFrom(t, tt.master, query("c0.example.com.", "A"))
		seen := make(map[string]bool)
		for _, rr := range got.Answer {
			if seen[strings.ToLower(rr.String())] {
				t.Errorf("%s: twice in the answer: %v", tt.name, rr)
			}
			seen[strings.ToLower(rr.String())] = true
		}
		if got.Rcode != 0 || len(got.Answer) != tt.records || !got.Authoritative || got.Truncated {
			t.Errorf("%s: %d records, want %d:\n%v", tt.name, len(got.Answer), tt.records, got)
		}
	}
}

// TestSteeredDoesNotFit: more VIPs than a datagram holds set TC; none of them is
// answered, because a set is whole or not there. TCP has them all.
func TestSteeredDoesNotFit(t *testing.T) {
	cfg := fleet(t)
	for i := range cfg.Services {
		if s := &cfg.Services[i]; s.Name == "web" {
			for v := range s.VIPs {
				s.VIPs[v].Addresses = nil
				for n := range 40 {
					s.VIPs[v].Addresses = append(s.VIPs[v].Addresses,
						netip.AddrFrom4([4]byte{10, byte(v), 0, byte(n)}), netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(v), 15: byte(n)}))
				}
			}
		}
	}
	db, err := geo.Embedded()
	if err != nil {
		t.Fatal(err)
	}
	topology, err := steer.Compile(cfg, db, "fra1")
	if err != nil {
		t.Fatal(err)
	}
	s := detached(t, Tunables{ECS: true})
	s.server.board.Publish(steer.Decide(topology, nil, steer.Facts{Ready: true}, nil))
	subnet := func(m *dns.Msg) *dns.Msg {
		m = withSubnet(m, "46.4.0.0/24")
		m.IsEdns0().SetUDPSize(512)
		return m
	}
	for _, tt := range []struct {
		name           string
		query          *dns.Msg
		tcp, truncated bool
		answers        int
	}{
		{"512, A", query("www.example.com.", "A"), false, true, 0},
		{"512, AAAA", query("www.example.com.", "AAAA"), false, true, 0},
		{"512, client subnet", subnet(query("www.example.com.", "A")), false, true, 0},
		{"512, behind an alias", query("c3.example.com.", "A"), false, true, 1},
		{"1232, A", withSubnet(query("www.example.com.", "A"), "46.4.0.0/24"), false, false, 40},
		{"TCP, AAAA", query("www.example.com.", "AAAA"), true, false, 40},
	} {
		t.Run(tt.name, func(t *testing.T) {
			msg, err := tt.query.Pack()
			if err != nil {
				t.Fatal(err)
			}
			out := s.Respond(nil, msg, client, tt.tcp)
			got := new(dns.Msg)
			if err := got.Unpack(out); err != nil {
				t.Fatal(err)
			}
			limit := 512
			if opt := tt.query.IsEdns0(); opt != nil {
				limit = int(opt.UDPSize())
			}
			if got.Truncated != tt.truncated || len(got.Answer) != tt.answers || len(got.Ns) != 0 || got.Rcode != 0 || !tt.tcp && len(out) > limit {
				t.Errorf("%d octets, TC %v with %d answers, want %v with %d:\n%v", len(out), got.Truncated, len(got.Answer), tt.truncated, tt.answers, got)
			}
			if subnetOf(tt.query) != nil && subnetOf(got) == nil {
				t.Error("the client subnet is missing")
			}
		})
	}
}

// TestRenamedAtTheLimit: whatever the size of what a DNAME leads to, an answer
// that is not whole sets TC, keeps to 512 octets and has no set in part.
func TestRenamedAtTheLimit(t *testing.T) {
	s := detached(t, Tunables{})
	respond := func(master, name, rtype string) (answers int, truncated bool) {
		t.Helper()
		set, err := zone.Parse("example.com.", master, "z")
		if err != nil {
			t.Fatal(err)
		}
		s.server.zones.Store(serve(set, s.server.board))
		out, got := s.respond(t, query(name, rtype)), new(dns.Msg)
		if err := got.Unpack(out); err != nil {
			t.Fatal(err)
		}
		if len(out) > 512 || got.Rcode != 0 || len(got.Ns) != 0 {
			t.Fatalf("%d octets:\n%v", len(out), got)
		}
		return len(got.Answer), got.Truncated
	}
	seen := make(map[int]int)
	for size := range 250 { // DNAME, CNAME, two TXT that come together or not at all
		answers, truncated := respond(fmt.Sprintf("old DNAME %s\nname.%[1]s TXT a%s\n TXT b\n", strings.Repeat("t", 60), strings.Repeat("x", size)), "name.old.example.com.", "TXT")
		if want := map[bool]int{false: 4, true: 2}[truncated]; answers != want {
			t.Fatalf("TXT of %d octets: %d answers, TC %v", size, answers, truncated)
		}
		seen[answers]++
	}
	for size := range 55 { // DNAME and CNAME
		target := strings.Repeat(strings.Repeat("t", 59)+".", 3) + strings.Repeat("u", 1+size) + ".net."
		answers, truncated := respond("old DNAME "+target+"\n", "name.old.example.com.", "A")
		if want := map[bool]int{false: 2, true: 1}[truncated]; answers != want {
			t.Fatalf("DNAME of %d octets: %d answers, TC %v", len(target), answers, truncated)
		}
		seen[answers]++
	}
	if seen[1] == 0 || seen[2] == 0 || seen[4] == 0 {
		t.Errorf("the test misses a case: %v", seen)
	}
}

// TestDeepName: a name of 127 labels is answered like any other.
func TestDeepName(t *testing.T) {
	deep := strings.Repeat("a.", 121) + "example.com."
	if got := answerFrom(t, "* TXT wild\n", query(deep, "TXT")); len(got.Answer) != 1 || got.Answer[0].Header().Name != deep {
		t.Errorf("got\n%v", got)
	}
}
