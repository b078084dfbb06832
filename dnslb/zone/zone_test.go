package zone

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/pharos-lb/pharos/dnslb/wire"
)

// head makes a zone complete, in two lines.
const head = "@ 300 IN SOA ns h 1 2 3 4 60\n@ 300 IN NS ns.elsewhere.net.\n"

// The zone library takes a record without data at the very end of a text for a
// dynamic update, and would send it out as a message that nobody can read.
func TestIncompleteLastRecord(t *testing.T) {
	const head = "@ 300 IN SOA ns h 1 1 1 1 1\n@ 300 IN NS ns.other.test.\n"
	for _, rtype := range []string{"A", "AAAA", "MX", "CNAME", "TXT", "NS", "SRV", "CAA", "DS", "HTTPS"} {
		for _, end := range []string{"", " ", "\n", "\n\n", "\n; the end"} {
			_, err := Parse("t.test.", head+"mail 300 IN "+rtype+end, "zone")
			if err == nil || !strings.Contains(err.Error(), "zone:3: ") {
				t.Errorf("%s then %q: got %v, want an error at line 3", rtype, end, err)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	steer := func(names ...string) []Steered {
		var out []Steered
		for _, n := range names {
			out = append(out, Steered{FQDN: n, Service: "web", TTL: 30})
		}
		return out
	}
	tests := []struct {
		name, master string
		steered      []Steered
		want         []string // one for each line of the error
	}{
		{"fine", head + "www A 192.0.2.1\n", nil, nil},
		{
			"several at once", head + "a A 1.2.3\nb A 192.0.2.1\n  AAAA 192.0.2.1\nc BOGUS x\nd A 192.0.2.1\n", nil,
			[]string{"z:3: a A: \"1.2.3\" is not an IPv4 address", "z:5: b.example.com AAAA: \"192.0.2.1\" is not an IPv6 address", "z:6: unknown record type \"BOGUS\""},
		},
		{
			"mistakes in long records", head + "a TXT ( \"x\"\n\"y\" ) ; c\n\nb MX (\n 10\n)\nc A 192.0.2.300 ; (\nd A 192.0.2.1\n", nil,
			[]string{"z:6: record is incomplete", "z:9: c A: \"192.0.2.300\" is not an IPv4 address"},
		},
		{
			"owner goes on after a mistake", head + "a A nonsense\n  A 192.0.2.1\n$ORIGIN sub\nb A x\n  CNAME ok\n  TXT both\n", nil,
			[]string{"z:3: a A: \"nonsense\"", "z:6: b A: \"x\"", "z:7: b.sub.example.com. has a CNAME and other records"},
		},
		{"a record that would take its rest from the next", head + "a MX 10\nb\n  A 192.0.2.1\n", nil, []string{"z:3: record is incomplete", "z:4: "}},
		{"quote not closed", head + "a TXT \"x\nb A 192.0.2.1\n", nil, []string{"z:3: quote not closed, begun at line 3"}},
		{"include", head + "$INCLUDE /etc/passwd\n", nil, []string{"z:3: $INCLUDE is not allowed"}},
		{"generate too long", head + "$GENERATE 1-100000 h$ A 192.0.2.1\n", nil, []string{"z:3: bad range"}},
		{
			"quotes not closed", head + "a TXT \"x\nb A 192.0.2\nc TXT ( \"y\n \"z )\n  A 192.0.3\nd TXT \"z", nil,
			[]string{
				"z:3: quote not closed, begun at line 3", "z:4: b A: \"192.0.2\"", "z:5: quote not closed, begun at line 5",
				"z:6: quote not closed, begun at line 6", "z:7: c.example.com A: \"192.0.3\"", "z:8: quote not closed, begun at line 8",
			},
		},
		{"quote not closed after another mistake", head + "a A x \"\nb A y\n", nil, []string{"z:3: quote not closed", "z:4: b A"}},
		{"quotes that would close each other", head + "a TXT \"x\nb A 192.0.2.1\nc TXT y\"\n", nil, []string{"z:3: quote not closed", "z:5: quote not closed"}},
		{"parenthesis not closed", head + "a TXT x\nb MX (\n 10 mail\nc A 192.0.2.1\n", nil, []string{"z:4: parenthesis not closed, opened at line 4"}},
		{"parenthesis not closed at the end", head + "a A (192.0.2.1", nil, []string{"z:3: parenthesis not closed, opened at line 3"}},
		{"parenthesis not opened", head + "a A 192.0.2.1 )\nb A x\n", nil, []string{"z:3: parenthesis closed that was not opened", "z:4: b A"}},
		{
			"unknown types", head + "a BOGUS x\na 60 BOGUS x\na IN BOGUS x\na 60 IN BOGUS x\na TYPEX x\n", nil,
			[]string{
				"z:3: unknown record type \"BOGUS\"", "z:4: unknown record type \"BOGUS\"", "z:5: unknown record type \"BOGUS\"",
				"z:6: unknown record type \"BOGUS\"", "z:7: unknown record type \"TYPEX\"",
			},
		},
		{
			"long words", head + strings.Repeat("a", 2000) + " A 192.0.2.1\nb " + strings.Repeat("t", 2000) + "\n$" + strings.Repeat("D", 2000) + " x\n", nil,
			[]string{`z:3: "` + strings.Repeat("a", 80) + `…" is not a domain name`, `z:4: unknown record type "` + strings.Repeat("t", 80) + `…"`, `z:5: unknown directive "$` + strings.Repeat("D", 79) + `…"`},
		},
		{"TTL", head + "a 1x A 192.0.2.1\n$TTL soon\n", nil, []string{"z:3: \"1x\" is not a TTL", "z:4: $TTL: \"soon\" is not a TTL"}},
		{
			"directives", head + "$FOO\n$BAR A 192.0.2.1\n $TTL 60\n$ORIGIN a..b\na A x\n$TTL\n", nil,
			[]string{"z:3: unknown directive \"$FOO\"", "z:4: unknown directive \"$BAR\"", "z:5: directive \"$TTL\" has to stand at the beginning", "z:6: \"a..b\" is not a domain name", "z:7: a A", "z:8: $TTL: its value is missing"},
		},
		{"a directive where the rest of a record should be", head + "a MX 10\n$FOO\nb MX 10\n$TTL 60\n", nil, []string{"z:3: record is incomplete", "z:4: unknown directive", "z:5: record is incomplete"}},
		{
			"data", head + "a A\na\na MX x y\na MX 10 a..b\na CNAME b c\n", nil,
			[]string{"z:3: ", "z:4: ", "z:5: a MX: \"x\" cannot be its pref", "z:6: a MX: \"a..b\" is not a domain name", "z:7: unexpected \"c\" after the end of the record"},
		},
		{"generated data", head + "$GENERATE 1-300 h$ A 192.0.2.$\nb A x\n", nil, []string{"z:3: $GENERATE A: \"192.0.2.256\" is not an IPv4 address", "z:4: b A"}},
		{"byte order mark", "\ufeff" + head + "a A x\n", nil, []string{"z:3: a A"}},
		{"byte order mark, fine", "\ufeff" + head, nil, nil},
		{"outside", head + "www.example.org. A 192.0.2.1\n", nil, []string{"z:3: www.example.org. is outside of the zone example.com."}},
		{"two SOA", head + "@ SOA ns h 2 2 3 4 60\n", nil, []string{"z:1: 2 SOA records"}},
		{"SOA elsewhere", head + "sub SOA ns h 2 2 3 4 60\n", nil, []string{"z:3: SOA record at sub.example.com.: it belongs at example.com."}},
		{"CNAME and other data", head + "a A 192.0.2.1\na CNAME b\n", nil, []string{"z:4: a.example.com. has a CNAME and other records"}},
		{"two CNAME", head + "a CNAME b\na CNAME c\n", nil, []string{"z:3: a.example.com. has 2 CNAME records"}},
		{"two DNAME", head + "a DNAME b\na DNAME c\n", nil, []string{"z:3: a.example.com. has 2 DNAME records"}},
		{"CNAME at the apex", head + "@ CNAME b\n", nil, []string{"z:3: example.com. has a CNAME and other records"}},
		{"NS at a wildcard", head + "* NS ns.elsewhere.net.\n", nil, []string{"z:3: NS records at the wildcard"}},
		{"DNAME at a wildcard", head + "* DNAME x.\n", nil, []string{"z:3: DNAME record at the wildcard"}},
		{"class CH", head + "a CH A 192.0.2.1\n", nil, []string{"z:3: "}},
		{"query type", head + "a TYPE255 \\# 1 00\n", nil, []string{"z:3: "}},
		{"steered and A", head + "www A 192.0.2.1\n", steer("www.example.com."), []string{"z:3: www.example.com. is steered (service web) and has A records here"}},
		{"steered and CNAME", head + "www CNAME x\n", steer("www.example.com."), []string{"z:3: www.example.com. is steered (service web) and has CNAME"}},
		{"steered and TXT", head + "www TXT x\n", steer("www.example.com.", "example.com."), nil},
		{"steered twice", head, steer("www.example.com.", "WWW.example.com."), []string{"z: steered name WWW.example.com. is given twice"}},
		{"steered elsewhere", head, steer("www.example.org."), []string{"z: steered name \"www.example.org.\" is not a name in the zone"}},
		{"steered below a cut", head + "sub NS ns.elsewhere.net.\n", steer("www.sub.example.com."), []string{"z: steered name www.sub.example.com. can never be answered"}},
		{"steered at a cut", head + "sub NS ns.elsewhere.net.\n", steer("sub.example.com."), []string{"z:3: sub.example.com. is steered, but delegated"}},
		{"record set over 64 KB", head + "$GENERATE 1-65000 @ TXT \"" + strings.Repeat("x", 200) + "$\"\n", nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Compile([]Spec{{Name: "example.com", Master: tt.master, MasterFile: "z", Steered: tt.steered}})
			if tt.name == "record set over 64 KB" {
				if err == nil || !strings.Contains(err.Error(), "does not fit in a DNS message") || strings.Count(err.Error(), "\n") > maxErrors+1 {
					t.Errorf("got %v", err)
				}
				return
			}
			var got []string
			if err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if len(got) != len(tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], tt.want[i]) {
					t.Errorf("got %q, want %q", got[i], tt.want[i])
				}
			}
		})
	}
}

