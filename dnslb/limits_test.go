package dnslb

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/pharos-lb/pharos/dnslb/zone"
)

// answerFrom asks a zone of its own over UDP without sockets.
func answerFrom(t *testing.T, master string, q *dns.Msg) *dns.Msg {
	t.Helper()
	set, err := zone.Parse("example.com.", master, "z")
	if err != nil {
		t.Fatal(err)
	}
	s := detached(t, Tunables{})
	s.server.zones.Store(set)
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
	for name, master := range map[string]string{"loop": "c0 CNAME c1\nc1 CNAME c0\n", "self": "c0 CNAME c0\n", "long": long.String()} {
		got := answerFrom(t, master, query("c0.example.com.", "A"))
		if got.Rcode != 0 || len(got.Answer) != maxChain || !got.Authoritative {
			t.Errorf("%s: %d aliases, want %d:\n%v", name, len(got.Answer), maxChain, got)
		}
	}
}

// TestDeepName: a name of 127 labels is answered like any other.
func TestDeepName(t *testing.T) {
	deep := strings.Repeat("a.", 121) + "example.com."
	if got := answerFrom(t, "* TXT wild\n", query(deep, "TXT")); len(got.Answer) != 1 || got.Answer[0].Header().Name != deep {
		t.Errorf("got\n%v", got)
	}
}
