// Package ranges is the format of the embedded country table: for IPv4 and for
// the upper halves of IPv6 addresses, sorted starts of ranges with a country
// each, in about one byte per range.
//
// It is only for package geo, which reads it, and for its generator, which
// writes it. It does no I/O. The same Table always encodes to the same bytes.
//
// Layout: a magic word; the build time, the number of codes and of ranges of
// each family as varints; the codes, two letters each; then one zstd frame with
// three columns per family: how many low bits of a range's length are zero, the
// rest of the length as a varint, and the number of its country.
package ranges

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/klauspost/compress/zstd"
)

// A Table is two lists of ranges. The first range of a list starts at 0, each
// ends where the next starts, the last at the end of the address space. A list
// has at least one range.
type Table struct {
	// Built is a Unix time in seconds.
	Built int64
	// Codes are countries, two letters each; values are indices into Codes plus 1,
	// and 0 is "unknown".
	Codes []string
	// V4 starts are IPv4 addresses.
	V4       []uint32
	V4Values []uint16
	// V6 starts are the upper 64 bits of IPv6 addresses.
	V6       []uint64
	V6Values []uint16
}

const (
	magic = "pharos geo 1\n"
	// MaxRanges bounds what Decode allocates.
	MaxRanges = 8 << 20
	maxCodes  = 26 * 26
	// A range takes at most a shift byte, a ten-byte varint and a two-byte value.
	maxColumns = 2 * MaxRanges * 13
)

// Encode returns the table's bytes.
func Encode(t *Table) ([]byte, error) {
	if len(t.Codes) > maxCodes || len(t.V4) > MaxRanges || len(t.V6) > MaxRanges {
		return nil, errors.New("encode ranges: too many codes or ranges")
	}
	wide := make([]uint64, len(t.V4))
	for i, start := range t.V4 {
		wide[i] = uint64(start)
	}
	columns, err := appendColumns(nil, wide, t.V4Values, len(t.Codes))
	if err != nil {
		return nil, fmt.Errorf("encode ranges: IPv4: %w", err)
	}
	columns, err = appendColumns(columns, t.V6, t.V6Values, len(t.Codes))
	if err != nil {
		return nil, fmt.Errorf("encode ranges: IPv6: %w", err)
	}
	out := []byte(magic)
	out = binary.AppendVarint(out, t.Built)
	out = binary.AppendUvarint(out, uint64(len(t.Codes)))
	out = binary.AppendUvarint(out, uint64(len(t.V4)))
	out = binary.AppendUvarint(out, uint64(len(t.V6)))
	for _, code := range t.Codes {
		if len(code) != 2 {
			return nil, fmt.Errorf("encode ranges: code %q is not two letters", code)
		}
		out = append(out, code...)
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression),
		zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(zstd.MaxWindowSize>>6))
	if err != nil {
		return nil, fmt.Errorf("encode ranges: %w", err)
	}
	defer encoder.Close()
	return encoder.EncodeAll(columns, out), nil
}

func appendColumns(out []byte, starts []uint64, values []uint16, codes int) ([]byte, error) {
	if len(starts) == 0 || len(starts) != len(values) || starts[0] != 0 {
		return nil, errors.New("the first range must start at 0, and each needs a value")
	}
	var rests []byte
	for i := 1; i < len(starts); i++ {
		if starts[i] <= starts[i-1] {
			return nil, fmt.Errorf("range %d does not start after the one before", i)
		}
		length := starts[i] - starts[i-1]
		shift := bits.TrailingZeros64(length)
		out = append(out, byte(shift))
		rests = binary.AppendUvarint(rests, length>>shift>>1) // the lowest bit left is always 1
	}
	out = append(out, rests...)
	for _, value := range values {
		if int(value) > codes {
			return nil, fmt.Errorf("value %d has no code", value)
		}
		out = binary.AppendUvarint(out, uint64(value))
	}
	return out, nil
}

// Decode reads what Encode wrote. It refuses anything that is not a valid
// Table, and allocates no more than MaxRanges allow.
func Decode(data []byte) (*Table, error) {
	if len(data) < len(magic) || string(data[:len(magic)]) != magic {
		return nil, errors.New("decode ranges: not a range table")
	}
	r := reader{data: data[len(magic):]}
	t := &Table{Built: r.varint()}
	codes, n4, n6 := r.uvarint(), r.uvarint(), r.uvarint()
	if r.short || codes > maxCodes || n4 == 0 || n6 == 0 || n4 > MaxRanges || n6 > MaxRanges {
		return nil, errors.New("decode ranges: invalid header")
	}
	for range codes {
		t.Codes = append(t.Codes, string(r.take(2)))
	}
	if r.short {
		return nil, errors.New("decode ranges: cut off within the codes")
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxColumns))
	if err != nil {
		return nil, fmt.Errorf("decode ranges: %w", err)
	}
	defer decoder.Close()
	columns, err := decoder.DecodeAll(r.data, nil)
	if err != nil {
		return nil, fmt.Errorf("decode ranges: %w", err)
	}
	if uint64(len(columns)) < 3*(n4+n6)-4 {
		return nil, errors.New("decode ranges: cut off")
	}
	r = reader{data: columns}
	if t.V4, t.V4Values, err = readColumns[uint32](&r, int(n4), codes); err != nil {
		return nil, fmt.Errorf("decode ranges: IPv4: %w", err)
	}
	if t.V6, t.V6Values, err = readColumns[uint64](&r, int(n6), codes); err != nil {
		return nil, fmt.Errorf("decode ranges: IPv6: %w", err)
	}
	if len(r.data) > 0 {
		return nil, errors.New("decode ranges: more data than ranges")
	}
	return t, nil
}

func readColumns[T uint32 | uint64](r *reader, n int, codes uint64) ([]T, []uint16, error) {
	limit := uint64(^T(0))
	shifts := r.take(n - 1)
	starts, values := make([]T, n), make([]uint16, n)
	at := uint64(0)
	for i, shift := range shifts {
		rest := r.uvarint()
		if shift > 63 || rest > 1<<62 || bits.Len64(rest<<1|1)+int(shift) > 64 {
			return nil, nil, fmt.Errorf("range %d is too long", i)
		}
		next, carry := bits.Add64(at, (rest<<1|1)<<shift, 0)
		if carry != 0 || next > limit {
			return nil, nil, fmt.Errorf("range %d ends outside the address space", i)
		}
		at = next
		starts[i+1] = T(at)
	}
	for i := range values {
		value := r.uvarint()
		if value > codes {
			return nil, nil, fmt.Errorf("value %d has no code", value)
		}
		values[i] = uint16(value)
	}
	if r.short {
		return nil, nil, errors.New("cut off")
	}
	return starts, values, nil
}

// A reader takes values from bytes; short says that there were too few.
type reader struct {
	data  []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.data) {
		r.short, r.data = true, nil
		return nil
	}
	out := r.data[:n]
	r.data = r.data[n:]
	return out
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 {
		r.short, r.data = true, nil
		return 0
	}
	r.data = r.data[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.data)
	if n <= 0 {
		r.short, r.data = true, nil
		return 0
	}
	r.data = r.data[n:]
	return v
}