// TestGenerateBound: what all $GENERATE lines make is bounded before any of it is
// made, over all zones.
func TestGenerateBound(t *testing.T) {
	// Each line is charged before its first record, which ends it.
	failing := strings.Repeat("$GENERATE 0-65535 h$ A x\n", 8)
	_, err := Compile([]Spec{
		{Name: "a.example.", Master: head + failing, MasterFile: "a"},
		{Name: "b.example.", Master: head + failing, MasterFile: "b"},
	})
	if err == nil {
		t.Fatal("no error")
	}
	got := strings.Split(err.Error(), "\n")
	want := "b:10: $GENERATE makes 65536 records: the limit for all such lines of all zones is 1000000, and 16960 are left"
	if len(got) != 16 || got[15] != want || !strings.Contains(got[14], "not an IPv4 address") {
		t.Errorf("got %q, want %q in the end", got, want)
	}
	wide := head + "$GENERATE 0-65535 h$ TXT " + strings.Repeat("${0,255,d} ", 20) + "\n"
	if _, err := Parse("example.com.", wide, "z"); err == nil || !strings.HasPrefix(err.Error(), "z:3: $GENERATE makes ") || !strings.Contains(err.Error(), "MiB of text") {
		t.Errorf("wide numbers: got %v", err)
	}
	// The same again counts, steps do not; what is refused costs nothing.
	left := &budget{records: 100, octets: 1 << 20}
	spec := &Spec{Name: "example.com.", Master: head + "$GENERATE 1-50 h A 10.0.0.1\n$GENERATE 1-51 x$ A 10.0.0.1\n$GENERATE 1-99/2 y$ A 10.0.0.1\n"}
	rep := newReport(spec)
	if d := newDraft(spec, rep, left); len(rep.errors) != 1 || rep.errors[0].Line != 4 || d.records != 2+1+50 || left.records != 0 {
		t.Errorf("%d records, errors %v, %d left", d.records, rep.err(), left.records)
	}
}

