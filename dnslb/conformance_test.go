package dnslb

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"
)

const soa = "example.com. 300 SOA ns1.example.com. hostmaster.example.com. 2026112201 7200 900 1209600 300"

// TestAnswers is what the server says to questions about the zone, over UDP
// and over TCP.
func TestAnswers(t *testing.T) {
	s := start(t, Options{})
	mail := "mail.example.com. 3600 A 192.0.2.25"
	tests := []struct {
		name, ask, rtype string
		rcode            int
		notAuthoritative bool
		answer           []string
		authority        []string
		additional       []string
	}{
		{name: "record", ask: "mail.example.com.", rtype: "A", answer: []string{mail}},
		{name: "apex", ask: "example.com.", rtype: "MX", answer: []string{"example.com. 3600 MX 10 mail.example.com."}},
		{name: "case is kept", ask: "MaIL.eXample.COM.", rtype: "A", answer: []string{"MaIL.eXample.COM. 3600 A 192.0.2.25"}},
		{name: "SOA", ask: "example.com.", rtype: "SOA", answer: []string{"example.com. 3600" + soa[len("example.com. 300"):]}},
		{name: "no such type", ask: "mail.example.com.", rtype: "TXT", authority: []string{soa}},
		{name: "no such name", ask: "x.y.example.com.", rtype: "A", rcode: dns.RcodeNameError, authority: []string{soa}},
		{name: "empty non-terminal", ask: "b.ent.example.com.", rtype: "A", authority: []string{soa}},
		{name: "empty non-terminal, ANY", ask: "b.ent.example.com.", rtype: "ANY", authority: []string{soa}},
		{name: "not ours", ask: "www.elsewhere.net.", rtype: "A", rcode: dns.RcodeRefused, notAuthoritative: true},
		{name: "above our zone", ask: "com.", rtype: "NS", rcode: dns.RcodeRefused, notAuthoritative: true},
		{name: "the root", ask: ".", rtype: "NS", rcode: dns.RcodeRefused, notAuthoritative: true},
		{name: "alias", ask: "alias.example.com.", rtype: "A", answer: []string{"alias.example.com. 3600 CNAME mail.example.com.", mail}},
		{name: "alias asked for", ask: "alias.example.com.", rtype: "CNAME", answer: []string{"alias.example.com. 3600 CNAME mail.example.com."}},
		{
			name: "alias to no such type", ask: "alias.example.com.", rtype: "TXT",
			answer: []string{"alias.example.com. 3600 CNAME mail.example.com."}, authority: []string{soa},
		},
		{
			name: "alias to nothing", ask: "dangling.example.com.", rtype: "A", rcode: dns.RcodeNameError,
			answer: []string{"dangling.example.com. 3600 CNAME nowhere.example.com."}, authority: []string{soa},
		},
		{name: "alias to elsewhere", ask: "outside.example.com.", rtype: "A", answer: []string{"outside.example.com. 3600 CNAME www.elsewhere.net."}},
		{name: "alias, ANY", ask: "alias.example.com.", rtype: "ANY", answer: []string{"alias.example.com. 3600 CNAME mail.example.com."}},
		{name: "wildcard", ask: "foo.bar.wild.example.com.", rtype: "TXT", answer: []string{`foo.bar.wild.example.com. 3600 TXT "wild"`}},
		{name: "wildcard, no such type", ask: "foo.wild.example.com.", rtype: "A", authority: []string{soa}},
		{name: "wildcard asked for", ask: "*.wild.example.com.", rtype: "TXT", answer: []string{`*.wild.example.com. 3600 TXT "wild"`}},
		{name: "wildcard blocked by a sibling", ask: "x.sub.wild.example.com.", rtype: "TXT", rcode: dns.RcodeNameError, authority: []string{soa}},
		{name: "wildcard's parent", ask: "wild.example.com.", rtype: "TXT", authority: []string{soa}},
		{
			name: "delegation", ask: "www.child.example.com.", rtype: "A", notAuthoritative: true,
			authority:  []string{"child.example.com. 3600 NS ns.child.example.com.", "child.example.com. 3600 NS ns2.elsewhere.net."},
			additional: []string{"ns.child.example.com. 3600 A 192.0.2.99"},
		},
		{
			name: "at the cut", ask: "CHILD.example.com.", rtype: "NS", notAuthoritative: true,
			authority:  []string{"CHILD.example.com. 3600 NS ns.child.example.com.", "CHILD.example.com. 3600 NS ns2.elsewhere.net."},
			additional: []string{"ns.child.example.com. 3600 A 192.0.2.99"},
		},
		{
			name: "DS", ask: "child.example.com.", rtype: "DS",
			answer: []string{"child.example.com. 3600 DS 12345 13 2 0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF"},
		},
		{
			name: "glue is no answer", ask: "ns.child.example.com.", rtype: "A", notAuthoritative: true,
			authority:  []string{"child.example.com. 3600 NS ns.child.example.com.", "child.example.com. 3600 NS ns2.elsewhere.net."},
			additional: []string{"ns.child.example.com. 3600 A 192.0.2.99"},
		},
		{name: "DNAME", ask: "a.old.example.com.", rtype: "A", answer: []string{
			"old.example.com. 3600 DNAME new.example.com.", "a.old.example.com. 3600 CNAME a.new.example.com.", "a.new.example.com. 3600 A 192.0.2.77",
		}},
		{name: "DNAME to nothing", ask: "b.old.example.com.", rtype: "A", rcode: dns.RcodeNameError, authority: []string{soa}, answer: []string{
			"old.example.com. 3600 DNAME new.example.com.", "b.old.example.com. 3600 CNAME b.new.example.com.",
		}},
		{name: "at the DNAME", ask: "old.example.com.", rtype: "A", authority: []string{soa}},
		{name: "ANY", ask: "mail.example.com.", rtype: "ANY", answer: []string{`mail.example.com. 3600 HINFO "RFC8482" ""`}},
		{name: "ANY at a steered name", ask: "any.example.com.", rtype: "ANY", answer: []string{`any.example.com. 3600 HINFO "RFC8482" ""`}},
		{name: "transfer", ask: "example.com.", rtype: "AXFR", rcode: dns.RcodeRefused, notAuthoritative: true},
		{name: "incremental transfer", ask: "example.com.", rtype: "IXFR", rcode: dns.RcodeRefused, notAuthoritative: true},

		{name: "steered", ask: "www.example.com.", rtype: "A", answer: []string{"www.example.com. 30 A 192.0.2.80"}},
		{name: "steered, IPv6", ask: "WWW.example.com.", rtype: "AAAA", answer: []string{"WWW.example.com. 30 AAAA 2001:db8:3::80"}},
		{name: "beside a steered name", ask: "www.example.com.", rtype: "TXT", answer: []string{`www.example.com. 3600 TXT "beside a steered name"`}},
		{name: "steered, other type", ask: "www.example.com.", rtype: "MX", authority: []string{soa}},
		{name: "below a steered name", ask: "x.www.example.com.", rtype: "A", rcode: dns.RcodeNameError, authority: []string{soa}},
		{name: "steered wildcard", ask: "x.y.geo.example.com.", rtype: "A", answer: []string{"x.y.geo.example.com. 30 A 192.0.2.80"}},
		{name: "steered, no address of the family", ask: "four.example.com.", rtype: "AAAA", authority: []string{soa}},
		{name: "failover", ask: "four.example.com.", rtype: "A", answer: []string{"four.example.com. 30 A 203.0.113.4"}},
		{name: "anycast", ask: "any.example.com.", rtype: "A", answer: []string{"any.example.com. 30 A 192.0.2.200"}},
		{name: "anycast, no address of the family", ask: "any.example.com.", rtype: "AAAA", authority: []string{soa}},
		{name: "chain to a steered name", ask: "c1.example.com.", rtype: "A", answer: []string{
			"c1.example.com. 3600 CNAME c2.example.com.", "c2.example.com. 3600 CNAME c3.example.com.",
			"c3.example.com. 3600 CNAME www.example.com.", "www.example.com. 30 A 192.0.2.80",
		}},
		{name: "service not in the plan", ask: "gone.example.com.", rtype: "A", rcode: dns.RcodeServerFailure, notAuthoritative: true},
		{name: "alias to such", ask: "tofail.example.com.", rtype: "A", rcode: dns.RcodeServerFailure, notAuthoritative: true},
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, tt := range tests {
			t.Run(network+"/"+tt.name, func(t *testing.T) {
				q := query(tt.ask, tt.rtype)
				got := ask(t, s, network, q)
				type response struct {
					Rcode                      int
					AA, TC, RA, AD, CD, Zero   bool
					Answer, Authority, Further []string
				}
				want := response{Rcode: tt.rcode, AA: !tt.notAuthoritative, Answer: tt.answer, Authority: tt.authority, Further: tt.additional}
				have := response{
					got.Rcode, got.Authoritative, got.Truncated, got.RecursionAvailable, got.AuthenticatedData, got.CheckingDisabled, got.Zero,
					lines(got.Answer), lines(got.Ns), lines(got.Extra),
				}
				if diff := cmp.Diff(want, have, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if got.Id != q.Id || !cmp.Equal(got.Question, q.Question) || got.IsEdns0() != nil {
					t.Errorf("question not echoed, or OPT in the reply to a query without:\n%v", got)
				}
			})
		}
	}
}

// TestHeader is what becomes of odd headers, EDNS and other classes.
func TestHeader(t *testing.T) {
	s := start(t, Options{Tunables: Tunables{ECS: true, ServerID: "fra1", Version: "pharos"}})
	hidden := start(t, Options{})
	edns := func(m *dns.Msg, change func(*dns.OPT)) *dns.Msg {
		m.SetEdns0(4096, true)
		if change != nil {
			change(m.IsEdns0())
		}
		return m
	}
	chaos := func(name string) *dns.Msg {
		m := query(name, "TXT")
		m.Question[0].Qclass = dns.ClassCHAOS
		return m
	}
	subnet := func(family uint16, source, scope uint8, addr ...byte) *dns.Msg {
		return edns(query("mail.example.com.", "A"), func(o *dns.OPT) {
			o.Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 8, Data: append([]byte{byte(family >> 8), byte(family), source, scope}, addr...)}}
		})
	}
	change := func(f func(*dns.Msg)) *dns.Msg {
		m := query("mail.example.com.", "A")
		f(m)
		return m
	}
	tests := []struct {
		name   string
		server *Server
		query  *dns.Msg
		rcode  int
		check  func(*dns.Msg) bool
	}{
		{"RD is copied", s, change(func(m *dns.Msg) { m.RecursionDesired = true }), 0, func(r *dns.Msg) bool { return r.RecursionDesired && !r.RecursionAvailable }},
		{
			"AD, CD and Z do no harm", s, change(func(m *dns.Msg) { m.AuthenticatedData, m.CheckingDisabled, m.Zero = true, true, true }), 0,
			func(r *dns.Msg) bool {
				return !r.AuthenticatedData && !r.CheckingDisabled && !r.Zero && len(r.Answer) == 1
			},
		},
		{"unknown opcode", s, change(func(m *dns.Msg) { m.Opcode = 3 }), dns.RcodeNotImplemented, func(r *dns.Msg) bool { return r.Opcode == 3 }},
		{"notify", s, change(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeRefused, nil},
		{"update", s, change(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeRefused, nil},
		{"no question", s, change(func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError, nil},
		{"two questions", s, change(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError, nil},
		{"class HS", s, change(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassHESIOD }), dns.RcodeRefused, nil},
		{"class ANY", s, change(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }), dns.RcodeRefused, nil},
		{"unknown type", s, change(func(m *dns.Msg) { m.Question[0].Qtype = 65280 }), 0, func(r *dns.Msg) bool { return len(r.Answer) == 0 && len(r.Ns) == 1 }},

		{"EDNS", s, edns(query("mail.example.com.", "A"), nil), 0, func(r *dns.Msg) bool {
			o := r.IsEdns0()
			return o != nil && o.Do() && o.UDPSize() == 1232 && o.Version() == 0 && len(o.Option) == 0
		}},
		{"EDNS in errors", s, edns(query("elsewhere.net.", "A"), nil), dns.RcodeRefused, func(r *dns.Msg) bool { return r.IsEdns0() != nil }},
		{
			"EDNS version 1", s, edns(query("mail.example.com.", "A"), func(o *dns.OPT) { o.SetVersion(1) }), dns.RcodeBadVers,
			func(r *dns.Msg) bool { return r.IsEdns0().Version() == 0 && len(r.Answer) == 0 },
		},
		{"unknown option and flags", s, edns(query("mail.example.com.", "A"), func(o *dns.OPT) {
			o.Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65001, Data: []byte{1}}}
			o.Hdr.Ttl |= 0x4000
		}), 0, func(r *dns.Msg) bool { return len(r.IsEdns0().Option) == 0 && r.IsEdns0().Hdr.Ttl&0x7fff == 0 }},
		{"two OPT", s, change(func(m *dns.Msg) { edns(m, nil); m.Extra = append(m.Extra, m.Extra[0]) }), dns.RcodeFormatError, nil},
		{
			"NSID", s, edns(query("mail.example.com.", "A"), func(o *dns.OPT) { o.Option = []dns.EDNS0{&dns.EDNS0_NSID{Code: dns.EDNS0NSID}} }), 0,
			func(r *dns.Msg) bool {
				n, ok := r.IsEdns0().Option[0].(*dns.EDNS0_NSID)
				return ok && n.Nsid == "66726131"
			},
		},
		{"extended error", s, edns(query("elsewhere.net.", "A"), nil), dns.RcodeRefused, func(r *dns.Msg) bool {
			e, ok := r.IsEdns0().Option[0].(*dns.EDNS0_EDE)
			return ok && e.InfoCode == dns.ExtendedErrorCodeNotAuthoritative
		}},

		{"version", s, chaos("version.bind."), 0, func(r *dns.Msg) bool { return r.Answer[0].(*dns.TXT).Txt[0] == "pharos" }},
		{"server id", s, chaos("ID.server."), 0, func(r *dns.Msg) bool { return r.Answer[0].(*dns.TXT).Txt[0] == "fra1" }},
		{"version hidden", hidden, chaos("version.bind."), dns.RcodeRefused, nil},
		{"class CH, a name of ours", s, chaos("example.com."), dns.RcodeRefused, nil},

		{"ECS at a static name", s, subnet(1, 24, 0, 192, 0, 2), 0, func(r *dns.Msg) bool {
			e := subnetOf(r)
			return e.Family == 1 && e.SourceNetmask == 24 && e.SourceScope == 0 && e.Address.String() == "192.0.2.0"
		}},
		{"ECS source 0", s, subnet(1, 0, 0), 0, func(r *dns.Msg) bool { e := subnetOf(r); return e.SourceNetmask == 0 && e.SourceScope == 0 }},
		{"ECS family unknown", s, subnet(3, 24, 0, 1, 2, 3), dns.RcodeFormatError, func(r *dns.Msg) bool { return subnetOf(r) == nil }},
		{"ECS bits beyond the prefix", s, subnet(1, 20, 0, 1, 2, 0xff), dns.RcodeFormatError, nil},
		{"ECS too short", s, subnet(1, 24, 0, 1, 2), dns.RcodeFormatError, nil},
		{"ECS too long", s, subnet(1, 16, 0, 1, 2, 0), dns.RcodeFormatError, nil},
		{"ECS scope in a query", s, subnet(1, 24, 24, 1, 2, 3), dns.RcodeFormatError, nil},
		{"ECS not heeded", hidden, subnet(1, 24, 24, 1, 2, 3), 0, func(r *dns.Msg) bool { return subnetOf(r) == nil && len(r.Answer) == 1 }},
		{"ECS not asked", s, edns(query("www.example.com.", "A"), nil), 0, func(r *dns.Msg) bool { return subnetOf(r) == nil }},
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, tt := range tests {
			t.Run(network+"/"+tt.name, func(t *testing.T) {
				got := ask(t, tt.server, network, tt.query)
				if got.Rcode != tt.rcode || tt.check != nil && !tt.check(got) {
					t.Errorf("want rcode %s, got:\n%v", dns.RcodeToString[tt.rcode], got)
				}
			})
		}
	}
}
