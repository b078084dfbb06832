package cluster

import (
	"encoding/binary"
	"fmt"
	"time"
)

// The state that two nodes exchange, of the second wire version: sections, each
// a kind in one byte, a length in 32 bits and a body. Kinds ascend, each once;
// later versions add kinds, which are skipped and counted.
const (
	sectionOverrides = 1 // a list of registers, as in an overrides frame
	sectionReports   = 2 // a 16-bit count and entries after their lengths
	sectionHeaderLen = 1 + 4
)

// appendState appends a state frame: all registers, and as many entries, in
// order, as fit into limit bytes. It says how many did not.
func appendState(b []byte, entries []entry, records []record, limit int) (state []byte, left int) {
	start := len(b)
	b = appendFrameHeader(b, wireNow, kindTable)
	b, body := openSection(b, sectionOverrides)
	b = appendRecords(b, records)
	closeSection(b, body)
	b, body = openSection(b, sectionReports)
	b, left = appendTable(b, wireNow, entries, limit-(len(b)-start))
	closeSection(b, body)
	return b, left
}

// openSection appends the header of a section and returns where its body starts.
func openSection(b []byte, kind byte) (section []byte, body int) {
	b = append(b, kind, 0, 0, 0, 0)
	return b, len(b)
}

// closeSection fills in the length of the section whose body starts there.
func closeSection(b []byte, body int) {
	binary.BigEndian.PutUint32(b[body-4:], uint32(len(b)-body))
}

// parseState reads the sections of a state.
func (f *frame) parseState(b []byte) error {
	last := byte(0)
	for len(b) > 0 {
		if len(b) < sectionHeaderLen {
			return fmt.Errorf("%w: state cut off in a section's header", errFrame)
		}
		kind, size, rest := b[0], binary.BigEndian.Uint32(b[1:]), b[sectionHeaderLen:]
		if uint64(size) > uint64(len(rest)) {
			return fmt.Errorf("%w: state cut off in section %d", errFrame, kind)
		}
		if kind <= last {
			return fmt.Errorf("%w: section %d after section %d", errFrame, kind, last)
		}
		body := rest[:size]
		var err error
		switch kind {
		case sectionOverrides:
			f.overrides, err = parseRecords(body)
		case sectionReports:
			f.entries, err = parseTable(f.wire, body)
		default:
			f.skipped++
		}
		if err != nil {
			return err
		}
		last, b = kind, rest[size:]
	}
	return nil
}

// appendFirstTable appends a table of the first version. If state is not empty
// it comes last, in the place of a report: a node of the first version reads
// the reports and counts one of a later version; one of ours reads the state
// and nothing else.
func appendFirstTable(b []byte, entries []entry, state []byte, limit int) (table []byte, left int) {
	if len(state) > 0 {
		limit -= tableSizeLen + entryHeaderLen + len(state)
	}
	b = appendFrameHeader(b, wireFirst, kindTable)
	counted := len(b)
	b, left = appendTable(b, wireFirst, entries, limit-frameHeaderLen)
	if len(state) == 0 {
		return b, left
	}
	count := binary.BigEndian.Uint16(b[counted:])
	binary.BigEndian.PutUint16(b[counted:], count+1)
	b = binary.BigEndian.AppendUint32(b, uint32(entryHeaderLen+len(state)))
	b = appendEntry(b, wireFirst, entry{report: state})
	return b, left
}

// parseFirstTable reads what appendFirstTable wrote.
func parseFirstTable(b []byte) (frame, error) {
	entries, err := parseTable(wireFirst, b)
	if err != nil {
		return frame{}, err
	}
	if len(entries) > 0 {
		// No report starts like a frame: its first byte is its version.
		last := entries[len(entries)-1].report
		if len(last) > frameHeaderLen && last[0] == frameMagic0 && last[1] == frameMagic1 &&
			last[2] == wireNow && frameKind(last[3]) == kindTable {
			return parseFrame(last)
		}
	}
	return frame{wire: wireFirst, kind: kindTable, entries: entries}, nil
}

// stateFrame returns everything held: our own report first, the oldest left out
// if they are too many. What goes to a newcomer, whose version is not known yet,
// is written so that every version reads it.
func (n *Node) stateFrame(now time.Time, joining bool) []byte {
	n.mu.Lock()
	own := n.own
	n.mu.Unlock()
	var all []held
	if own != nil {
		all = append(all, *own)
	}
	all = append(all, n.table.all(now)...)

	first := n.roster.lowestWire() == wireFirst
	var state, frame []byte
	left := 0
	if !first || joining {
		limit := maxTableBytes
		if joining {
			limit /= 2
		}
		entries := make([]entry, 0, len(all))
		for _, h := range all {
			entries = append(entries, h.entry(now))
		}
		state, left = appendState(nil, entries, n.registers.all(), limit)
		frame = state
	}
	if first || joining {
		entries := make([]entry, 0, len(all))
		for _, h := range all {
			if e, ok := h.firstEntry(now); ok {
				entries = append(entries, e)
			}
		}
		frame, left = appendFirstTable(nil, entries, state, maxTableBytes)
	}
	if left > 0 {
		n.meters.dropped.WithLabelValues(dropTruncated).Add(float64(left))
	}
	n.meters.messages.WithLabelValues("out", kindTable.String()).Inc()
	return frame
}
