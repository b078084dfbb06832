package wire

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

func pack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func question(name string, rtype uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, rtype)
	m.Id = 0x1234
	return m
}

// withOPT adds an OPT record with options to a question.
func withOPT(m *dns.Msg, options ...dns.EDNS0) *dns.Msg {
	m.SetEdns0(1400, true)
	m.IsEdns0().Option = options
	return m
}

func ecs(family uint16, source, scope uint8, addr ...byte) dns.EDNS0 {
	value := append([]byte{byte(family >> 8), byte(family), source, scope}, addr...)
	return &dns.EDNS0_LOCAL{Code: 8, Data: value}
}

func TestParse(t *testing.T) {
	twoOPT := withOPT(question("a.example.", 1))
	twoOPT.Extra = append(twoOPT.Extra, twoOPT.Extra[0])
	answerOPT := question("a.example.", 1)
	answerOPT.Answer = withOPT(question("a.", 1)).Extra
	twoQuestions := question("a.example.", 1)
	twoQuestions.Question = append(twoQuestions.Question, twoQuestions.Question[0])
	none := question("a.example.", 1)
	none.Question = nil
	response := question("a.example.", 1)
	response.Response = true
	notify := question("a.example.", 6)
	notify.Opcode = dns.OpcodeNotify
	status := question("a.example.", 1)
	status.Opcode = 2
	version := withOPT(question("a.example.", 1))
	version.IsEdns0().SetVersion(1)
	ixfr := question("example.", 251)
	ixfr.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "example.", Rrtype: 6, Class: 1}, Ns: "a.", Mbox: "b."}}
	plain := pack(t, question("a.example.", 1))
	pointer := append([]byte{}, plain[:12]...)
	pointer = append(pointer, 0xc0, 0x0c, 0, 1, 0, 1)

	tests := []struct {
		name  string
		msg   []byte
		rcode Rcode
		drop  bool
	}{
		{"plain", plain, NoError, false},
		{"EDNS", pack(t, withOPT(question("a.example.", 1))), NoError, false},
		{"root", pack(t, question(".", 2)), NoError, false},
		{"with authority", pack(t, ixfr), NoError, false},
		{"unknown option", pack(t, withOPT(question("a.", 1), &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("x")})), NoError, false},
		{"empty", nil, 0, true},
		{"short header", plain[:11], 0, true},
		{"response", pack(t, response), 0, true},
		{"header only", plain[:12], FormErr, false},
		{"cut in the name", plain[:17], FormErr, false},
		{"cut in the class", plain[:len(plain)-1], FormErr, false},
		{"octets after the end", append(append([]byte{}, plain...), 0), FormErr, false},
		{"pointer in the question", pointer, FormErr, false},
		{"two questions", pack(t, twoQuestions), FormErr, false},
		{"no question", pack(t, none), FormErr, false},
		{"two OPT", pack(t, twoOPT), FormErr, false},
		{"OPT in the answer section", pack(t, answerOPT), FormErr, false},
		{"OPT asked for", pack(t, question("a.", 41)), FormErr, false},
		{"notify", pack(t, notify), Refused, false},
		{"unknown opcode", pack(t, status), NotImp, false},
		{"EDNS version 1", pack(t, version), BadVers, false},
		{"keepalive with a time", pack(t, withOPT(question("a.", 1), &dns.EDNS0_LOCAL{Code: 11, Data: []byte{0, 1}})), NoError, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var q Query
			rcode, ok := Parse(tt.msg, &q)
			if ok == tt.drop || ok && rcode != tt.rcode {
				t.Errorf("got %v answered=%v, want %v answered=%v", rcode, ok, tt.rcode, !tt.drop)
			}
		})
	}
}

