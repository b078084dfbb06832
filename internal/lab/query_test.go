package lab

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"
)

// response is what a server could send.
func response(t testing.TB, id uint16, code dnsmessage.RCode, addrs ...string) []byte {
	t.Helper()
	name := dnsmessage.MustNewName("www.lab.test.")
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, Response: true, RCode: code},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	for _, a := range addrs {
		addr := netip.MustParseAddr(a)
		r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 5}}
		if addr.Is4() {
			r.Body = &dnsmessage.AResource{A: addr.As4()}
		} else {
			r.Body = &dnsmessage.AAAAResource{AAAA: addr.As16()}
		}
		m.Answers = append(m.Answers, r)
	}
	text, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestReadAnswer(t *testing.T) {
	for _, tt := range []struct {
		name string
		text []byte
		want Answer
		mine bool
	}{
		{"two", response(t, 7, 0, "10.0.0.1", "2001:db8::1"), Answer{RCode: "Success", Addresses: []netip.Addr{
			netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1"),
		}}, true},
		{"empty", response(t, 7, 0), Answer{RCode: "Success"}, true},
		{"refused", response(t, 7, dnsmessage.RCodeRefused), Answer{RCode: "Refused"}, true},
		{"another query's", response(t, 8, 0, "10.0.0.1"), Answer{}, false},
		{"no response", func() []byte { q, _ := newQuery(7, Question{Name: "a.test"}); return q }(), Answer{}, false},
		{"noise", []byte{0, 7}, Answer{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, mine := readAnswer(tt.text, 7)
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || mine != tt.mine {
				t.Errorf("mine %t\n%s", mine, diff)
			}
		})
	}
}

// FuzzReadAnswer: whatever comes is read to its end or refused; what is cut
// short never passes for an answer with addresses that the whole does not have.
func FuzzReadAnswer(f *testing.F) {
	whole := response(f, 7, 0, "10.0.0.1", "2001:db8::1")
	f.Add(whole, 7)
	f.Add(whole, len(whole)-3)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		a, mine := readAnswer(text, 7)
		if !mine && (a.RCode != "" || a.Addresses != nil) {
			t.Fatalf("something of another's answer: %+v", a)
		}
		if a.Error != "" && (a.RCode != "" || a.Addresses != nil) {
			t.Fatalf("an error and an answer: %+v", a)
		}
		if cut < 0 || cut > len(text) {
			return
		}
		if b, _ := readAnswer(text[:cut], 7); len(b.Addresses) > len(a.Addresses) && a.Error == "" {
			t.Fatalf("%d bytes have more than %d", cut, len(text))
		}
	})
}

func TestNewQuery(t *testing.T) {
	for _, name := range []string{"", "a..b", string(make([]byte, 300))} {
		if _, err := newQuery(1, Question{Name: name}); err == nil && name != "" {
			t.Errorf("%q makes a query", name)
		}
	}
}
