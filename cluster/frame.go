package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// The frame that every message and every exchanged table starts with:
//
//	magic "ph"  2 bytes
//	version     1 byte, frameVersion
//	kind        1 byte
//	body        the rest
//
// A report or news body is an entry; a table body is a 16-bit count and that
// many entries, each after its length in 32 bits. An entry is an age in
// milliseconds (32 bits) and an encoded health.Report. All numbers are
// big-endian and of fixed width, so that each frame has exactly one encoding
// and its size does not depend on the age.
const (
	frameMagic0    = 'p'
	frameMagic1    = 'h'
	frameVersion   = 1
	frameHeaderLen = 4
	entryHeaderLen = 4
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
	// kindTable: every report a node holds.
	kindTable frameKind = 3
)

// String returns the kind as metrics label it.
func (k frameKind) String() string {
	switch k {
	case kindReport:
		return "report"
	case kindNews:
		return "news"
	case kindTable:
		return "table"
	default:
		return "other"
	}
}

// errFrame is wrapped by every error about bytes that are not a frame.
var errFrame = errors.New("malformed frame")

// errFrameVersion is returned for a frame, or a kind of frame, of a newer pharos.
var errFrameVersion = errors.New("frame of another version")

// entry is one report on the wire. report aliases the frame it was parsed from.
type entry struct {
	age    time.Duration // whole milliseconds
	report []byte
}

// appendEntryFrame appends a frame of kind report or news.
func appendEntryFrame(b []byte, kind frameKind, age time.Duration, report []byte) []byte {
	b = append(b, frameMagic0, frameMagic1, frameVersion, byte(kind))
	b = binary.BigEndian.AppendUint32(b, wireAge(age))
	return append(b, report...)
}

// withAge returns a copy of an entry frame that says another age.
func withAge(frame []byte, age time.Duration) []byte {
	b := append([]byte(nil), frame...)
	binary.BigEndian.PutUint32(b[frameHeaderLen:], wireAge(age))
	return b
}

// appendTableFrame appends a table of as many entries as fit into limit bytes,
// in order, and says how many did not.
func appendTableFrame(b []byte, entries []entry, limit int) (frame []byte, left int) {
	start := len(b)
	b = append(b, frameMagic0, frameMagic1, frameVersion, byte(kindTable), 0, 0)
	count := 0
	for _, e := range entries {
		size := entryHeaderLen + len(e.report)
		if count == math.MaxUint16 || len(b)-start+tableSizeLen+size > limit {
			left++
			continue
		}
		b = binary.BigEndian.AppendUint32(b, uint32(size))
		b = binary.BigEndian.AppendUint32(b, wireAge(e.age))
		b = append(b, e.report...)
		count++
	}
	binary.BigEndian.PutUint16(b[start+frameHeaderLen:], uint16(count))
	return b, left
}

// parseFrame reads one frame to its last byte. Its errors wrap errFrame or
// errFrameVersion. The reports themselves are not looked into.
func parseFrame(b []byte) (frameKind, []entry, error) {
	if len(b) < frameHeaderLen {
		return 0, nil, fmt.Errorf("%w: %d bytes", errFrame, len(b))
	}
	if b[0] != frameMagic0 || b[1] != frameMagic1 {
		return 0, nil, fmt.Errorf("%w: not a pharos frame", errFrame)
	}
	if b[2] != frameVersion {
		return 0, nil, fmt.Errorf("%w: version %d, this node reads %d", errFrameVersion, b[2], frameVersion)
	}
	kind, body := frameKind(b[3]), b[frameHeaderLen:]
	switch kind {
	case kindReport, kindNews:
		e, err := parseEntry(body)
		if err != nil {
			return 0, nil, err
		}
		return kind, []entry{e}, nil
	case kindTable:
		entries, err := parseTable(body)
		if err != nil {
			return 0, nil, err
		}
		return kind, entries, nil
	default:
		return 0, nil, fmt.Errorf("%w: kind %d", errFrameVersion, kind)
	}
}

func parseTable(b []byte) ([]entry, error) {
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
		e, err := parseEntry(rest[:size])
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

func parseEntry(b []byte) (entry, error) {
	if len(b) < entryHeaderLen {
		return entry{}, fmt.Errorf("%w: report cut off in its age", errFrame)
	}
	age := time.Duration(binary.BigEndian.Uint32(b)) * time.Millisecond
	return entry{age: age, report: b[entryHeaderLen:]}, nil
}

// wireAge rounds up to milliseconds, so that no hop makes a report younger, and
// stops at the largest number there is (49 days).
func wireAge(age time.Duration) uint32 {
	ms := (max(age, 0) + time.Millisecond - 1) / time.Millisecond
	return uint32(min(ms, math.MaxUint32))
}
