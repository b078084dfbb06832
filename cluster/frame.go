package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// The frame that every message and every exchanged state starts with:
//
//	magic "ph"  2 bytes
//	version     1 byte: the wire version, wireFirst or wireNow
//	kind        1 byte
//	body        the rest
//
// A report or news body is an entry; the body of a table of the first version
// is a 16-bit count and that many entries, each after its length in 32 bits.
// state.go has the body of a table of the second version, override_frame.go and
// question_frame.go those of the kinds that the first does not have. An entry
// is an age in milliseconds (32 bits), in the second version a signature after
// its length in one byte, and an encoded health.Report. All numbers are
// big-endian and of fixed width, so that each frame has exactly one encoding
// and its size does not depend on the age.
const (
	frameMagic0    = 'p'
	frameMagic1    = 'h'
	frameHeaderLen = 4
	entryHeaderLen = 4 // of the first version
	sealHeaderLen  = 1 // what the second adds
	tableCountLen  = 2
	tableSizeLen   = 4
)

// frameKind says what a frame carries.
type frameKind uint8

const (
	// kindReport: a report sent by its observer to this node.
	kindReport frameKind = 1
	// kindNews: a report with a changed statement, passed on from node to node.
	kindNews frameKind = 2
	// kindTable: everything a node holds.
	kindTable frameKind = 3
	// kindOverrides: override registers that are new or that we seem to lack.
	kindOverrides frameKind = 4
	// kindQuestion and kindAnswer: see Node.Ask.
	kindQuestion frameKind = 5
	kindAnswer   frameKind = 6
)

// frameKinds lists every kind.
func frameKinds() []frameKind {
	return []frameKind{kindReport, kindNews, kindTable, kindOverrides, kindQuestion, kindAnswer}
}

// String returns the kind as metrics label it.
func (k frameKind) String() string {
	switch k {
	case kindReport:
		return "report"
	case kindNews:
		return "news"
	case kindTable:
		return "table"
	case kindOverrides:
		return "overrides"
	case kindQuestion:
		return "question"
	case kindAnswer:
		return "answer"
	default:
		return "other"
	}
}

// errFrame is wrapped by every error about bytes that are not a frame.
var errFrame = errors.New("malformed frame")

// errFrameVersion is returned for a frame, or a kind of frame, of a newer pharos.
var errFrameVersion = errors.New("frame of another version")

// frame is what parseFrame reads. Its parts alias the bytes it was read from.
type frame struct {
	wire uint8
	kind frameKind
	// entries are the reports; nil if the frame has no place for them.
	entries []entry
	// overrides are the registers; nil if the frame has no place for them.
	overrides []record
	// skipped is how many sections of a later version were not looked into.
	skipped int
	// mail is what a question or answer carries.
	mail mail
}

// entry is one report on the wire. report and seal alias the frame.
type entry struct {
	age    time.Duration // whole milliseconds
	report []byte
	seal   []byte // the observer's signature; empty for none
}

// appendFrameHeader appends what every frame starts with.
func appendFrameHeader(b []byte, wire uint8, kind frameKind) []byte {
	return append(b, frameMagic0, frameMagic1, wire, byte(kind))
}

// appendEntryFrame appends a frame of kind report or news.
func appendEntryFrame(b []byte, wire uint8, kind frameKind, e entry) []byte {
	return appendEntry(appendFrameHeader(b, wire, kind), wire, e)
}

// appendEntry appends e. The first version has no place for its seal.
func appendEntry(b []byte, wire uint8, e entry) []byte {
	b = binary.BigEndian.AppendUint32(b, wireAge(e.age))
	if wire > wireFirst {
		b = append(b, byte(len(e.seal)))
		b = append(b, e.seal...)
	}
	return append(b, e.report...)
}

// size returns the length of e's encoding.
func (e entry) size(wire uint8) int {
	if wire > wireFirst {
		return entryHeaderLen + sealHeaderLen + len(e.seal) + len(e.report)
	}
	return entryHeaderLen + len(e.report)
}

// withAge returns a copy of an entry frame that says another age.
func withAge(frame []byte, age time.Duration) []byte {
	b := append([]byte(nil), frame...)
	binary.BigEndian.PutUint32(b[frameHeaderLen:], wireAge(age))
	return b
}

