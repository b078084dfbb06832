package config

import "time"

// CheckKind names a health check.
type CheckKind string

// The kinds of check.
const (
	CheckTCP   CheckKind = "tcp"
	CheckHTTP  CheckKind = "http"
	CheckHTTPS CheckKind = "https"
	CheckTLS   CheckKind = "tls"
	CheckDNS   CheckKind = "dns"
	CheckUDP   CheckKind = "udp"
	CheckGRPC  CheckKind = "grpc"
	CheckICMP  CheckKind = "icmp"
	CheckExec  CheckKind = "exec"
	CheckFile  CheckKind = "file"
	// CheckPassive: no backend is probed; the outcomes of forwarded traffic alone
	// decide. Some listener forwards to the service.
	CheckPassive CheckKind = "passive"
	// CheckAll, CheckAny and CheckAtLeast combine the checks in Check.Of.
	CheckAll     CheckKind = "all"
	CheckAny     CheckKind = "any"
	CheckAtLeast CheckKind = "at_least"
)

// Vantage says which sites run a check: the zero value is the default (a
// backend's own site; for VIPs every other site), -1 every site, n > 0 that many
// besides a backend's or a VIP's own. A backend's own site always runs it.
type Vantage int16

// VantageAll is every site.
const VantageAll Vantage = -1

// A Check is a service's health check. Only the part that belongs to Kind is
// filled in. VIPs of services whose kind is exec, file or passive are probed by a
// TCP connection.
type Check struct {
	Kind CheckKind // default tcp; never passive, and never with a schedule, inside Of
	HTTP HTTPCheck // for http and https
	TLS  TLSCheck  // for tls; for https too, with the SNI and Insecure of HTTP
	DNS  DNSCheck
	UDP  UDPCheck
	GRPC GRPCCheck
	Exec ExecCheck
	File FileCheck
	// Passive lets the outcomes of forwarded traffic count; Fall 0 = not. It is set
	// for CheckPassive, and for any other kind if the file says so.
	Passive PassiveCheck
	// Of is what all, any and at_least combine: at most 16 checks on all levels
	// together, at most 3 deep. Need is the weight that at_least wants, at most that of Of together.
	Of   []WeightedCheck
	Need int
	// Weight is where the backend says how much it can take; zero = nowhere. It
	// is the answer of an http or https check, which may be inside Of.
	Weight WeightSource

	// From says which sites probe the backends, VIPFrom which the VIPs.
	From, VIPFrom Vantage
	// SlowStart is how long a backend that came back takes to reach its weight; 0 … 1h, default 0.
	SlowStart time.Duration
	// Flap is the damping of backends that go up and down; Limit 0 = none.
	Flap FlapDamping

	Every   time.Duration // 100ms … 1h; default 2s
	Timeout time.Duration // 10ms … 1m, at most Every; default min(Every, 2s)
	Jitter  float64       // share of Every, 0 … 0.5; default 0.1
	Rise    int           // successes to come up, 1 … 100; default 2
	Fall    int           // failures to go down, 1 … 100; default 3
	Recheck time.Duration // interval after a first failure until decided; 10ms … Every; default min(Every, 250ms)
	// VIPPort is the port at which other sites probe the service's VIPs; 0 = the
	// port of the listener that serves it, else the port its backends share. It
	// does not matter for icmp.
	VIPPort uint16
}

// HTTPCheck is the HTTP part of a check.
type HTTPCheck struct {
	Method   string   // GET or HEAD; default GET
	Path     string   // default "/"
	Host     string   // Host header; "" = the address
	SNI      string   // TLS server name, for https; default Host without its port, "" if that is an address
	Headers  []Header // sent; sorted by Name
	Status   []StatusRange
	Body     string // must occur in the first 64 KiB of the body; "" = any
	Insecure bool   // https: do not verify the certificate
	// Version is 1, 2 or 3; 2 over cleartext is with prior knowledge, 3 needs https. Default 1.
	Version int
	// BodyRegexp must match in the first 64 KiB of the body; "" = any. Go syntax (RE2).
	BodyRegexp string
	// JSON are paths in a JSON body with the values they must have; sorted by Path.
	JSON []JSONMatch
}

// A JSONMatch is one condition on a JSON body: what is at Path, as text, is Value.
// A path begins with $, and goes on with .name, ["name"] and [index]; at most 16
// steps.
type JSONMatch struct{ Path, Value string }

// TLSCheck is the TLS part of a check.
type TLSCheck struct {
	SNI      string // "" = the address
	Insecure bool   // do not verify the certificate
	// MinValid is how long the certificate must still be valid; 0 … 1 year, default 0.
	MinValid time.Duration
}

// DNSCheck asks one question.
type DNSCheck struct {
	Name string // fully qualified, lower case
	Type string // A, AAAA, …; default A
	TCP  bool
	// RCode is what the answer must carry; default NOERROR.
	RCode string
	// Expect are record data, all of which must be in the answer; empty = any.
	Expect []string
}

// UDPCheck sends a datagram and waits for one. Both are bytes, already decoded if
// the file has them as "hex:…".
type UDPCheck struct {
	Send   string // never empty; at most 1024 bytes
	Expect string // must be in the answer; "" = any answer
}

// GRPCCheck asks grpc.health.v1.Health/Check.
type GRPCCheck struct {
	Service  string // "" = the server as a whole
	TLS      bool
	SNI      string // with TLS; "" = the address
	Insecure bool   // with TLS: do not verify the certificate
}

// ExecCheck runs a command; exit status 0 is up.
type ExecCheck struct {
	// Command is the program, an absolute path, and its arguments, in which {address},
	// {host}, {port}, {service} and {site} stand for the target's. Never empty.
	Command []string
	// User runs it as somebody else; "" = as pharos itself.
	User string
}

// FileCheck reads a verdict that something else writes: "up", "down" or "weight N".
type FileCheck struct {
	// Path is absolute, and has the same placeholders as ExecCheck.Command.
	Path string
	// MaxAge is how old the file may be before it says nothing, 100ms … 24h; default 3 × every.
	MaxAge time.Duration
}

// PassiveCheck counts failures of forwarded traffic.
type PassiveCheck struct {
	Fall int           // failures in a row that count as one failed check each; 1 … 1000, default 5
	For  time.Duration // how long a backend that only passive checks downed stays down; 1s … 1h, default 10s
}

// A WeightedCheck is one of the checks that another combines.
type WeightedCheck struct {
	Weight int   // 1 … 1000; default 1
	Check  Check // its kind's part alone; the schedule is that of the whole
}

// A WeightSource is where a backend's answer carries its weight in percent (0 …
// 100). At most one is set.
type WeightSource struct {
	Header string // name of a response header
	JSON   string // path in a JSON body, "$.load.free", as in JSONMatch
}

// FlapDamping holds a backend down that changes too often. Each change adds one
// to a penalty that halves every HalfLife; above Limit it stays down until the
// penalty is below half of Limit.
type FlapDamping struct {
	Limit    int           // 2 … 100; 0 = no damping; default 6
	HalfLife time.Duration // 1s … 1h; default 1m
}

// A Header is one header field. Its value may be a credential (from ${ENV}), so,
// like a Secret, it is never printed.
type Header struct{ Name, Value string }

// A StatusRange is an inclusive range of HTTP status codes; default 200–399.
type StatusRange struct{ From, To int }