func TestWarnings(t *testing.T) {
	tests := []struct{ name, master, want string }{
		{"no SOA", "@ NS ns.elsewhere.net.\n", "no SOA record at example.com.: made up mname ns.elsewhere.net., serial"},
		{"no NS", "@ SOA ns h 1 2 3 4 60\n", "no NS records at example.com."},
		{"same twice", head + "a A 192.0.2.1\na A 192.0.2.1\n", "z:4: a.example.com. A: the same record twice"},
		{"TTLs differ", head + "a 60 A 192.0.2.1\na 30 A 192.0.2.2\n", "z:4: a.example.com. A: TTLs differ within the set; 30 counts for all"},
		{"occluded", head + "sub NS ns.elsewhere.net.\nx.sub TXT x\n", "z:4: x.sub.example.com. TXT is never answered: sub.example.com. is delegated"},
		{"beside a cut", head + "sub NS ns.elsewhere.net.\nsub MX 10 x\n", "z:4: sub.example.com. MX is never answered"},
		{"below a DNAME", head + "old DNAME new\nx.old TXT x\n", "z:4: x.old.example.com. TXT is never answered"},
		{"glue missing", head + "sub NS ns.sub\n", "z:3: glue missing: sub.example.com. is served by ns.sub.example.com."},
		{"NS without address", head + "@ NS ns\n", "name server ns.example.com. of example.com. has no address"},
		{"long string", head + "a TXT ( \"" + strings.Repeat("x", 255) + "\" ; \"\n \"" + strings.Repeat("y\\089", 150) + "\" )\n", "z:3: a TXT: a string of 300 octets is served in pieces of 255"},
		{"alias to itself", head + "a CNAME A\n", "z:3: CNAME loop, which never gets to an address: a.example.com. → a.example.com."},
		{"loop", head + "t CNAME a\na CNAME b\nb CNAME a\n", "z:4: CNAME loop, which never gets to an address: a.example.com. → b.example.com. → a.example.com."},
		{"long loop", head + "$GENERATE 1-9 h$ CNAME h${1}\nh10 CNAME h1\n", "h1.example.com. → h2.example.com. → h3.example.com. → h4.example.com. → h5.example.com. → …"},
		{"wildcard to a name that is not there", head + "* CNAME www\n", "z:3: CNAME loop, which never gets to an address: *.example.com. → www.example.com."},
		{"NS is an alias", head + "@ 300 NS ns\nns CNAME x\n", "name server ns.example.com. of example.com. is an alias"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set, err := Parse("example.com.", tt.master, "z")
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(set.Warnings(), "\n"); !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if set, err := Parse("example.com.", head+"t TXT \""+strings.Repeat("x", 255)+"\" \""+strings.Repeat("\\120", 255)+"\"\na CNAME b\nb CNAME c\nc A 192.0.2.1\n* CNAME a\nd CNAME x.net.\n", "z"); err != nil || len(set.Warnings()) != 0 {
		t.Errorf("a good zone: %v, warnings %q", err, set.Warnings())
	}
}

// find looks a name in text up.
func find(t interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}, s *Set, name, rtype string,
) (Match, *RRset) {
	t.Helper()
	buf := make([]byte, 300)
	if _, err := dns.PackDomainName(name, buf, 0, nil, false); err != nil {
		t.Fatal(err)
	}
	var n wire.Name
	if _, ok := n.Set(buf); !ok {
		t.Fatalf("name %q", name)
	}
	m := s.Find(&n, dns.StringToType[rtype])
	if !m.Node.There() {
		return m, nil
	}
	set := m.Node.RRset(dns.StringToType[rtype])
	if set.Count == 0 {
		return m, nil
	}
	return m, &set
}

func setsOf(n *Node) (sets []RRset) {
	at, count := n.sets()
	for range count {
		var set RRset
		set, at = n.set(at)
		sets = append(sets, set)
	}
	return sets
}

// TestMadeUpSOA: an empty zone with a steered name answers, and every node
// makes up the same SOA.
func TestMadeUpSOA(t *testing.T) {
	specs := func() []Spec {
		return []Spec{{Name: "Example.COM", Steered: []Steered{{FQDN: "www.example.com.", Service: "web"}}}}
	}
	a, err := Compile(specs())
	if err != nil {
		t.Fatal(err)
	}
	b, err := Compile(specs())
	if err != nil {
		t.Fatal(err)
	}
	if _, set := find(t, a, "example.com.", "SOA"); set == nil || a.Zones()[0].Serial == 0 || a.Zones()[0].Serial != b.Zones()[0].Serial {
		t.Errorf("SOA %v, serials %d and %d", set, a.Zones()[0].Serial, b.Zones()[0].Serial)
	}
	if m, _ := find(t, a, "WWW.example.com.", "A"); m.Kind != Exact || m.Node.Steered == nil || a.Steered() != 1 {
		t.Errorf("steered name: %+v", m)
	}
}

// TestParentAndChild: both sides of a cut in one Set.
func TestParentAndChild(t *testing.T) {
	parent := head + "child 60 NS ns.child\nchild DS 1 13 2 00\nns.child A 192.0.2.1\nx.child TXT parent\nimplied.deep.a TXT x\n"
	child := head + "x TXT child\n"
	specs := []Spec{
		{Name: "example.com.", Master: parent, MasterFile: "p"},
		{Name: "child.example.com.", Master: child, MasterFile: "c"},
		{Name: "b.implied.example.com.", Master: child, MasterFile: "d"},
	}
	for range 2 {
		set, err := Compile(specs)
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name, rtype, zone string
			kind              Kind
			there             bool
		}{
			{"child.example.com.", "NS", "child.example.com.", Exact, true},
			{"child.example.com.", "DS", "example.com.", Exact, true},
			{"x.child.example.com.", "TXT", "child.example.com.", Exact, true},
			{"y.child.example.com.", "TXT", "child.example.com.", Missing, false},
			{"b.implied.example.com.", "SOA", "b.implied.example.com.", Exact, true},
			{"b.implied.example.com.", "DS", "example.com.", Exact, false},
			{"implied.example.com.", "A", "example.com.", Exact, false},
			{"example.com.", "DS", "example.com.", Exact, false},
		} {
			m, rrset := find(t, set, tt.name, tt.rtype)
			if m.Kind != tt.kind || m.Node.Zone.Name != tt.zone || (rrset != nil) != tt.there {
				t.Errorf("%s %s: got kind %d in %s, records %v; want %+v", tt.name, tt.rtype, m.Kind, m.Node.Zone.Name, rrset != nil, tt)
			}
		}
		specs[0], specs[2] = specs[2], specs[0]
	}
	if _, err := Compile(append(specs, Spec{Name: "EXAMPLE.com"})); err == nil || !strings.Contains(err.Error(), "defined twice") {
		t.Errorf("the same zone twice: %v", err)
	}
}

