package health

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits of a report; a larger one is neither written nor read.
const (
	// MaxTargets is the largest number of targets in a layout.
	MaxTargets = 1_000_000
	// MaxObserverLen is the longest observer name, in bytes.
	MaxObserverLen = 63
	// MaxReportLen is the longest encoded report, in bytes.
	MaxReportLen = reportFixedLen + MaxObserverLen + MaxTargets/4
)

// The versions of an encoded report, its first byte.
const (
	// ReportVersion is what AppendBinary writes.
	ReportVersion = 2
	// OldestReportVersion is the oldest that is read, and that AppendVersion can
	// write for nodes that read nothing newer: it has no Overrides.
	OldestReportVersion = 1
)

// reportFixedLen is the size of everything but the name and the states:
// version, flags, epoch, seq, layout, config, overrides, name length, states
// length.
const reportFixedLen = 1 + 1 + 5*8 + 1 + 4

// fixedLen is reportFixedLen of a version.
func fixedLen(version byte) int {
	if version == 1 {
		return reportFixedLen - 8
	}
	return reportFixedLen
}

// ErrReport is wrapped by every error about bytes that are not a report.
var ErrReport = errors.New("malformed report")

// A VersionError says that an encoding was made by a newer pharos. The bytes
// may be perfectly good; this node cannot read them and must not guess.
type VersionError struct {
	// What names the encoding ("report", "view").
	What string
	// Got is the version found, Want the newest one that is understood.
	Got, Want byte
}

// Error implements error.
func (e *VersionError) Error() string {
	return fmt.Sprintf("parse %s: version %d is not understood (this node reads version %d)", e.What, e.Got, e.Want)
}

// NewReport returns a report of observer in which no target has a statement
// yet. The caller fills in Epoch, Seq, Config and Flags, and Sets the states.
func NewReport(observer string, layout *Layout) *Report {
	return &Report{
		Observer: observer,
		Layout:   layout.Hash,
		States:   make([]byte, statesLen(len(layout.Targets))),
	}
}

// statesLen is the number of bytes that hold two bits for each of n targets.
func statesLen(n int) int { return (n + 3) / 4 }

// Get returns the statement on target i. It is StatusNone beyond the states.
func (r *Report) Get(i int) Status { return statusAt(r.States, i) }

// Set makes s the statement on target i (0 … MaxTargets-1; others are
// ignored), growing States if it must. It must not be used on a report that
// has been published.
func (r *Report) Set(i int, s Status) {
	if i < 0 || i >= MaxTargets {
		return
	}
	if grow := i/4 + 1 - len(r.States); grow > 0 {
		r.States = append(r.States, make([]byte, grow)...)
	}
	setStatus(r.States, i, s)
}

// statusAt reads the two bits of target i, StatusNone if they are not there.
func statusAt(states []byte, i int) Status {
	if uint(i)/4 >= uint(len(states)) {
		return StatusNone
	}
	return Status(states[uint(i)/4]>>(uint(i)%4*2)) & 3
}

// setStatus writes the two bits of target i, which must be there.
func setStatus(states []byte, i int, s Status) {
	shift := uint(i) % 4 * 2
	states[i/4] = states[i/4]&^(3<<shift) | byte(s&3)<<shift
}

// Newer reports whether r replaces o in the register of their observer: the
// larger (Epoch, Seq) wins. Every report is newer than none (nil).
func (r *Report) Newer(o *Report) bool {
	if o == nil {
		return true
	}
	if r.Epoch != o.Epoch {
		return r.Epoch > o.Epoch
	}
	return r.Seq > o.Seq
}

// check returns what forbids r to be encoded.
func (r *Report) check() error {
	switch {
	case r.Observer == "":
		return fmt.Errorf("%w: no observer name", ErrReport)
	case len(r.Observer) > MaxObserverLen:
		return fmt.Errorf("%w: observer name of %d bytes, at most %d", ErrReport, len(r.Observer), MaxObserverLen)
	case len(r.States) > MaxTargets/4:
		return fmt.Errorf("%w: %d bytes of states, at most %d", ErrReport, len(r.States), MaxTargets/4)
	}
	return nil
}