// appendTable appends as many entries as fit into limit bytes, in order, after
// their count, and says how many did not.
func appendTable(b []byte, wire uint8, entries []entry, limit int) (table []byte, left int) {
	start := len(b)
	b = append(b, 0, 0)
	count := 0
	for _, e := range entries {
		size := e.size(wire)
		if count == math.MaxUint16 || len(b)-start+tableSizeLen+size > limit {
			left++
			continue
		}
		b = binary.BigEndian.AppendUint32(b, uint32(size))
		b = appendEntry(b, wire, e)
		count++
	}
	binary.BigEndian.PutUint16(b[start:], uint16(count))
	return b, left
}

// parseFrame reads one frame to its last byte. Its errors wrap errFrame or
// errFrameVersion. The reports and registers themselves are not looked into.
func parseFrame(b []byte) (frame, error) {
	if len(b) < frameHeaderLen {
		return frame{}, fmt.Errorf("%w: %d bytes", errFrame, len(b))
	}
	if b[0] != frameMagic0 || b[1] != frameMagic1 {
		return frame{}, fmt.Errorf("%w: not a pharos frame", errFrame)
	}
	f := frame{wire: b[2], kind: frameKind(b[3])}
	if f.wire < wireFirst || f.wire > wireNow {
		return frame{}, fmt.Errorf("%w: version %d, this node reads %d to %d", errFrameVersion, f.wire, wireFirst, wireNow)
	}
	body := b[frameHeaderLen:]
	var err error
	switch {
	case f.kind == kindReport || f.kind == kindNews:
		var e entry
		e, err = parseEntry(f.wire, body)
		f.entries = []entry{e}
	case f.kind == kindTable && f.wire == wireFirst:
		return parseFirstTable(body)
	case f.wire == wireFirst:
		err = fmt.Errorf("%w: kind %d", errFrameVersion, f.kind)
	case f.kind == kindTable:
		err = f.parseState(body)
	case f.kind == kindOverrides:
		f.overrides, err = parseRecords(body)
	case f.kind == kindQuestion || f.kind == kindAnswer:
		f.mail, err = parseMail(body)
	default:
		err = fmt.Errorf("%w: kind %d", errFrameVersion, f.kind)
	}
	if err != nil {
		return frame{}, err
	}
	return f, nil
}

func parseTable(wire uint8, b []byte) ([]entry, error) {
	if len(b) < tableCountLen {
		return nil, fmt.Errorf("%w: table cut off in its count", errFrame)
	}
	count, b := int(binary.BigEndian.Uint16(b)), b[tableCountLen:]
	// A count cannot make us allocate more than the bytes that are there allow.
	if count > len(b)/(tableSizeLen+entryHeaderLen) {
		return nil, fmt.Errorf("%w: table of %d reports in %d bytes", errFrame, count, len(b))
	}
	entries := make([]entry, 0, count)
	for range count {
		if len(b) < tableSizeLen {
			return nil, fmt.Errorf("%w: table cut off", errFrame)
		}
		size, rest := binary.BigEndian.Uint32(b), b[tableSizeLen:]
		if uint64(size) > uint64(len(rest)) {
			return nil, fmt.Errorf("%w: table cut off in a report", errFrame)
		}
		e, err := parseEntry(wire, rest[:size])
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
		b = rest[size:]
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%w: %d bytes after the table", errFrame, len(b))
	}
	return entries, nil
}

func parseEntry(wire uint8, b []byte) (entry, error) {
	if len(b) < entryHeaderLen {
		return entry{}, fmt.Errorf("%w: report cut off in its age", errFrame)
	}
	e := entry{age: time.Duration(binary.BigEndian.Uint32(b)) * time.Millisecond, report: b[entryHeaderLen:]}
	if wire == wireFirst {
		return e, nil
	}
	var err error
	e.seal, e.report, err = cutSeal(e.report)
	return e, err
}

// wireAge rounds up to milliseconds, so that no hop makes a report younger, and
// stops at the largest number there is (49 days).
func wireAge(age time.Duration) uint32 {
	ms := (max(age, 0) + time.Millisecond - 1) / time.Millisecond
	return uint32(min(ms, math.MaxUint32))
}
