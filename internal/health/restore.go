package health

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"net/netip"
	"time"
)

// The last known good: a view as bytes, so that a node that starts alone in the
// dark has something true-until-lately to answer with.

// Limits of an encoded view.
const (
	// MaxViewLen is the longest encoded view, in bytes.
	MaxViewLen = 256 << 20
	// MaxTargetNameLen is the longest service or site name, or address text, in it.
	MaxTargetNameLen = 255
)

const (
	viewMagic   = "pharos-view"
	viewVersion = 1
	viewHead    = len(viewMagic) + 1 + 4 // magic, version, count
	viewTail    = 4                      // CRC-32C of all before
)

// ErrView is wrapped by every error about bytes that are not an encoded view.
var ErrView = errors.New("damaged view")

// EncodeView returns the up and down verdicts of v, but for what sites state of
// themselves, by target identity, with a checksum. RestoreView reads them. It fails if v has more than MaxTargets
// verdicts or a name longer than MaxTargetNameLen; a nil view has no verdicts.
func EncodeView(v *View) ([]byte, error) {
	b := append([]byte(viewMagic), viewVersion, 0, 0, 0, 0)
	count := 0
	if v != nil && v.Layout != nil {
		for i, t := range v.Layout.Targets[:min(len(v.Layout.Targets), len(v.Verdicts))] {
			verdict := v.Verdicts[i]
			if verdict.Status != StatusUp && verdict.Status != StatusDown || t.Kind.Stated() {
				continue
			}
			addr := t.Addr.String()
			if len(t.Service) > MaxTargetNameLen || len(t.Site) > MaxTargetNameLen || len(addr) > MaxTargetNameLen {
				return nil, fmt.Errorf("encode view: target %.80q: a name is longer than %d bytes", t, MaxTargetNameLen)
			}
			b = append(b, byte(verdict.Status), byte(t.Kind))
			b = binary.BigEndian.AppendUint64(b, uint64(unixNano(verdict.Since)))
			for _, s := range [...]string{t.Service, t.Site, addr} {
				b = append(append(b, byte(len(s))), s...)
			}
			count++
		}
	}
	if count > MaxTargets || len(b) > MaxViewLen-viewTail {
		return nil, fmt.Errorf("encode view: %d verdicts in %d bytes are too many", count, len(b))
	}
	binary.BigEndian.PutUint32(b[viewHead-4:], uint32(count))
	return binary.BigEndian.AppendUint32(b, viewChecksum(b)), nil
}

// RestoreView reads what EncodeView wrote and returns a view of layout in which
// every verdict found is Restored (WhyRestored) and every other is unknown.
// Targets that are not in layout are passed over. A Since in the future, from a
// clock that was wrong, becomes now. Damaged bytes give an error that wraps
// ErrView, a future version a *VersionError; never part of a view.
func RestoreView(b []byte, layout *Layout, now time.Time) (*View, error) {
	if len(b) < viewHead+viewTail || len(b) > MaxViewLen || string(b[:len(viewMagic)]) != viewMagic {
		return nil, fmt.Errorf("restore view: %w: not a saved view", ErrView)
	}
	body, sum := b[:len(b)-viewTail], binary.BigEndian.Uint32(b[len(b)-viewTail:])
	if viewChecksum(body) != sum {
		return nil, fmt.Errorf("restore view: %w: the checksum does not fit", ErrView)
	}
	if got := body[len(viewMagic)]; got != viewVersion {
		return nil, &VersionError{What: "view", Got: got, Want: viewVersion}
	}
	if layout == nil {
		layout = NewLayout(nil)
	}
	view := &View{Layout: layout, Verdicts: make([]Verdict, len(layout.Targets)), At: now}
	for i := range view.Verdicts {
		view.Verdicts[i] = Verdict{Status: StatusUnknown, Why: WhyNeverProbed}
	}
	rest := body[viewHead:]
	for range binary.BigEndian.Uint32(body[viewHead-4:]) {
		t, verdict, after, err := parseVerdict(rest, now)
		if err != nil {
			return nil, fmt.Errorf("restore view: %w: %w", ErrView, err)
		}
		if i, ok := layout.Index(t); ok {
			view.Verdicts[i] = verdict
		}
		rest = after
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("restore view: %w: %d bytes too many", ErrView, len(rest))
	}
	return view, nil
}

// viewChecksum is the CRC-32C of b.
func viewChecksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// parseVerdict reads one target and its verdict off the front of b.
func parseVerdict(b []byte, now time.Time) (t Target, v Verdict, rest []byte, err error) {
	if len(b) < 10 {
		return t, v, nil, errors.New("cut off")
	}
	t.Kind = Kind(b[1])
	v = Verdict{Status: Status(b[0]), Why: WhyRestored, Restored: true}
	if v.Status != StatusUp && v.Status != StatusDown || t.Kind != KindBackend && t.Kind != KindVIP {
		return t, v, nil, fmt.Errorf("status %d of kind %d does not exist", b[0], b[1])
	}
	v.Since = time.Unix(0, int64(binary.BigEndian.Uint64(b[2:])))
	if v.Since.After(now) {
		v.Since = now
	}
	rest = b[10:]
	var names [3]string
	for i := range names {
		if len(rest) == 0 || len(rest)-1 < int(rest[0]) {
			return t, v, nil, errors.New("cut off in a name")
		}
		names[i], rest = string(rest[1:1+int(rest[0])]), rest[1+int(rest[0]):]
	}
	t.Service, t.Site = names[0], names[1]
	t.Addr, err = netip.ParseAddrPort(names[2])
	return t, v, rest, err
}

// unixNano is t in nanoseconds of Unix time, held within what 64 bits can say.
func unixNano(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	default:
		return t.UnixNano()
	}
}
