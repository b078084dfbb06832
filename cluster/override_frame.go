package cluster

import (
	"encoding/binary"
	"fmt"

	"github.com/pharos-lb/pharos/internal/health"
)

// A list of override registers is a 16-bit count and that many records, each
// after its length in 16 bits. A record is a signature after its length in one
// byte, and an encoded health.Override.
const (
	recordsCountLen = 2
	recordSizeLen   = 2
	// maxRecordLen is the longest record.
	maxRecordLen = sealHeaderLen + sealLen + health.MaxOverrideLen
	// maxOverridesFrame is the longest frame with registers.
	maxOverridesFrame = frameHeaderLen + recordsCountLen + health.MaxOverrides*(recordSizeLen+maxRecordLen)
)

// record is one override register on the wire.
type record struct {
	override []byte
	seal     []byte // its writer's signature or that of a node that holds it; empty for none
}

// size returns the length of r with what precedes it in a list.
func (r record) size() int { return recordSizeLen + sealHeaderLen + len(r.seal) + len(r.override) }

// appendRecords appends a list.
func appendRecords(b []byte, records []record) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(records)))
	for _, r := range records {
		b = binary.BigEndian.AppendUint16(b, uint16(r.size()-recordSizeLen))
		b = append(b, byte(len(r.seal)))
		b = append(b, r.seal...)
		b = append(b, r.override...)
	}
	return b
}

// appendOverridesFrame appends a frame with registers.
func appendOverridesFrame(b []byte, records []record) []byte {
	return appendRecords(appendFrameHeader(b, wireNow, kindOverrides), records)
}

// parseRecords reads a list to its last byte. The registers are not looked into.
func parseRecords(b []byte) ([]record, error) {
	if len(b) < recordsCountLen {
		return nil, fmt.Errorf("%w: overrides cut off in their count", errFrame)
	}
	count, b := int(binary.BigEndian.Uint16(b)), b[recordsCountLen:]
	if count > health.MaxOverrides || count > len(b)/(recordSizeLen+sealHeaderLen) {
		return nil, fmt.Errorf("%w: %d overrides in %d bytes, at most %d", errFrame, count, len(b), health.MaxOverrides)
	}
	records := make([]record, 0, count)
	for range count {
		if len(b) < recordSizeLen || len(b)-recordSizeLen < int(binary.BigEndian.Uint16(b)) {
			return nil, fmt.Errorf("%w: overrides cut off", errFrame)
		}
		end := recordSizeLen + int(binary.BigEndian.Uint16(b))
		seal, override, err := cutSeal(b[recordSizeLen:end])
		if err != nil {
			return nil, err
		}
		records = append(records, record{override: override, seal: seal})
		b = b[end:]
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%w: %d bytes after the overrides", errFrame, len(b))
	}
	return records, nil
}