// TestRecords: what is compiled is what miekg/dns packs, generic types included.
func TestRecords(t *testing.T) {
	set, err := Parse("example.com.", head+`a 60 TYPE65280 \# 3 010203
b 60 HTTPS 1 . alpn=h2
c 60 CAA 0 issue "x"
$GENERATE 1-3 h$ 60 A 192.0.2.$
* 60 TXT any`, "z")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"a.example.com. TYPE65280": "a.example.com.\t60\tCLASS1\tTYPE65280\t\\# 3 010203",
		"b.example.com. HTTPS":     `b.example.com.	60	IN	HTTPS	1 . alpn="h2"`,
		"c.example.com. CAA":       `c.example.com.	60	IN	CAA	0 issue "x"`,
		"h2.example.com. A":        `h2.example.com.	60	IN	A	192.0.2.2`,
		"q.w.example.com. TXT":     `q.w.example.com.	60	IN	TXT	"any"`,
	} {
		qname, rtype, _ := strings.Cut(name, " ")
		m, _ := find(t, set, qname, "A")
		number := dns.StringToType[rtype]
		if rtype == "TYPE65280" {
			number = 65280
		}
		rrset := m.Node.RRset(number)
		if rrset.Count == 0 {
			t.Errorf("%s: nothing", name)
			continue
		}
		packed := make([]byte, 300)
		n, _ := dns.PackDomainName(qname, packed, 0, nil, false)
		rr, _, err := dns.UnpackRR(append(packed[:n:n], rrset.Records[2:]...), 0)
		if err != nil || rr.String() != want {
			t.Errorf("%s: got %v %v, want %s", name, rr, err, want)
		}
	}
}