func TestParseFields(t *testing.T) {
	m := withOPT(question("WwW.Example.COM.", 28),
		&dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_LOCAL{Code: 11}, ecs(1, 20, 0, 10, 1, 0xf0))
	var q Query
	if rcode, ok := Parse(pack(t, m), &q); rcode != NoError || !ok {
		t.Fatal(rcode, ok)
	}
	type fields struct {
		ID, Type, Class, UDP        uint16
		RD, EDNS, DO, NSID, Keep    bool
		Name, Question              string
		HasECS, BadECS              bool
		Family                      uint16
		Source                      uint8
		Addr                        string
		Labels, Length, SecondLabel int
	}
	got := fields{
		q.ID, q.Type, q.Class, q.UDPSize, q.RD, q.EDNS, q.DO, q.NSID, q.Keepalive, string(q.Name.From(0)), string(q.Question),
		q.HasECS, q.BadECS(), q.ECS.Family, q.ECS.Source, q.ECS.Addr.String(), q.Name.Labels(), q.Name.Len(), q.Name.Start(1),
	}
	want := fields{
		0x1234, 28, 1, 1400, true, true, true, true, true, "\x03www\x07example\x03com\x00",
		"\x03WwW\x07Example\x03COM\x00\x00\x1c\x00\x01", true, false, 1, 20, "10.1.240.0", 3, 17, 4,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// The same Query for the next message: nothing stays.
	if rcode, ok := Parse(pack(t, question("x.", 1)), &q); rcode != NoError || !ok || q.EDNS || q.HasECS || q.NSID || q.UDPSize != 512 {
		t.Errorf("state of the last query is left: %+v", q)
	}
}

func TestSubnet(t *testing.T) {
	tests := []struct {
		name    string
		options []dns.EDNS0
		bad     bool
		addr    string
	}{
		{"IPv4 /24", []dns.EDNS0{ecs(1, 24, 0, 192, 0, 2)}, false, "192.0.2.0"},
		{"IPv4 /32", []dns.EDNS0{ecs(1, 32, 0, 192, 0, 2, 1)}, false, "192.0.2.1"},
		{"IPv4 /17", []dns.EDNS0{ecs(1, 17, 0, 10, 1, 0x80)}, false, "10.1.128.0"},
		{"IPv6 /56", []dns.EDNS0{ecs(2, 56, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 1)}, false, "2001:db8:0:100::"},
		{"source 0", []dns.EDNS0{ecs(1, 0, 0)}, false, "invalid IP"},
		{"source 0, family 0", []dns.EDNS0{ecs(0, 0, 0)}, false, "invalid IP"},
		{"source 0, family 3", []dns.EDNS0{ecs(3, 0, 0)}, true, ""},
		{"family 3", []dns.EDNS0{ecs(3, 24, 0, 1, 2, 3)}, true, ""},
		{"family 0", []dns.EDNS0{ecs(0, 8, 0, 1)}, true, ""},
		{"scope in a query", []dns.EDNS0{ecs(1, 24, 24, 1, 2, 3)}, true, ""},
		{"IPv4 /33", []dns.EDNS0{ecs(1, 33, 0, 1, 2, 3, 4, 0)}, true, ""},
		{"IPv6 /129", []dns.EDNS0{ecs(2, 129, 0, make([]byte, 17)...)}, true, ""},
		{"octet missing", []dns.EDNS0{ecs(1, 24, 0, 1, 2)}, true, ""},
		{"octet too many", []dns.EDNS0{ecs(1, 24, 0, 1, 2, 3, 0)}, true, ""},
		{"bit beyond the prefix", []dns.EDNS0{ecs(1, 20, 0, 1, 2, 0x18)}, true, ""},
		{"too short", []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 8, Data: []byte{0, 1}}}, true, ""},
		{"twice", []dns.EDNS0{ecs(1, 24, 0, 1, 2, 3), ecs(1, 24, 0, 1, 2, 3)}, true, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var q Query
			rcode, ok := Parse(pack(t, withOPT(question("a.", 1), tt.options...)), &q)
			if rcode != NoError || !ok || !q.HasECS {
				t.Fatalf("got %v %v, ECS %v", rcode, ok, q.HasECS)
			}
			if q.BadECS() != tt.bad || !tt.bad && q.ECS.Addr.String() != tt.addr {
				t.Errorf("got bad=%v %v, want bad=%v %v", q.BadECS(), q.ECS.Addr, tt.bad, tt.addr)
			}
		})
	}
}

func TestNameLimits(t *testing.T) {
	label := strings.Repeat("\x3f"+strings.Repeat("a", 63), 3) // 192 octets
	longest := label + "\x3d" + strings.Repeat("b", 61) + "\x00"
	deepest := strings.Repeat("\x01a", 127) + "\x00"
	tests := []struct {
		name, in string
		labels   int
		ok       bool
	}{
		{"root", "\x00", 0, true},
		{"255 octets", longest, 4, true},
		{"256 octets", label + "\x3e" + strings.Repeat("b", 62) + "\x00", 0, false},
		{"127 labels", deepest, 127, true},
		{"128 labels", "\x01a" + deepest, 0, false},
		{"label of 64", "\x40" + strings.Repeat("a", 64) + "\x00", 0, false},
		{"no root", "\x01a", 0, false},
		{"empty", "", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var n Name
			length, ok := n.Set([]byte(tt.in))
			if ok != tt.ok || ok && (length != len(tt.in) || n.Labels() != tt.labels || string(n.From(0)) != tt.in) {
				t.Errorf("got %v length %d labels %d, want %v", ok, length, n.Labels(), tt.ok)
			}
		})
	}
}