// AppendBinary appends the wire form of r to b: a version byte, the flags, five
// big-endian 64-bit words (epoch, seq, layout, config, overrides), the observer's
// name after its length in one byte, and the states after their length in four. It
// is the only encoding of r in this version, 47 bytes plus the name plus a quarter
// byte per target. The error wraps ErrReport and b is then returned unchanged.
func (r *Report) AppendBinary(b []byte) ([]byte, error) { return r.AppendVersion(b, ReportVersion) }

// AppendVersion is AppendBinary for a node that reads no newer version than this
// one: version 1 leaves out the overrides and is 8 bytes shorter. A version that
// does not exist is an error.
func (r *Report) AppendVersion(b []byte, version byte) ([]byte, error) {
	if version < OldestReportVersion || version > ReportVersion {
		return b, fmt.Errorf("encode report: %w: version %d, want %d to %d", ErrReport, version, OldestReportVersion, ReportVersion)
	}
	if err := r.check(); err != nil {
		return b, fmt.Errorf("encode report: %w", err)
	}
	b = append(b, version, byte(r.Flags))
	b = binary.BigEndian.AppendUint64(b, r.Epoch)
	b = binary.BigEndian.AppendUint64(b, r.Seq)
	b = binary.BigEndian.AppendUint64(b, r.Layout)
	b = binary.BigEndian.AppendUint64(b, r.Config)
	if version > 1 {
		b = binary.BigEndian.AppendUint64(b, r.Overrides)
	}
	b = append(b, byte(len(r.Observer)))
	b = append(b, r.Observer...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.States)))
	return append(b, r.States...), nil
}

// ParseReport reads what AppendVersion wrote, and nothing else: a length that
// does not fit, an empty name or a byte too many is an error that wraps
// ErrReport, a version of the future a *VersionError. In version 1 Overrides is 0.
// Flags that are not known are kept (the report may be passed on) and make its
// observer abstain. The report keeps no part of b.
func ParseReport(b []byte) (*Report, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("parse report: %w: empty", ErrReport)
	}
	version := b[0]
	if version > ReportVersion {
		return nil, &VersionError{What: "report", Got: version, Want: ReportVersion}
	}
	if version < OldestReportVersion {
		return nil, fmt.Errorf("parse report: %w: version %d does not exist", ErrReport, version)
	}
	head, longest := fixedLen(version), MaxReportLen-reportFixedLen+fixedLen(version)
	if len(b) < head || len(b) > longest {
		return nil, fmt.Errorf("parse report: %w: %d bytes, want %d to %d", ErrReport, len(b), head, longest)
	}
	r := &Report{
		Flags:  Flags(b[1]),
		Epoch:  binary.BigEndian.Uint64(b[2:]),
		Seq:    binary.BigEndian.Uint64(b[10:]),
		Layout: binary.BigEndian.Uint64(b[18:]),
		Config: binary.BigEndian.Uint64(b[26:]),
	}
	if version > 1 {
		r.Overrides = binary.BigEndian.Uint64(b[34:])
	}
	nameLen, rest := int(b[head-5]), b[head-4:]
	if len(rest) < nameLen+4 {
		return nil, fmt.Errorf("parse report: %w: cut off in the observer name", ErrReport)
	}
	r.Observer, rest = string(rest[:nameLen]), rest[nameLen:]
	size, rest := binary.BigEndian.Uint32(rest), rest[4:]
	if uint64(size) != uint64(len(rest)) {
		return nil, fmt.Errorf("parse report: %w: %d bytes of states announced, %d present", ErrReport, size, len(rest))
	}
	r.States = append([]byte(nil), rest...)
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("parse report: %w", err)
	}
	return r, nil
}
