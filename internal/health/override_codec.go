package health

import (
	"encoding/binary"
	"fmt"
)

const (
	overrideVersion = 1
	// overrideFixedLen is version, order, counter, at, until and the lengths of five texts.
	overrideFixedLen = 1 + 1 + 3*8 + 5*2
	// MaxOverrideLen is the longest encoded override, in bytes.
	MaxOverrideLen = overrideFixedLen + maxScopeLen + MaxObserverLen + MaxOverrideBy + MaxOverrideReason + 63

	overridesMagic   = "pharos-overrides"
	overridesVersion = 1
	overridesHead    = len(overridesMagic) + 1 + 4 // magic, version, count
	overridesTail    = 4                           // CRC-32C of all before
	// MaxOverridesLen is the longest encoded list of overrides, in bytes.
	MaxOverridesLen = overridesHead + MaxOverrides*(2+MaxOverrideLen) + overridesTail
)

// AppendBinary appends the wire form of v to b: a version byte, the order, three
// big-endian 64-bit words (counter, and at and until in nanoseconds of Unix time,
// 0 for none), and the scope, writer, by, reason and keeper, each after its length
// in two bytes. It is the only encoding of v. The error wraps ErrOverride and b
// is then returned unchanged.
func (v Override) AppendBinary(b []byte) ([]byte, error) {
	if err := v.check(); err != nil {
		return b, fmt.Errorf("encode override: %w", err)
	}
	return v.encode(b), nil
}

// encode is AppendBinary of a valid override.
func (v *Override) encode(b []byte) []byte {
	b = append(b, overrideVersion, byte(v.Order))
	b = binary.BigEndian.AppendUint64(b, v.Counter)
	b = binary.BigEndian.AppendUint64(b, uint64(nanos(v.At)))
	b = binary.BigEndian.AppendUint64(b, uint64(nanos(v.Until)))
	for _, s := range [...]string{v.Scope.String(), v.Writer, v.By, v.Reason, v.Keeper} {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	return b
}

// ParseOverride reads what AppendBinary wrote, and nothing else: anything that
// has another encoding, a text too long or a byte too many is an error that wraps
// ErrOverride, a version of the future a *VersionError. The override keeps no
// part of b.
func ParseOverride(b []byte) (Override, error) {
	switch {
	case len(b) == 0:
		return Override{}, fmt.Errorf("parse override: %w: empty", ErrOverride)
	case b[0] > overrideVersion:
		return Override{}, &VersionError{What: "override", Got: b[0], Want: overrideVersion}
	case b[0] != overrideVersion:
		return Override{}, fmt.Errorf("parse override: %w: version %d does not exist", ErrOverride, b[0])
	case len(b) < overrideFixedLen || len(b) > MaxOverrideLen:
		return Override{}, fmt.Errorf("parse override: %w: %d bytes, want %d to %d", ErrOverride, len(b), overrideFixedLen, MaxOverrideLen)
	}
	v := Override{
		Order:   Order(b[1]),
		Counter: binary.BigEndian.Uint64(b[2:]),
		At:      fromNanos(int64(binary.BigEndian.Uint64(b[10:]))),
		Until:   fromNanos(int64(binary.BigEndian.Uint64(b[18:]))),
	}
	rest := b[26:]
	var scope string
	for _, into := range [...]*string{&scope, &v.Writer, &v.By, &v.Reason, &v.Keeper} {
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return Override{}, fmt.Errorf("parse override: %w: cut off in a text", ErrOverride)
		}
		n := 2 + int(binary.BigEndian.Uint16(rest))
		*into, rest = string(rest[2:n]), rest[n:]
	}
	if len(rest) != 0 {
		return Override{}, fmt.Errorf("parse override: %w: %d bytes too many", ErrOverride, len(rest))
	}
	var err error
	if v.Scope, err = ParseScope(scope); err != nil {
		return Override{}, fmt.Errorf("parse override: %w: %w", ErrOverride, err)
	}
	if v.Scope.String() != scope {
		return Override{}, fmt.Errorf("parse override: %w: scope %q is not in its plain form, %q", ErrOverride, clip(scope), v.Scope)
	}
	if err := v.check(); err != nil {
		return Override{}, fmt.Errorf("parse override: %w", err)
	}
	return v, nil
}

// EncodeOverrides returns a list of overrides, as All gives it, with a checksum,
// for a file. ParseOverrides reads it. It fails with an error that wraps
// ErrOverride if there are more than MaxOverrides, if one is not valid, or if
// they are not sorted by scope, each once.
func EncodeOverrides(list []Override) ([]byte, error) {
	if len(list) > MaxOverrides {
		return nil, fmt.Errorf("encode overrides: %w: %d of them, at most %d", ErrOverride, len(list), MaxOverrides)
	}
	b := append([]byte(overridesMagic), overridesVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
	for i, v := range list {
		if i > 0 && list[i-1].Scope.Compare(v.Scope) >= 0 {
			return nil, fmt.Errorf("encode overrides: %w: %s is out of order or there twice", ErrOverride, v.Scope)
		}
		at := len(b)
		next, err := v.AppendBinary(append(b, 0, 0))
		if err != nil {
			return nil, fmt.Errorf("encode overrides: %w", err)
		}
		b = next
		binary.BigEndian.PutUint16(b[at:], uint16(len(b)-at-2))
	}
	return binary.BigEndian.AppendUint32(b, viewChecksum(b)), nil
}

// ParseOverrides reads what EncodeOverrides wrote: all of it, or nothing and an
// error that wraps ErrOverride, or a *VersionError for a future version of the
// list or of an override in it. The overrides keep no part of b.
func ParseOverrides(b []byte) ([]Override, error) {
	if len(b) < overridesHead+overridesTail || len(b) > MaxOverridesLen || string(b[:len(overridesMagic)]) != overridesMagic {
		return nil, fmt.Errorf("parse overrides: %w: not a saved list", ErrOverride)
	}
	body, sum := b[:len(b)-overridesTail], binary.BigEndian.Uint32(b[len(b)-overridesTail:])
	if viewChecksum(body) != sum {
		return nil, fmt.Errorf("parse overrides: %w: the checksum does not fit", ErrOverride)
	}
	if got := body[len(overridesMagic)]; got > overridesVersion {
		return nil, &VersionError{What: "overrides", Got: got, Want: overridesVersion}
	} else if got != overridesVersion {
		return nil, fmt.Errorf("parse overrides: %w: version %d does not exist", ErrOverride, got)
	}
	count, rest := binary.BigEndian.Uint32(body[overridesHead-4:]), body[overridesHead:]
	if count > MaxOverrides {
		return nil, fmt.Errorf("parse overrides: %w: %d of them, at most %d", ErrOverride, count, MaxOverrides)
	}
	var list []Override
	for i := range count {
		v, after, err := takeOverride(rest)
		if err != nil {
			return nil, fmt.Errorf("parse overrides: number %d: %w", i+1, err)
		}
		if i > 0 && list[i-1].Scope.Compare(v.Scope) >= 0 {
			return nil, fmt.Errorf("parse overrides: %w: %s is out of order or there twice", ErrOverride, v.Scope)
		}
		list, rest = append(list, v), after
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("parse overrides: %w: %d bytes too many", ErrOverride, len(rest))
	}
	return list, nil
}

// takeOverride reads one override after its length off the front of b.
func takeOverride(b []byte) (v Override, rest []byte, err error) {
	if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
		return v, nil, fmt.Errorf("%w: cut off", ErrOverride)
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	v, err = ParseOverride(b[2:n])
	return v, b[n:], err
}
