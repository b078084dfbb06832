package zone

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Spec is the source of one zone.
type Spec struct {
	// Name is the zone's apex, fully qualified, in any case.
	Name string
	// Master is the RFC 1035 text of the ordinary records; it may be empty.
	// Without an SOA record one is made up, and a warning says so.
	Master string
	// MasterFile names Master in errors and warnings.
	MasterFile string
	// Steered are the names that are answered by a service.
	Steered []Steered
	// Signatures are what a client that asks for DNSSEC gets beside the record sets.
	// Compile neither makes nor checks them.
	Signatures []Signature
}

// A Signature is the RRSIG records of one record set (RFC 4034 3).
type Signature struct {
	// Name owns the set, fully qualified; Type is the type that is signed.
	Name string
	Type uint16
	// Variant is, at a steered name, the answer that is signed: its addresses in any
	// order. Each answer that the service may give has a signature of its own.
	Variant []netip.Addr
	// Records are RRSIG records, each from its type on: type, class, TTL, length, data.
	Records [][]byte
}

// A Steered is a name whose A and AAAA records a service decides.
type Steered struct {
	// FQDN is fully qualified; its first label may be "*" (RFC 4592).
	FQDN string
	// Service is the service's name.
	Service string
	// TTL in seconds is used when the plan has none of its own.
	TTL uint32
	// Anycast: the service's anycast addresses answer, the same for everybody.
	Anycast bool
	// Index is set by Compile: dense from 0 over the Set.
	Index int

	variants []variant
}

// A variant is an answer of a steered name that is signed.
type variant struct {
	addrs  []netip.Addr // sorted
	signed RRset
}

// Limits that keep a mistake from taking the machine.
const (
	MaxRecords = 5_000_000 // records in a Set
	// What all $GENERATE lines of a Set may become: records, octets of text.
	maxGenerated     = 1_000_000
	maxGeneratedText = 256 << 20

	maxErrors  = 50        // reported per zone; more follow a first mistake
	maxSetSize = 64_000    // octets of one record set: it has to fit in a message
	maxTTL     = 1<<31 - 1 // RFC 2181 8
)

// An Error is one mistake in a zone.
type Error struct {
	File    string // Spec.MasterFile, or "zone NAME"
	Line    int    // 0 when no line is to blame
	Message string
}

// Error returns "file:line: message".
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Message)
}

// report collects what is wrong with one zone.
type report struct {
	file     string
	errors   []*Error
	warnings []*Error
	more     int // errors over maxErrors
}

func (r *report) errorf(line int, format string, args ...any) {
	if len(r.errors) >= maxErrors {
		r.more++
		return
	}
	r.errors = append(r.errors, &Error{r.file, line, fmt.Sprintf(format, args...)})
}

func (r *report) warnf(line int, format string, args ...any) {
	if len(r.warnings) < maxErrors {
		r.warnings = append(r.warnings, &Error{r.file, line, fmt.Sprintf(format, args...)})
	}
}

// full reports whether there is no point in looking further.
func (r *report) full() bool { return len(r.errors) >= maxErrors }

// err joins the errors in the order of their lines.
func (r *report) err() error {
	if len(r.errors) == 0 {
		return nil
	}
	slices.SortStableFunc(r.errors, func(a, b *Error) int { return a.Line - b.Line })
	joined := make([]error, 0, len(r.errors)+1)
	for _, e := range r.errors {
		joined = append(joined, e)
	}
	if r.more > 0 {
		joined = append(joined, fmt.Errorf("%s: and %d more", r.file, r.more))
	}
	return errors.Join(joined...)
}

func newReport(spec *Spec) *report {
	file := spec.MasterFile
	if file == "" {
		file = "zone " + strings.TrimSuffix(spec.Name, ".")
	}
	return &report{file: file}
}
