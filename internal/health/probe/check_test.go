package probe

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pharos-lb/pharos/internal/health"
)

func target(addr string) health.Target {
	return health.Target{Kind: health.KindBackend, Service: "web", Site: "fra", Addr: netip.MustParseAddrPort(addr)}
}

func TestWithDefaults(t *testing.T) {
	at := target("10.0.0.1:8080")
	for _, tt := range []struct {
		name     string
		in, want Check
	}{
		{"tcp", Check{Target: at}, Check{Target: at, Kind: TCP, Every: 2 * time.Second, Timeout: 2 * time.Second, Rise: 2, Fall: 3, Recheck: 250 * time.Millisecond}},
		{"short interval", Check{Target: at, Every: 100 * time.Millisecond}, Check{Target: at, Kind: TCP, Every: 100 * time.Millisecond, Timeout: 100 * time.Millisecond, Rise: 2, Fall: 3, Recheck: 100 * time.Millisecond}},
		{"https by address", Check{Target: at, Kind: HTTPS}, Check{
			Target: at, Kind: HTTPS, Method: "GET", Path: "/", Host: "10.0.0.1:8080", SNI: "10.0.0.1", Version: 1, Status: []StatusRange{{200, 399}},
			Every: 2 * time.Second, Timeout: 2 * time.Second, Rise: 2, Fall: 3, Recheck: 250 * time.Millisecond,
		}},
		{"https by name", Check{Target: at, Kind: HTTPS, Host: "www.example.com:8443"}, Check{
			Target: at, Kind: HTTPS, Method: "GET", Path: "/", Host: "www.example.com:8443", SNI: "www.example.com", Version: 1, Status: []StatusRange{{200, 399}},
			Every: 2 * time.Second, Timeout: 2 * time.Second, Rise: 2, Fall: 3, Recheck: 250 * time.Millisecond,
		}},
	} {
		if diff := cmp.Diff(tt.want, tt.in.WithDefaults(), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
		if err := tt.in.Validate(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(c *Check)
		want string
	}{
		{"no address", func(c *Check) { c.Target.Addr = netip.AddrPort{} }, "want an address and a port"},
		{"port 0", func(c *Check) { c.Target.Addr = netip.MustParseAddrPort("10.0.0.1:0") }, "want an address and a port"},
		{"kind", func(c *Check) { c.Kind = 99 }, "kind 99 does not exist"},
		{"every", func(c *Check) { c.Every = time.Millisecond }, "every 1ms: want 10ms to 24h"},
		{"negative every", func(c *Check) { c.Every = -time.Second }, "every -1s"},
		{"timeout", func(c *Check) { c.Timeout = time.Hour }, "timeout 1h0m0s"},
		{"recheck above every", func(c *Check) { c.Recheck = time.Minute }, "recheck 1m0s: want 1ms to 2s"},
		{"jitter", func(c *Check) { c.Jitter = 0.6 }, "jitter 0.6"},
		{"rise", func(c *Check) { c.Rise = -1 }, "rise -1"},
		{"fall", func(c *Check) { c.Fall = 101 }, "fall 101"},
		{"method", func(c *Check) { c.Method = "DELETE" }, "method \"DELETE\": want GET or HEAD"},
		{"body of HEAD", func(c *Check) { c.Method, c.Body = "HEAD", "x" }, "an answer to HEAD has no body"},
		{"path without slash", func(c *Check) { c.Path = "healthz" }, "path \"healthz\""},
		{"request splitting", func(c *Check) { c.Path = "/ HTTP/1.1\r\nX: y" }, "no spaces or control characters"},
		{"host", func(c *Check) { c.Host = "a\r\nb" }, "not a host"},
		{"long body", func(c *Check) { c.Body = strings.Repeat("x", maxText+1) }, "longer than 8192"},
		{"header Host", func(c *Check) { c.Headers = []Header{{"host", "x"}} }, "header host: cannot be set"},
		{"header splitting", func(c *Check) { c.Headers = []Header{{"X", "a\r\nb"}} }, "not a header field"},
		{"many headers", func(c *Check) { c.Headers = make([]Header, 65) }, "65 headers: at most 64"},
		{"status", func(c *Check) { c.Status = []StatusRange{{300, 200}} }, "status 300-200"},
	} {
		c := Check{Target: target("10.0.0.1:80"), Kind: HTTP}
		tt.edit(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestValidateSaysEverything(t *testing.T) {
	err := Check{Target: target("10.0.0.1:80"), Jitter: 2, Rise: -1}.Validate()
	if err == nil || !strings.Contains(err.Error(), "jitter") || !strings.Contains(err.Error(), "rise") {
		t.Errorf("got %v", err)
	}
}

// TestValidateKinds: every kind refuses what it cannot do, and takes what it can.
func TestValidateKinds(t *testing.T) {
	long := strings.Repeat("x", maxText+1)
	dns := func(edit func(q *DNSQuestion)) Check {
		c := Check{Kind: DNS, DNS: DNSQuestion{Name: "www.example.com."}}
		edit(&c.DNS)
		return c
	}
	for _, tt := range []struct {
		name  string
		check Check
		want  string
	}{
		{"version 0 is 1", Check{Kind: HTTP}, ""},
		{"version 2", Check{Kind: HTTP, Version: 2}, ""},
		{"version 3", Check{Kind: HTTPS, Version: 3}, ""},
		{"version 3 in clear text", Check{Kind: HTTP, Version: 3}, "HTTP/3 is always encrypted; want kind https"},
		{"version 4", Check{Kind: HTTPS, Version: 4}, "version 4: want 1, 2 or 3"},
		{"odd path of version 1", Check{Kind: HTTP, Path: "/%zz"}, ""},
		{"odd path of version 2", Check{Kind: HTTP, Version: 2, Path: "/%zz"}, "HTTP/2 cannot carry it"},
		{"connection header", Check{Kind: HTTP, Headers: []Header{{"Keep-Alive", "1"}}}, "header Keep-Alive: cannot be set"},
		{"regexp", Check{Kind: HTTP, BodyRegexp: "a("}, "body regexp \"a(\": error parsing regexp"},
		{"regexp of HEAD", Check{Kind: HTTP, Method: "HEAD", BodyRegexp: "a"}, "body regexp \"a\": an answer to HEAD has no body"},
		{"json of HEAD", Check{Kind: HTTP, Method: "HEAD", JSON: []JSONMatch{{"a", "b"}}}, "json: an answer to HEAD has no body"},
		{"weight of HEAD", Check{Kind: HTTP, Method: "HEAD", WeightJSON: "a"}, "an answer to HEAD has no body"},
		{"weight header of HEAD", Check{Kind: HTTP, Method: "HEAD", WeightHeader: "X-Load"}, ""},
		{"json path", Check{Kind: HTTP, JSON: []JSONMatch{{"a..b", "1"}}}, "json path \"a..b\": want a name"},
		{"many conditions", Check{Kind: HTTP, JSON: make([]JSONMatch, 65)}, "65 json conditions: at most 64"},
		{"weight path", Check{Kind: HTTP, WeightJSON: "a["}, "weight from JSON: path \"a[\""},
		{"weight header", Check{Kind: HTTP, WeightHeader: "X Load"}, "weight from header \"X Load\": not the name"},
		{"long regexp", Check{Kind: HTTP, BodyRegexp: long}, "longer than 8192"},
		{"long json value", Check{Kind: HTTP, JSON: []JSONMatch{{"a", long}}}, "longer than 8192"},
		{"margin", Check{Kind: HTTPS, MinValid: 400 * day}, "min_valid 9600h0m0s: want 0s to 8784h0m0s"},
		{"tls", Check{Kind: TLS, MinValid: 14 * day}, ""},
		{"tls margin", Check{Kind: TLS, MinValid: -day}, "min_valid -24h0m0s"},
		{"tls host", Check{Kind: TLS, Host: "a b"}, "host \"a b\": not a host"},
		{"dns", dns(func(*DNSQuestion) {}), ""},
		{"dns root", dns(func(q *DNSQuestion) { q.Name, q.Type = ".", "NS" }), ""},
		{"dns records", dns(func(q *DNSQuestion) { q.Type, q.Expect = "MX", []string{"10 mail.example.com."} }), ""},
		{"dns without name", Check{Kind: DNS}, "dns name \"\": want a fully qualified name"},
		{"dns name not qualified", dns(func(q *DNSQuestion) { q.Name = "www.example.com" }), "want a fully qualified name"},
		{"dns name too long", dns(func(q *DNSQuestion) { q.Name = strings.Repeat("x", 64) + "." }), "want a fully qualified name"},
		{"dns type", dns(func(q *DNSQuestion) { q.Type = "B" }), "dns type \"B\": not a type"},
		{"dns transfer", dns(func(q *DNSQuestion) { q.Type = "AXFR" }), "dns type \"AXFR\": not a type of record that can be asked for"},
		{"dns rcode", dns(func(q *DNSQuestion) { q.RCode = "OK" }), "dns rcode \"OK\": not an RCODE"},
		{"dns record", dns(func(q *DNSQuestion) { q.Expect = []string{"::1"} }), "expected record \"::1\": not the data of a record of type A"},
		{"dns record with more", dns(func(q *DNSQuestion) { q.Expect = []string{"192.0.2.1\n. A 192.0.2.2"} }), "not the data of a record of type A"},
		{"dns no record", dns(func(q *DNSQuestion) { q.Expect = []string{""} }), "not the data of a record of type A"},
		{"many dns records", dns(func(q *DNSQuestion) { q.Expect = make([]string, 65) }), "65 expected records: at most 64"},
		{"udp", Check{Kind: UDP}, ""},
		{"long datagram", Check{Kind: UDP, UDP: UDPExchange{Send: strings.Repeat("x", 1201)}}, "longer than 1200 bytes"},
		{"long answer", Check{Kind: UDP, UDP: UDPExchange{Expect: long}}, "longer than 8192"},
		{"grpc", Check{Kind: GRPC, GRPC: GRPCHealth{Service: "größe", TLS: true}}, ""},
		{"grpc service", Check{Kind: GRPC, GRPC: GRPCHealth{Service: "\xff"}}, "not UTF-8"},
		{"long grpc service", Check{Kind: GRPC, GRPC: GRPCHealth{Service: long}}, "longer than 8192"},
		{"icmp", Check{Kind: ICMP}, ""},
	} {
		tt.check.Target = target("10.0.0.1:80")
		err := tt.check.Validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	noPort := Check{Kind: ICMP, Target: target("10.0.0.1:0")}
	if err := noPort.Validate(); err != nil {
		t.Errorf("icmp without a port: %v", err)
	}
	for _, kind := range []Kind{TLS, DNS, UDP, GRPC} {
		noPort.Kind, noPort.DNS.Name = kind, "."
		if err := noPort.Validate(); err == nil || !strings.Contains(err.Error(), "want an address and a port") {
			t.Errorf("%v without a port: %v", kind, err)
		}
	}
	if err := (Check{Kind: ICMP}).Validate(); err == nil || !strings.Contains(err.Error(), "want an address") {
		t.Errorf("icmp without an address: %v", err)
	}
}
