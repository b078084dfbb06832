package probe

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/pharos-lb/pharos/internal/health"
)

// Kind is a way to look at a target.
type Kind uint8

// The kinds of check.
const (
	// TCP: a connection is accepted.
	TCP Kind = iota + 1
	// HTTP: an HTTP/1.1 request is answered as the check wants.
	HTTP
	// HTTPS: the same over TLS 1.2 or later.
	HTTPS
)

// String returns "tcp", "http" or "https".
func (k Kind) String() string {
	switch k {
	case TCP:
		return "tcp"
	case HTTP:
		return "http"
	case HTTPS:
		return "https"
	default:
		return fmt.Sprintf("kind %d", uint8(k))
	}
}

// Header is one header field that an HTTP check sends.
type Header struct{ Name, Value string }

// StatusRange is an inclusive range of HTTP status codes.
type StatusRange struct{ From, To int }

// Check says how to look at one target and how often. What is zero takes the
// default given here.
type Check struct {
	// Target is what is probed, at Target.Addr. Required.
	Target health.Target
	// Kind is how; default TCP.
	Kind Kind

	// HTTP and HTTPS only.

	// Method is GET or HEAD; default GET.
	Method string
	// Path is the request target, beginning with "/"; default "/".
	Path string
	// Host is the Host header; default Target.Addr.
	Host string
	// SNI is the name asked for in TLS and looked for in the certificate; default
	// Host without its port, or the address if there is no Host.
	SNI string
	// Headers are sent too. A User-Agent here replaces ours. At most 64.
	Headers []Header
	// Status is what counts as good; default 200–399.
	Status []StatusRange
	// Body must occur in the first 64 KiB of the body; "" wants nothing of it.
	Body string
	// Insecure accepts any certificate.
	Insecure bool

	// Every is the interval between probes, 10 ms … 24 h; default 2 s.
	Every time.Duration
	// Timeout ends a probe, 1 ms … 5 min; default the smaller of Every and 2 s.
	Timeout time.Duration
	// Jitter spreads intervals evenly over Every ± this share of it, 0 … 0.5.
	Jitter float64
	// Rise is how many successes in a row bring a target up, 1 … 100; default 2.
	Rise int
	// Fall is how many failures in a row bring it down, 1 … 100; default 3.
	Fall int
	// Recheck is the interval while a result contradicts the status, 1 ms …
	// Every; default the smaller of Every and 250 ms.
	Recheck time.Duration
}

// maxHeaders is how many header fields a check may send.
const maxHeaders = 64

// maxText is the longest method, path, host, header or body string of a check.
const maxText = 8 << 10

// WithDefaults returns c with its zero fields filled in.
func (c Check) WithDefaults() Check {
	def := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	def(&c.Every, 2*time.Second)
	def(&c.Timeout, min(c.Every, 2*time.Second))
	def(&c.Recheck, min(c.Every, 250*time.Millisecond))
	if c.Kind == 0 {
		c.Kind = TCP
	}
	if c.Rise == 0 {
		c.Rise = 2
	}
	if c.Fall == 0 {
		c.Fall = 3
	}
	if c.Kind == TCP {
		return c
	}
	if c.Method == "" {
		c.Method = "GET"
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.SNI == "" {
		c.SNI = hostname(c.Host)
	}
	if c.SNI == "" {
		c.SNI = c.Target.Addr.Addr().WithZone("").String()
	}
	if c.Host == "" {
		c.Host = c.Target.Addr.String()
	}
	if len(c.Status) == 0 {
		c.Status = []StatusRange{{200, 399}}
	}
	return c
}

// hostname is a Host header without its port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

// Validate returns everything that is wrong with c, after its defaults.
func (c Check) Validate() error {
	c = c.WithDefaults()
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !c.Target.Addr.IsValid() || c.Target.Addr.Port() == 0 {
		bad("address %v: want an address and a port", c.Target.Addr)
	}
	if c.Kind > HTTPS {
		bad("%v does not exist", c.Kind)
	}
	within := func(what string, d, least, most time.Duration) {
		if d < least || d > most {
			bad("%s %v: want %v to %v", what, d, least, most)
		}
	}
	within("every", c.Every, 10*time.Millisecond, 24*time.Hour)
	within("timeout", c.Timeout, time.Millisecond, 5*time.Minute)
	within("recheck", c.Recheck, time.Millisecond, c.Every)
	if !(c.Jitter >= 0 && c.Jitter <= 0.5) {
		bad("jitter %v: want 0 to 0.5", c.Jitter)
	}
	if c.Rise < 1 || c.Rise > 100 {
		bad("rise %d: want 1 to 100", c.Rise)
	}
	if c.Fall < 1 || c.Fall > 100 {
		bad("fall %d: want 1 to 100", c.Fall)
	}
	if c.Kind != TCP {
		errs = append(errs, c.validateHTTP()...)
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("check %s: %w", c.Target, errors.Join(errs...))
}

// validateHTTP returns what is wrong with the HTTP part.
func (c Check) validateHTTP() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Method != "GET" && c.Method != "HEAD" {
		bad("method %.40q: want GET or HEAD", c.Method)
	}
	if c.Method == "HEAD" && c.Body != "" {
		bad("body %.40q: an answer to HEAD has no body", c.Body)
	}
	if c.Path[0] != '/' || strings.ContainsFunc(c.Path, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' }) {
		bad("path %.40q: want a path that begins with / and has no spaces or control characters", c.Path)
	}
	if !httpguts.ValidHostHeader(c.Host) || strings.ContainsAny(c.Host, "/ ") {
		bad("host %.40q: not a host", c.Host)
	}
	for _, s := range []string{c.Path, c.Host, c.SNI, c.Body} {
		if len(s) > maxText {
			bad("%.40q…: longer than %d bytes", s, maxText)
		}
	}
	if len(c.Headers) > maxHeaders {
		bad("%d headers: at most %d", len(c.Headers), maxHeaders)
	}
	for _, h := range c.Headers {
		switch strings.ToLower(h.Name) {
		case "host", "connection", "content-length", "transfer-encoding", "upgrade", "expect", "te", "trailer":
			bad("header %s: cannot be set by a check", h.Name)
			continue
		}
		if !httpguts.ValidHeaderFieldName(h.Name) || !httpguts.ValidHeaderFieldValue(h.Value) || len(h.Name)+len(h.Value) > maxText {
			bad("header %.40q: not a header field", h.Name)
		}
	}
	for _, s := range c.Status {
		if s.From < 100 || s.To > 599 || s.From > s.To {
			bad("status %d-%d: want a range within 100-599", s.From, s.To)
		}
	}
	return errs
}
