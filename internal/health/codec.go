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

// reportVersion is the first byte of every encoded report.
const reportVersion = 1

// reportFixedLen is the size of everything but the name and the states:
// version, flags, epoch, seq, layout, config, name length, states length.
const reportFixedLen = 1 + 1 + 4*8 + 1 + 4

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

// AppendBinary appends the wire form of r to b: a version byte, the flags, four
// big-endian 64-bit words (epoch, seq, layout, config), the observer's name
// after its length in one byte, and the states after their length in four. It
// is the only encoding of r, 39 bytes plus the name plus a quarter byte per
// target. The error wraps ErrReport and b is then returned unchanged.
func (r *Report) AppendBinary(b []byte) ([]byte, error) {
	if err := r.check(); err != nil {
		return b, fmt.Errorf("encode report: %w", err)
	}
	b = append(b, reportVersion, byte(r.Flags))
	b = binary.BigEndian.AppendUint64(b, r.Epoch)
	b = binary.BigEndian.AppendUint64(b, r.Seq)
	b = binary.BigEndian.AppendUint64(b, r.Layout)
	b = binary.BigEndian.AppendUint64(b, r.Config)
	b = append(b, byte(len(r.Observer)))
	b = append(b, r.Observer...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.States)))
	return append(b, r.States...), nil
}

// ParseReport reads what AppendBinary wrote, and nothing else: a length that
// does not fit, an empty name or a byte too many is an error that wraps
// ErrReport, a version of the future a *VersionError. Flags that are not known
// are kept (the report may be passed on) and make its observer abstain. The
// report keeps no part of b.
func ParseReport(b []byte) (*Report, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("parse report: %w: empty", ErrReport)
	}
	if b[0] > reportVersion {
		return nil, &VersionError{What: "report", Got: b[0], Want: reportVersion}
	}
	if b[0] != reportVersion {
		return nil, fmt.Errorf("parse report: %w: version %d does not exist", ErrReport, b[0])
	}
	if len(b) < reportFixedLen || len(b) > MaxReportLen {
		return nil, fmt.Errorf("parse report: %w: %d bytes, want %d to %d", ErrReport, len(b), reportFixedLen, MaxReportLen)
	}
	r := &Report{
		Flags:  Flags(b[1]),
		Epoch:  binary.BigEndian.Uint64(b[2:]),
		Seq:    binary.BigEndian.Uint64(b[10:]),
		Layout: binary.BigEndian.Uint64(b[18:]),
		Config: binary.BigEndian.Uint64(b[26:]),
	}
	nameLen, rest := int(b[34]), b[35:]
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