// TestNegativeTTL: the lesser of the SOA's TTL and its minimum (RFC 2308).
func TestNegativeTTL(t *testing.T) {
	for _, tt := range []struct{ ttl, minimum, want uint32 }{{300, 60, 60}, {30, 60, 30}, {0, 60, 0}} {
		set, err := Parse("example.com.", fmt.Sprintf("@ %d SOA ns h 1 2 3 4 %d\n", tt.ttl, tt.minimum), "z")
		if err != nil {
			t.Fatal(err)
		}
		if got := set.Zones()[0].Negative.TTL(); got != tt.want {
			t.Errorf("TTL %d, minimum %d: got %d, want %d", tt.ttl, tt.minimum, got, tt.want)
		}
		if _, soa := find(t, set, "example.com.", "SOA"); soa.TTL() != tt.ttl {
			t.Errorf("the SOA itself has TTL %d, want %d", soa.TTL(), tt.ttl)
		}
	}
}

// TestEmpty: no zones know no name, and a Set need not be compiled.
func TestEmpty(t *testing.T) {
	compiled, err := Compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []*Set{compiled, new(Set)} {
		if m, _ := find(t, set, "www.example.com.", "A"); m.Kind != NotOurs || m.Node.There() {
			t.Errorf("got %+v", m)
		}
	}
}

