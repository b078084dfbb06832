package dnslb

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/pharos-lb/pharos/dnslb/wire"
)

// A detachedResponder answers without sockets.
type detachedResponder struct {
	*responder
	out []byte
}

func detached(t testing.TB, tunables Tunables) *detachedResponder {
	t.Helper()
	tunables, err := tunables.complete()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{board: newBoard(t), metrics: newMetrics()}
	s.tunables.Store(&tunables)
	s.zones.Store(serve(newSet(t), s.board))
	return &detachedResponder{newResponder(s, s.metrics.socket(nil)), make([]byte, 0, 4096)}
}

var client = netip.MustParseAddrPort("127.0.0.1:5353")

func (d *detachedResponder) respond(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return d.Respond(d.out[:0], msg, client, false)
}

// commonQueries are the ones that must cost no allocation and that the
// benchmark times.
func commonQueries(t testing.TB) map[string][]byte {
	edns := func(m *dns.Msg) *dns.Msg { m.SetEdns0(1232, true); return m }
	queries := make(map[string][]byte)
	for name, m := range map[string]*dns.Msg{
		"static":         query("mail.example.com.", "A"),
		"static edns":    edns(query("mail.example.com.", "A")),
		"mx":             query("example.com.", "MX"),
		"wildcard":       query("x.y.wild.example.com.", "TXT"),
		"alias":          query("alias.example.com.", "A"),
		"nodata":         query("mail.example.com.", "SRV"),
		"nxdomain":       query("x.y.example.com.", "A"),
		"referral":       query("www.child.example.com.", "A"),
		"dname":          query("a.old.example.com.", "A"),
		"refused":        query("elsewhere.net.", "A"),
		"steered":        query("www.example.com.", "A"),
		"steered ecs":    withSubnet(query("www.example.com.", "A"), "46.4.0.0/24"),
		"steered v6 ecs": withSubnet(query("www.example.com.", "AAAA"), "2a01:4f8::/48"),
		"anycast":        query("any.example.com.", "A"),
	} {
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		queries[name] = b
	}
	return queries
}

