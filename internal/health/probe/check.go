package probe

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// Kind is a way to look at a target.
type Kind uint8

// The kinds of check.
const (
	// TCP: a connection is accepted.
	TCP Kind = iota + 1
	// HTTP: an HTTP request is answered as the check wants.
	HTTP
	// HTTPS: the same over TLS 1.2 or later.
	HTTPS
	// TLS: the handshake succeeds with a certificate that will do.
	TLS
	// DNS: a question is answered as the check wants.
	DNS
	// UDP: a datagram is answered.
	UDP
	// GRPC: grpc.health.v1 says SERVING.
	GRPC
	// ICMP: an echo request is answered.
	ICMP
	// Exec: a command ends with status 0.
	Exec
	// File: a file says "up".
	File
	// Passive: nothing is probed; the outcomes of traffic decide (Runner.Outcome).
	Passive
	// All, Any and AtLeast combine the checks in Of.
	All
	Any
	AtLeast
)

var kindNames = [...]string{
	TCP: "tcp", HTTP: "http", HTTPS: "https", TLS: "tls", DNS: "dns", UDP: "udp", GRPC: "grpc", ICMP: "icmp",
	Exec: "exec", File: "file", Passive: "passive", All: "all", Any: "any", AtLeast: "at_least",
}

// String returns the kind as the configuration writes it.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

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
	// Host is the Host header, the authority for GRPC; default Target.Addr.
	Host string
	// SNI is the name asked for in TLS and looked for in the certificate; default
	// Host without its port, or the address if there is no Host. Also for TLS and GRPC.
	SNI string
	// Headers are sent too. A User-Agent here replaces ours. At most 64.
	Headers []Header
	// Status is what counts as good; default 200–399.
	Status []StatusRange
	// Body must occur in the first 64 KiB of the body; "" wants nothing of it.
	Body string
	// Insecure accepts any certificate. Also for TLS and GRPC.
	Insecure bool
	// Version is the HTTP version, 1, 2 or 3; default 1. 2 without TLS is with prior
	// knowledge; 3 is QUIC and thus HTTPS only.
	Version int
	// BodyRegexp (RE2) must match in the first 64 KiB of the body, which are read
	// whole; "" wants nothing of it.
	BodyRegexp string
	// JSON are conditions on a JSON body of at most 64 KiB. At most 64.
	JSON []JSONMatch

	// The other kinds; what does not belong to Kind is ignored.

	// MinValid is how long a certificate must still be valid (TLS, HTTPS), 0 … 1 year.
	MinValid time.Duration
	DNS      DNSQuestion
	UDP      UDPExchange
	GRPC     GRPCHealth
	Exec     ExecCommand
	File     FileFeed
	// Of and Need are for All, Any and AtLeast.
	Of   []Part
	Need int

	// Passive: how many failures of traffic in a row count as a failed probe each
	// from then on; 0 = traffic does not count.
	Passive PassiveRule
	// WeightHeader and WeightJSON (a JSONMatch path) say where a good answer of HTTP
	// or HTTPS carries the weight that the backend asks for, in percent: "75", "75%"
	// or 75. The header goes first. What is no number of 0 to 100 is no weight, and
	// no failure either.
	WeightHeader, WeightJSON string
	// Flap damps targets that change often; Limit 0 = not.
	Flap FlapRule

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

// ExecCommand is what an Exec check runs.
type ExecCommand struct {
	// Command is the program and its arguments, in which {address}, {host}, {port},
	// {service} and {site} stand for the target's.
	Command []string
	// User is who runs it; "" = this process's user.
	User string
}

// FileFeed is what a File check reads: "up", "down", or "weight N" (up, N percent).
type FileFeed struct {
	Path   string        // with the placeholders of ExecCommand
	MaxAge time.Duration // an older file says nothing
}

// Part is one of the checks that another combines; its schedule is ignored.
type Part struct {
	Weight int // default 1
	Check  Check
}

// PassiveRule says how outcomes of traffic count.
type PassiveRule struct {
	Fall int
	// For is how long a target that only traffic is asked about stays down before
	// it is tried again.
	For time.Duration
}

// FlapRule is the damping of targets that change often: each change of status adds
// one to a penalty that halves every HalfLife. Above Limit a target stays down
// until its penalty is below half of Limit.
type FlapRule struct {
	Limit    int
	HalfLife time.Duration
}

// maxText is the longest text of a check: a path, a host, a body string and so on.
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
	switch c.Kind {
	case HTTP, HTTPS:
		c.defaultHTTP()
	case TLS, GRPC:
		c.defaultNames()
	case DNS:
		c.defaultDNS()
	}
	return c.local()
}

// Validate returns everything that is wrong with c, after its defaults.
func (c Check) Validate() error {
	c = c.WithDefaults()
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch c.Kind {
	case ICMP: // has no ports
		if !c.Target.Addr.Addr().IsValid() {
			bad("address %v: want an address", c.Target.Addr)
		}
	case All, Any, AtLeast: // what their parts want
	default:
		if !c.Target.Addr.IsValid() || c.Target.Addr.Port() == 0 {
			bad("address %v: want an address and a port", c.Target.Addr)
		}
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
	errs = slices.Concat(errs, c.validateKind(), c.validateLocal())
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("check %s: %w", c.Target, errors.Join(errs...))
}

// validateKind returns what is wrong with the part that belongs to c.Kind.
func (c Check) validateKind() []error {
	switch c.Kind {
	case TCP, ICMP, Exec, File, Passive, All, Any, AtLeast:
		return nil
	case HTTP, HTTPS:
		return c.validateHTTP()
	case TLS:
		return c.validateTLS()
	case DNS:
		return c.validateDNS()
	case UDP:
		return c.validateUDP()
	case GRPC:
		return c.validateGRPC()
	default:
		return []error{fmt.Errorf("%v does not exist", c.Kind)}
	}
}

// tooLong returns an error for each text that is longer than a check may hold.
func tooLong(texts ...string) (errs []error) {
	for _, s := range texts {
		if len(s) > maxText {
			errs = append(errs, fmt.Errorf("%.40q…: longer than %d bytes", s, maxText))
		}
	}
	return errs
}