// FuzzCompile: no text panics; what compiles has one SOA at the apex and
// exactly the records that miekg/dns reads, as far as they are answered.
func FuzzCompile(f *testing.F) {
	f.Add(head + "www A 192.0.2.1\n  TXT ( \"a;b\"\n c ) ; x\n")
	f.Add("$ORIGIN sub\n$TTL 1h\n* MX 1 @\n$GENERATE 1-2 a$ A 192.0.2.$\n")
	f.Add("a A x\n b\n\"\n(\n$TTL x\n@ DNAME a\n\\; NS .\n")
	f.Fuzz(func(t *testing.T, master string) {
		set, err := Parse("example.com.", master, "z")
		if err != nil {
			for _, line := range strings.Split(err.Error(), "\n") {
				if !strings.HasPrefix(line, "z:") {
					t.Fatalf("no position in %q", line)
				}
			}
			return
		}
		m, soa := find(t, set, "example.com.", "SOA")
		if m.Kind != Exact || soa == nil || soa.Count != 1 {
			t.Fatalf("SOA %+v of %q", soa, master)
		}
		distinct := make(map[string]bool)
		parser := dns.NewZoneParser(strings.NewReader(strings.TrimPrefix(master, "\ufeff")), "example.com.", "")
		parser.SetDefaultTTL(defaultTTL)
		for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
			h := rr.Header()
			h.Name, h.Ttl = strings.ToLower(h.Name), 0
			buf := make([]byte, 70000)
			n, err := dns.PackRR(rr, buf, 0, nil, false)
			if err != nil {
				t.Fatal(err)
			}
			distinct[string(buf[:n])] = true
		}
		extra := 0
		for _, w := range set.Warnings() {
			if strings.Contains(w, "no SOA record") {
				extra = 1
			}
		}
		if parser.Err() == nil && set.Zones()[0].Records != len(distinct)+extra {
			t.Fatalf("%d records, miekg/dns reads %d: %q", set.Zones()[0].Records, len(distinct)+extra, master)
		}
	})
}