// TestAllocations: answering allocates nothing. (What is allowed: the binding
// table of steered names when zones grow, once per socket.)
func TestAllocations(t *testing.T) {
	s := detached(t, Tunables{ECS: true})
	for name, msg := range commonQueries(t) {
		if n := testing.AllocsPerRun(100, func() { s.Respond(s.out[:0], msg, client, false) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

// BenchmarkServe is parse, look-up and assembly without sockets.
func BenchmarkServe(b *testing.B) {
	s := detached(b, Tunables{ECS: true})
	for name, msg := range commonQueries(b) {
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Respond(s.out[:0], msg, client, false)
			}
		})
	}
}

func TestDropped(t *testing.T) {
	s := detached(t, Tunables{})
	msg, _ := query("mail.example.com.", "A").Pack()
	reply := s.Respond(nil, msg, client, false)
	for name, tt := range map[string]struct {
		msg    []byte
		client netip.AddrPort
		reason int
	}{
		"a response":  {reply, client, dropMalformed},
		"a fragment":  {msg[:11], client, dropMalformed},
		"from port 0": {msg, netip.AddrPortFrom(client.Addr(), 0), dropPort},
	} {
		before := s.count.dropped[tt.reason].Load()
		if out := s.Respond(nil, tt.msg, tt.client, false); len(out) != 0 || s.count.dropped[tt.reason].Load() != before+1 {
			t.Errorf("%s: answered %x, or not counted", name, out)
		}
	}
}

// TestSigned: nobody shares a key with us, so a signed query is told so.
func TestSigned(t *testing.T) {
	s := detached(t, Tunables{})
	m := query("mail.example.com.", "A")
	m.Extra = []dns.RR{&dns.TSIG{Hdr: dns.RR_Header{Name: "key.", Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: dns.HmacSHA256}}
	got := new(dns.Msg)
	if err := got.Unpack(s.respond(t, m)); err != nil || got.Rcode != dns.RcodeNotAuth || len(got.Answer) != 0 {
		t.Errorf("want NOTAUTH, got %v\n%v", err, got)
	}
	// It is told which key, in an unsigned TSIG record behind OPT (RFC 8945 5.2.1).
	key := "Key.example.net."
	for _, edns := range []bool{false, true} {
		m := query("mail.example.com.", "A")
		if edns {
			m.SetEdns0(1232, false)
		}
		m.Extra = append(m.Extra, &dns.TSIG{
			Hdr: dns.RR_Header{Name: key, Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: dns.HmacSHA256,
			TimeSigned: 1795000000, Fudge: 300, MACSize: 4, MAC: "01020304", OrigId: m.Id,
		})
		got := new(dns.Msg)
		if err := got.Unpack(s.respond(t, m)); err != nil {
			t.Fatal(err)
		}
		sig := got.IsTsig() // nil unless last
		if sig == nil || sig.Hdr.Name != key || sig.Hdr.Class != dns.ClassANY || sig.Hdr.Ttl != 0 || sig.Algorithm != dns.HmacSHA256 || sig.MACSize != 0 ||
			sig.Error != dns.RcodeBadKey || sig.TimeSigned != 1795000000 || sig.Fudge != 300 || sig.OrigId != m.Id || (got.IsEdns0() != nil) != edns {
			t.Errorf("EDNS %v: want TSIG with BADKEY, got\n%v", edns, got)
		}
	}
	// One that cannot be read, or does not fit, is left out.
	long := strings.Repeat(strings.Repeat("k", 60)+".", 4)
	for _, algorithm := range []string{".", long} {
		m := query(strings.Repeat("m", 60)+".example.com.", "A")
		m.Extra = []dns.RR{&dns.RFC3597{Hdr: dns.RR_Header{Name: long, Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Rdata: "00"}}
		if algorithm == long {
			m.Extra = []dns.RR{&dns.TSIG{Hdr: dns.RR_Header{Name: long, Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: long}}
		}
		got, out := new(dns.Msg), s.respond(t, m)
		if err := got.Unpack(out); err != nil || got.Rcode != dns.RcodeNotAuth || len(got.Extra) != 0 || len(out) > 512 {
			t.Errorf("algorithm %s: %d octets, %v\n%v", algorithm, len(out), err, got)
		}
	}
}

// TestPanicCostsOneQuery: a bug in answering drops the query and no more.
func TestPanicCostsOneQuery(t *testing.T) {
	s := detached(t, Tunables{})
	logged := newLog()
	s.server.log = logged.logger
	zones := s.server.zones.Load()
	msg, _ := query("mail.example.com.", "A").Pack()
	s.server.zones.Store(nil)
	for range 2 {
		if out := s.Respond(nil, msg, client, false); len(out) != 0 {
			t.Errorf("answered %x", out)
		}
	}
	if s.count.dropped[dropPanic].Load() != 2 || strings.Count(logged.String(), "internal error") != 1 {
		t.Errorf("want 2 counted and 1 logged: %s", logged)
	}
	s.server.zones.Store(zones)
	if out := s.Respond(nil, msg, client, false); len(out) == 0 {
		t.Error("no answer after a panic")
	}
}

// TestTruncation: what does not fit sets TC, and no record set comes in part.
func TestTruncation(t *testing.T) {
	s := detached(t, Tunables{ECS: true})
	sized := func(m *dns.Msg, size uint16) *dns.Msg { m.SetEdns0(size, false); return m }
	tests := []struct {
		name           string
		query          *dns.Msg
		limit, answers int
		truncated      bool
	}{
		{"no EDNS", query("big.example.com.", "TXT"), 512, 0, true},
		{"EDNS 512", sized(query("big.example.com.", "TXT"), 512), 512, 0, true},
		{"EDNS under 512 counts as 512", sized(query("mail.example.com.", "A"), 100), 512, 1, false},
		{"EDNS 1232", sized(query("big.example.com.", "TXT"), 1232), 1232, 3, false},
		{"EDNS 65535 is cut to ours", sized(query("big.example.com.", "TXT"), 65535), 1232, 3, false},
		{"the alias still fits", query("tobig.example.com.", "TXT"), 512, 1, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reply := s.respond(t, tt.query)
			got := new(dns.Msg)
			if err := got.Unpack(reply); err != nil {
				t.Fatal(err)
			}
			if len(reply) > tt.limit || got.Truncated != tt.truncated || len(got.Answer) != tt.answers {
				t.Errorf("%d octets, TC %v, %d answers; want at most %d, %v, %d", len(reply), got.Truncated, len(got.Answer), tt.limit, tt.truncated, tt.answers)
			}
		})
	}
}

// FuzzRespond: any message gets a response that miekg/dns can read, with the ID
// and the question of the query, within its size; or none when it deserves none.
func FuzzRespond(f *testing.F) {
	for _, msg := range commonQueries(f) {
		f.Add(msg, false)
		f.Add(msg, true)
	}
	s := detached(f, Tunables{ECS: true, ServerID: "fuzz", Version: "1"})
	s.express.off = true // FuzzLanes compares the two
	f.Fuzz(func(t *testing.T, msg []byte, tcp bool) {
		out := s.Respond(s.out[:0], msg, client, tcp)
		if s.count.dropped[dropPanic].Load() > 0 {
			t.Fatalf("panic on %x", msg)
		}
		if deserves := len(msg) >= 12 && msg[2]&0x80 == 0; deserves != (len(out) > 0) {
			t.Fatalf("answered %v: %x", len(out) > 0, msg)
		}
		if len(out) == 0 {
			return
		}
		got := new(dns.Msg)
		if err := got.Unpack(out); err != nil {
			t.Fatalf("response cannot be read: %v: %x to %x", err, out, msg)
		}
		if string(out[:2]) != string(msg[:2]) || out[2]&0x80 == 0 || out[3]&0xf0 != 0 {
			t.Fatalf("header %x to %x", out[:12], msg)
		}
		if !tcp && len(out) > 1232 {
			t.Fatalf("%d octets over UDP", len(out))
		}
		if n := len(got.Question); n > 0 && string(out[12:12+len(s.q.Question)]) != string(s.q.Question) || n == 0 && got.Rcode == 0 {
			t.Fatalf("question %v to %x", got.Question, msg)
		}
		if got.Rcode == dns.RcodeServerFailure && s.q.Name.Labels() != 3 {
			t.Fatalf("SERVFAIL to %x", msg)
		}
		var q wire.Query
		if rcode, _ := wire.Parse(msg, &q); rcode != wire.NoError && got.Rcode != int(rcode) {
			t.Fatalf("rcode %d, parser said %v", got.Rcode, rcode)
		}
	})
}