func TestBuilder(t *testing.T) {
	var q Query
	Parse(pack(t, withOPT(question("WWW.example.com.", 1), &dns.EDNS0_NSID{Code: 3}, ecs(1, 20, 0, 10, 1, 0xf0))), &q)
	a := []byte("\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x00\x00\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x00\x00\x02")
	options := Options{NSID: "ns1", Subnet: true, Keepalive: 30 * time.Second, Extended: 20}
	var b Builder
	b.Begin(nil, &q, 1232)
	b.Reserve(options)
	b.RRset(Answer, QuestionOwner, a, 2)
	b.Addresses(QuestionOwner+4, true, 7, []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}, 1)
	b.RRset(Authority, QuestionOwner+4, a, 2)
	out := b.Finish(Reply{Authoritative: true, Scope: 18}, options, 1232)

	got := new(dns.Msg)
	if err := got.Unpack(out); err != nil {
		t.Fatal(err)
	}
	if got.Question[0].Name != "WWW.example.com." || got.Answer[0].Header().Name != "WWW.example.com." ||
		got.Answer[2].String() != "example.com.\t7\tIN\tAAAA\t2001:db8::2" || got.Ns[1].String() != "example.com.\t60\tIN\tA\t10.0.0.2" {
		t.Errorf("owners:\n%v", got)
	}
	opt := got.IsEdns0()
	if opt.UDPSize() != 1232 || !opt.Do() || len(opt.Option) != 4 || opt.Option[1].String() != "10.1.240.0/20/18" {
		t.Errorf("OPT: %v", opt)
	}

	// What does not fit is left out whole, and a mark takes back what was added.
	b.Begin(out[:0], &q, 33+11+len(a))
	b.Reserve(Options{})
	mark := b.Mark()
	if !b.RRset(Answer, QuestionOwner, a, 2) || b.RRset(Answer, QuestionOwner, a[:16], 1) ||
		b.Addresses(QuestionOwner, false, 1, []netip.Addr{netip.MustParseAddr("10.0.0.1")}, 0) || b.Raw(Additional, a[:1], 1) || b.Text("") {
		t.Error("a record over the limit was added, or one within it was not")
	}
	b.Truncate()
	b.Rewind(mark)
	if got.Unpack(b.Finish(Reply{}, Options{}, 1232)) != nil || len(got.Answer) != 0 || got.Truncated {
		t.Errorf("rewound to:\n%v", got)
	}
}

// FuzzParse holds the parser against miekg/dns: both read the same of what both
// accept, and each refusal of ours has a reason that miekg/dns does not check.
func FuzzParse(f *testing.F) {
	for _, m := range []*dns.Msg{
		question("www.example.com.", 1), question(".", 2),
		withOPT(question("www.example.com.", 28), ecs(1, 24, 0, 192, 0, 2), &dns.EDNS0_NSID{Code: 3}),
		withOPT(question("*.example.com.", 255), ecs(2, 48, 0, 0x20, 1, 0xd, 0xb8, 0, 1)),
	} {
		f.Add(pack(f, m))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		var q Query
		rcode, ok := Parse(msg, &q)
		oracle := new(dns.Msg)
		err := oracle.Unpack(msg)
		if ok != (len(msg) >= 12 && msg[2]&0x80 == 0) {
			t.Fatalf("answered=%v for %x", ok, msg)
		}
		if !ok || q.Opcode != OpcodeQuery {
			return
		}
		if rcode == NoError && err != nil && !knownLeniency(msg) {
			t.Fatalf("accepted what miekg/dns refuses: %v: %x", err, msg)
		}
		if err != nil || len(oracle.Question) != 1 || len(q.Question) == 0 {
			return
		}
		want := oracle.Question[0]
		name, _, nameErr := dns.UnpackDomainName(q.Name.From(0), 0)
		if nameErr != nil || name != lowerText(want.Name) || q.Type != want.Qtype || q.Class != want.Qclass || q.ID != oracle.Id {
			t.Fatalf("read %q %d %d, miekg/dns %v", name, q.Type, q.Class, want)
		}
		if opt := oracle.IsEdns0(); rcode == NoError && (opt != nil) != q.EDNS {
			t.Fatalf("EDNS %v, miekg/dns %v", q.EDNS, opt)
		} else if rcode == NoError && opt != nil && (q.DO != opt.Do() || q.UDPSize != max(512, opt.UDPSize())) {
			t.Fatalf("DO %v size %d, miekg/dns %v", q.DO, q.UDPSize, opt)
		}
	})
}

// lowerText folds ASCII only: escapes in the text are digits.
func lowerText(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] = lower(b[i])
	}
	return string(b)
}

// knownLeniency: miekg/dns looks into the data of records, which a query
// carries for no purpose, and into options that we ignore.
func knownLeniency(msg []byte) bool {
	return msg[6]|msg[7]|msg[8]|msg[9]|msg[10]|msg[11] != 0
}
