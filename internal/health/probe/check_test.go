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
			Target: at, Kind: HTTPS, Method: "GET", Path: "/", Host: "10.0.0.1:8080", SNI: "10.0.0.1", Status: []StatusRange{{200, 399}},
			Every: 2 * time.Second, Timeout: 2 * time.Second, Rise: 2, Fall: 3, Recheck: 250 * time.Millisecond,
		}},
		{"https by name", Check{Target: at, Kind: HTTPS, Host: "www.example.com:8443"}, Check{
			Target: at, Kind: HTTPS, Method: "GET", Path: "/", Host: "www.example.com:8443", SNI: "www.example.com", Status: []StatusRange{{200, 399}},
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
		{"kind", func(c *Check) { c.Kind = 9 }, "kind 9 does not exist"},
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
