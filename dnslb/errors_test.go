package dnslb

import (
	"testing"

	"github.com/miekg/dns"
)

// TestErrorsCarryOPT: a query with an OPT record gets one back, also with an
// error (RFC 6891 6.1.1), as long as its records can be read.
func TestErrorsCarryOPT(t *testing.T) {
	s := detached(t, Tunables{ECS: true})
	edns := func(change func(*dns.Msg)) *dns.Msg {
		m := withSubnet(query("mail.example.com.", "A"), "192.0.2.0/24")
		change(m)
		return m
	}
	for _, tt := range []struct {
		name  string
		query *dns.Msg
		cut   int // octets taken off the end
		rcode int
		opt   bool
	}{
		{"unknown opcode", edns(func(m *dns.Msg) { m.Opcode = 3 }), 0, dns.RcodeNotImplemented, true},
		{"unknown opcode, EDNS version 1", edns(func(m *dns.Msg) { m.Opcode = 3; m.IsEdns0().SetVersion(1) }), 0, dns.RcodeNotImplemented, true},
		{"unknown opcode, no EDNS", &dns.Msg{MsgHdr: dns.MsgHdr{Opcode: 3}}, 0, dns.RcodeNotImplemented, false},
		{"unknown opcode, record cut off", edns(func(m *dns.Msg) { m.Opcode = 3 }), 1, dns.RcodeNotImplemented, false},
		{"unknown opcode, two OPT", edns(func(m *dns.Msg) { m.Opcode = 3; m.Extra = append(m.Extra, m.Extra[0]) }), 0, dns.RcodeNotImplemented, false},
		{"notify", edns(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), 0, dns.RcodeRefused, true},
		{"update", edns(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), 0, dns.RcodeRefused, true},
		{"no question", edns(func(m *dns.Msg) { m.Question = nil }), 0, dns.RcodeFormatError, true},
		{"two questions", edns(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), 0, dns.RcodeFormatError, true},
		{"two questions, record cut off", edns(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), 1, dns.RcodeFormatError, false},
		{"no question, no EDNS", &dns.Msg{}, 0, dns.RcodeFormatError, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			msg, err := tt.query.Pack()
			if err != nil {
				t.Fatal(err)
			}
			got := new(dns.Msg)
			if err := got.Unpack(s.Respond(nil, msg[:len(msg)-tt.cut], client, false)); err != nil {
				t.Fatal(err)
			}
			opt := got.IsEdns0()
			if got.Rcode != tt.rcode || (opt != nil) != tt.opt || opt != nil && (opt.Version() != 0 || subnetOf(got) != nil) {
				t.Errorf("want %s, OPT %v; got\n%v", dns.RcodeToString[tt.rcode], tt.opt, got)
			}
		})
	}
}

// TestKeepaliveWithTime: over UDP the option means nothing, whatever is in it;
// over TCP only servers may give a time (RFC 7828 3.2.1).
func TestKeepaliveWithTime(t *testing.T) {
	s := detached(t, Tunables{})
	for _, data := range [][]byte{nil, {0, 1}, {1, 2, 3}} {
		m := query("mail.example.com.", "A")
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 11, Data: data}}
		msg, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		for _, tcp := range []bool{false, true} {
			got := new(dns.Msg)
			if err := got.Unpack(s.Respond(nil, msg, client, tcp)); err != nil {
				t.Fatal(err)
			}
			want, options := dns.RcodeSuccess, 0
			if tcp {
				options = 1
				if len(data) > 0 {
					want = dns.RcodeFormatError
				}
			}
			if got.Rcode != want || len(got.IsEdns0().Option) != options {
				t.Errorf("option %x, TCP %v: want %s and %d options, got\n%v", data, tcp, dns.RcodeToString[want], options, got)
			}
		}
	}
}
