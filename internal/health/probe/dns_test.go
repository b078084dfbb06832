package probe

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pharos-lb/pharos/internal/health"
)

// serveDNS answers questions over UDP and TCP on one port until the test ends.
func serveDNS(t testing.TB, handle dns.HandlerFunc) health.Target {
	t.Helper()
	for range 20 { // until both have the same port free
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", packets.LocalAddr().String())
		if err != nil {
			packets.Close()
			continue
		}
		for _, s := range []*dns.Server{{PacketConn: packets, Handler: handle}, {Listener: listener, Handler: handle}} {
			started, done := make(chan struct{}), make(chan struct{})
			s.NotifyStartedFunc = func() { close(started) }
			go func() { defer close(done); s.ActivateAndServe() }()
			<-started
			t.Cleanup(func() { s.Shutdown(); <-done })
		}
		return target(packets.LocalAddr().String())
	}
	t.Fatal("found no port that is free in UDP and TCP")
	return health.Target{}
}

// answerDNS answers by the first label of the name.
func answerDNS(w dns.ResponseWriter, r *dns.Msg) {
	q := r.Question[0]
	label, _, _ := strings.Cut(strings.ToLower(q.Name), ".")
	m := new(dns.Msg).SetReply(r)
	add := func(format string, args ...any) {
		rr, err := dns.NewRR(fmt.Sprintf(format, args...))
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	_, tcp := w.RemoteAddr().(*net.TCPAddr)
	switch label {
	case "www":
		m.Question[0].Name = strings.ToLower(q.Name)
		add("%s 30 IN CNAME web.example.com.", q.Name)
		add("web.example.com. 30 IN A 192.0.2.1")
		add("web.example.com. 30 IN A 192.0.2.2")
	case "v6":
		add("%s 30 IN AAAA 2001:db8::1", q.Name)
	case "mail":
		add("%s 30 IN MX 10 MX1.Example.com.", q.Name)
	case "text":
		add(`%s 30 IN TXT "v=spf1 -all"`, q.Name)
	case "many":
		for i := range 5 {
			add("%s 30 IN A 192.0.2.%d", q.Name, i)
		}
	case "big":
		m.Truncated = !tcp
		if tcp {
			add("%s 30 IN A 192.0.2.9", q.Name)
		}
	case "none":
		m.Rcode = dns.RcodeNameError
	case "broken":
		m.Rcode = dns.RcodeServerFailure
		m.Question = nil
	case "unnamed":
		m.Rcode = 4000 & 15 // 0: the rest would be in EDNS
		m.Question = nil
	case "other":
		m.Question[0].Name = "other.example.org."
	case "mirror":
		m.Response = false
	case "stray":
		stray := m.Copy()
		stray.Id++
		stray.Rcode = dns.RcodeRefused
		w.WriteMsg(stray)
	case "storm":
		m.Id++
		for range maxStray {
			w.WriteMsg(m)
		}
		return
	case "garbage":
		raw, _ := m.Pack()
		raw[5] = 9 // questions, of which there is one
		w.Write(raw)
		return
	case "short":
		raw, _ := m.Pack()
		w.Write(raw[:11])
		return
	case "long":
		for range 100 {
			add("%s 30 IN A 192.0.2.9", q.Name)
		}
	case "silent":
		return
	}
	w.WriteMsg(m)
}

func TestProbeDNS(t *testing.T) {
	at := serveDNS(t, answerDNS)
	short := 100 * time.Millisecond
	for _, tt := range []struct {
		name  string
		check DNSQuestion
		want  string
	}{
		{"any answer", DNSQuestion{Name: "www.example.com."}, ""},
		{"an empty answer", DNSQuestion{Name: "nothing.example.com."}, ""},
		{"over tcp", DNSQuestion{Name: "www.example.com.", TCP: true, Expect: []string{"192.0.2.1"}}, ""},
		{"all of them", DNSQuestion{Name: "WWW.example.com.", Expect: []string{"192.0.2.2", "192.0.2.1"}}, ""},
		{"one is missing", DNSQuestion{Name: "www.example.com.", Expect: []string{"192.0.2.2", "192.0.2.3"}}, "answer lacks A 192.0.2.3, has 192.0.2.1, 192.0.2.2"},
		{"many others", DNSQuestion{Name: "many.example.com.", Expect: []string{"192.0.2.9"}}, "answer lacks A 192.0.2.9, has 192.0.2.0, 192.0.2.1, 192.0.2.2, …"},
		{"none at all", DNSQuestion{Name: "nothing.example.com.", Expect: []string{"192.0.2.9"}}, "answer lacks A 192.0.2.9, has none"},
		{"alias", DNSQuestion{Name: "www.example.com.", Type: "CNAME", Expect: []string{"WEB.example.com."}}, ""},
		{"canonical address", DNSQuestion{Name: "v6.example.com.", Type: "AAAA", Expect: []string{"2001:0db8:0::0001"}}, ""},
		{"canonical name", DNSQuestion{Name: "mail.example.com.", Type: "MX", Expect: []string{"10  mx1.example.COM."}}, ""},
		{"text", DNSQuestion{Name: "text.example.com.", Type: "TXT", Expect: []string{`"v=spf1 -all"`}}, ""},
		{"other text", DNSQuestion{Name: "text.example.com.", Type: "TXT", Expect: []string{`v=spf1`}}, `answer lacks TXT v=spf1, has "v=spf1 -all"`},
		{"truncated", DNSQuestion{Name: "big.example.com.", Expect: []string{"192.0.2.9"}}, ""},
		{"rcode", DNSQuestion{Name: "none.example.com."}, "RCODE NXDOMAIN, want NOERROR"},
		{"wanted rcode", DNSQuestion{Name: "none.example.com.", RCode: "NXDOMAIN"}, ""},
		{"missing rcode", DNSQuestion{Name: "www.example.com.", RCode: "NXDOMAIN"}, "RCODE NOERROR, want NXDOMAIN"},
		{"an error may leave out the question", DNSQuestion{Name: "broken.example.com."}, "RCODE SERVFAIL, want NOERROR"},
		{"an answer may not", DNSQuestion{Name: "unnamed.example.com."}, "DNS answer to another question"},
		{"another question", DNSQuestion{Name: "other.example.com."}, "DNS answer to another question"},
		{"not an answer", DNSQuestion{Name: "mirror.example.com."}, "not DNS: a query came back instead of an answer"},
		{"a stray answer before", DNSQuestion{Name: "stray.example.com."}, ""},
		{"nothing but strays", DNSQuestion{Name: "storm.example.com."}, "more than 64 DNS messages that answer nothing we asked"},
		{"garbage", DNSQuestion{Name: "garbage.example.com."}, "not DNS: *"},
		{"short", DNSQuestion{Name: "short.example.com."}, "not DNS: a message of less than a header"},
		{"short over tcp", DNSQuestion{Name: "short.example.com.", TCP: true}, "not DNS: a message of less than a header"},
		{"longer than it may be", DNSQuestion{Name: "long.example.com.", Expect: []string{"192.0.2.9"}}, ""},
		{"silent", DNSQuestion{Name: "silent.example.com."}, "timeout after 100ms waiting for an answer"},
		{"silent over tcp", DNSQuestion{Name: "silent.example.com.", TCP: true}, "timeout after 100ms waiting for an answer"},
	} {
		c := Check{Target: at, Kind: DNS, DNS: tt.check}
		if strings.HasPrefix(tt.name, "silent") {
			c.Timeout = short
		}
		got := run(t, &prober{}, c)
		start, prefix := strings.CutSuffix(tt.want, "*")
		if fits := got.Err == tt.want || prefix && strings.HasPrefix(got.Err, start); !fits || got.Inconclusive {
			t.Errorf("%s: got %+v, want %q", tt.name, got, tt.want)
		}
	}
}

func TestProbeDNSUnreachable(t *testing.T) {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket.Close()
	c := Check{Target: target(socket.LocalAddr().String()), Kind: DNS, DNS: DNSQuestion{Name: "."}}
	if got := run(t, &prober{}, c); got.Err != "port unreachable" {
		t.Errorf("got %+v", got)
	}
	c.DNS.TCP = true
	if got := run(t, &prober{}, c); got.Err != "connect refused" {
		t.Errorf("got %+v", got)
	}
}