func BenchmarkCompile(b *testing.B) {
	var text strings.Builder
	text.WriteString(head)
	for i := range 100_000 {
		fmt.Fprintf(&text, "host-%d 300 IN A 192.0.%d.%d\n", i, i>>8&255, i&255)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("example.com.", text.String(), "z"); err != nil {
			b.Fatal(err)
		}
	}
}

// TestBadSignatures: a signature of nothing, or one that is none, is an error.
func TestBadSignatures(t *testing.T) {
	good := []byte{0, 46, 0, 1, 0, 0, 0, 9, 0, 2, 1, 2}
	for name, s := range map[string]Signature{
		"no such name":     {Name: "x.example.com.", Type: 1, Records: [][]byte{good}},
		"no such set":      {Name: "www.example.com.", Type: 28, Records: [][]byte{good}},
		"not steered":      {Name: "www.example.com.", Type: 1, Variant: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Records: [][]byte{good}},
		"no records":       {Name: "www.example.com.", Type: 1},
		"another type":     {Name: "www.example.com.", Type: 1, Records: [][]byte{{0, 1, 0, 1, 0, 0, 0, 9, 0, 2, 1, 2}}},
		"cut":              {Name: "www.example.com.", Type: 1, Records: [][]byte{good[:len(good)-1]}},
		"more than it has": {Name: "www.example.com.", Type: 1, Records: [][]byte{append(good[:len(good):len(good)], 0)}},
	} {
		spec := Spec{Name: "example.com.", Master: "www 60 A 192.0.2.1\n", Signatures: []Signature{s}}
		if _, err := Compile([]Spec{spec}); err == nil || !strings.Contains(err.Error(), "signature of") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestPrefetch: what is said ahead of a name that is there is right; an empty set is no trouble.
func TestPrefetch(t *testing.T) {
	set, err := Compile([]Spec{{Name: "example.com.", Master: head + "mail A 192.0.2.1\n", MasterFile: "z", Steered: []Steered{
		{FQDN: "www.example.com.", Service: "web", TTL: 30}, {FQDN: "ftp.example.com.", Service: "web", TTL: 30},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	empty, err := Compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, there := range map[string]bool{"mail.example.com.": true, "www.example.com.": true, "ftp.example.com.": true, "example.com.": true, "a.b.c.d.nowhere.": false} {
		packed := make([]byte, 64)
		n, err := dns.PackDomainName(name, packed, 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		var folded wire.Folded
		folded.Set(packed[:n], 0)
		var hit Hit
		set.Express(&folded, wire.TypeA, &hit)
		want := uint32(0)
		if there && hit.Steered >= 0 {
			want = uint32(hit.Steered) + 1
		}
		got := []uint32{set.Hash(&folded)}
		set.Prefetch(got)
		if there && got[0] != want {
			t.Errorf("%s: %d, want %d", name, got[0], want)
		}
		for _, none := range []*Set{empty, new(Set)} {
			got[0] = none.Hash(&folded)
			if none.Prefetch(got); got[0] != 0 {
				t.Errorf("%s in nothing: %d", name, got[0])
			}
		}
	}
}
