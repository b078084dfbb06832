package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// DNSQuestion is what a DNS check asks and wants. Without Expect any answer will
// do that has the RCODE, an empty one too.
type DNSQuestion struct {
	Name  string // fully qualified
	Type  string // default A
	TCP   bool   // ask over TCP; over UDP a truncated answer is asked for again in TCP
	RCode string // default NOERROR
	// Expect are record data of the Type, in the notation of master files, that must
	// all be in the answer; it may hold more. At most 64.
	Expect []string
}

// maxExpect is how many records a DNS check may want, maxAnswer the largest answer
// it takes over UDP, maxStray how many messages that are not the answer it passes
// over.
const (
	maxExpect = 64
	maxAnswer = 4 << 10
	maxStray  = 64
)

// defaultDNS fills in what a DNS check leaves out.
func (c *Check) defaultDNS() {
	if c.DNS.Type == "" {
		c.DNS.Type = "A"
	}
	if c.DNS.RCode == "" {
		c.DNS.RCode = "NOERROR"
	}
}

// validateDNS returns what is wrong with the DNS part.
func (c Check) validateDNS() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	q := c.DNS
	if _, ok := dns.IsDomainName(q.Name); !ok || !dns.IsFqdn(q.Name) {
		bad("dns name %.80q: want a fully qualified name, such as www.example.com.", q.Name)
	}
	switch kind := dns.StringToType[q.Type]; kind {
	case dns.TypeNone, dns.TypeANY, dns.TypeAXFR, dns.TypeIXFR, dns.TypeMAILA, dns.TypeMAILB, dns.TypeOPT, dns.TypeTSIG:
		bad("dns type %.40q: not a type of record that can be asked for", q.Type)
	}
	if _, ok := dns.StringToRcode[q.RCode]; !ok {
		bad("dns rcode %.40q: not an RCODE", q.RCode)
	}
	if len(q.Expect) > maxExpect {
		bad("%d expected records: at most %d", len(q.Expect), maxExpect)
	}
	for _, data := range q.Expect {
		if _, err := record(q, data); err != nil {
			bad("%w", err)
		}
	}
	return append(errs, tooLong(q.Expect...)...)
}

// record parses the data of a record of the question's type.
func record(q DNSQuestion, data string) (dns.RR, error) {
	rr, err := dns.NewRR(". 0 IN " + q.Type + " " + data)
	if err != nil || rr == nil || strings.ContainsAny(data, "\n") {
		return nil, fmt.Errorf("expected record %.80q: not the data of a record of type %.40s", data, q.Type)
	}
	return rr, nil
}

// probeDNS runs a DNS check once.
func (p *prober) probeDNS(ctx context.Context, c *Check) Result {
	network := "udp"
	if c.DNS.TCP {
		network = "tcp"
	}
	got, at, err := p.askDNS(ctx, network, c)
	if err == nil && got.Truncated && network == "udp" {
		got, at, err = p.askDNS(ctx, "tcp", c)
	}
	if err == nil {
		err = judgeDNS(got, c.DNS)
	}
	if err != nil {
		return explain(unreachable(err, network), at, c.Timeout)
	}
	return Result{}
}

// askDNS sends the question and returns the answer to it.
func (p *prober) askDNS(ctx context.Context, network string, c *Check) (*dns.Msg, phase, error) {
	conn, err := p.dial(ctx, network, c)
	if err != nil {
		return nil, connecting, err
	}
	defer conn.Close()
	defer bound(ctx, conn)()
	// No EDNS: every server knows this, and what does not fit comes over TCP.
	ask := new(dns.Msg).SetQuestion(c.DNS.Name, dns.StringToType[c.DNS.Type])
	wire := &dns.Conn{Conn: conn, UDPSize: maxAnswer}
	if err := wire.WriteMsg(ask); err != nil {
		return nil, sending, err
	}
	for range maxStray {
		raw, err := wire.ReadMsgHeader(nil)
		if errors.Is(err, dns.ErrShortRead) {
			return nil, answering, finding{errors.New("not DNS: a message of less than a header")}
		}
		if err != nil {
			return nil, answering, err
		}
		got := new(dns.Msg)
		err = got.Unpack(raw)
		if got.Id != ask.Id {
			// Late, or forged: over UDP anybody can send something. What is no answer
			// to our question does not end the wait for it.
			continue
		}
		switch {
		case err != nil && !got.Truncated:
			return nil, answering, finding{fmt.Errorf("not DNS: %w", err)}
		case !got.Response:
			return nil, answering, finding{errors.New("not DNS: a query came back instead of an answer")}
		case !sameQuestion(got, ask):
			return nil, answering, finding{errors.New("DNS answer to another question")}
		}
		return got, answering, nil
	}
	return nil, answering, finding{fmt.Errorf("more than %d DNS messages that answer nothing we asked", maxStray)}
}

// sameQuestion reports whether got repeats the question. An answer that reports an
// error may leave it out.
func sameQuestion(got, ask *dns.Msg) bool {
	if len(got.Question) == 0 {
		return got.Rcode != dns.RcodeSuccess
	}
	want, is := ask.Question[0], got.Question[0]
	return len(got.Question) == 1 && is.Qtype == want.Qtype && is.Qclass == want.Qclass &&
		strings.EqualFold(is.Name, want.Name)
}

// judgeDNS holds an answer against the question.
func judgeDNS(got *dns.Msg, q DNSQuestion) error {
	if want := dns.StringToRcode[q.RCode]; got.Rcode != want {
		is, ok := dns.RcodeToString[got.Rcode]
		if !ok {
			is = fmt.Sprint(got.Rcode)
		}
		return finding{fmt.Errorf("RCODE %s, want %s", is, q.RCode)}
	}
	for _, data := range q.Expect {
		want, err := record(q, data)
		if err != nil {
			return finding{err}
		}
		// The owner does not matter: the name may be an alias.
		found := slices.ContainsFunc(got.Answer, func(rr dns.RR) bool {
			want.Header().Name = rr.Header().Name
			return rr.Header().Class == dns.ClassINET && dns.IsDuplicate(rr, want)
		})
		if !found {
			return finding{fmt.Errorf("answer lacks %s %.80s%s", q.Type, data, others(got, want))}
		}
	}
	return nil
}

// maxNamed is how many records of an answer a finding names.
const maxNamed = 3

// others says what an answer holds in place of want.
func others(got *dns.Msg, want dns.RR) string {
	var has []string
	for _, rr := range got.Answer {
		if rr.Header().Rrtype != want.Header().Rrtype {
			continue
		}
		if len(has) == maxNamed {
			has = append(has, "…")
			break
		}
		has = append(has, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	if len(has) == 0 {
		return ", has none"
	}
	return ", has " + strings.Join(has, ", ")
}
