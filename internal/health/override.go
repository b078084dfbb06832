package health

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of an override; a larger one is neither written nor read.
const (
	// MaxOverrideBy and MaxOverrideReason are the longest texts, in bytes.
	MaxOverrideBy     = 128
	MaxOverrideReason = 256
	// MaxOverrideCounter is the largest counter. Orders that people give come
	// nowhere near it; a forged larger one would leave no room above itself.
	MaxOverrideCounter = 1 << 62
)

// ErrOverride is wrapped by every error about an override that cannot be: bytes
// that are none, texts that are too long, times out of range.
var ErrOverride = errors.New("malformed override")

// An Order is what an override orders. The larger wins among orders of equal
// counter: DRAIN > DOWN > UP > NONE.
type Order uint8

// The orders.
const (
	OrderNone  Order = iota // the scope follows its verdicts (again)
	OrderUp                 // taken as up whatever the checks say
	OrderDown               // taken as down at once; connections are not waited for
	OrderDrain              // no new work, what is there may end
)

// String returns "none", "up", "down" or "drain", and "order(N)" for any other
// value.
func (o Order) String() string {
	switch o {
	case OrderNone:
		return "none"
	case OrderUp:
		return "up"
	case OrderDown:
		return "down"
	case OrderDrain:
		return "drain"
	default:
		return fmt.Sprintf("order(%d)", uint8(o))
	}
}

// ParseOrder reads what String writes.
func ParseOrder(text string) (Order, error) {
	for o := OrderNone; o <= OrderDrain; o++ {
		if o.String() == text {
			return o, nil
		}
	}
	return 0, fmt.Errorf("%q is not an order: write drain, down, up or none", clip(text))
}

// MarshalText implements encoding.TextMarshaler with String.
func (o Order) MarshalText() ([]byte, error) {
	if o > OrderDrain {
		return nil, fmt.Errorf("%w: order %d does not exist", ErrOverride, o)
	}
	return []byte(o.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler with ParseOrder.
func (o *Order) UnmarshalText(text []byte) (err error) {
	*o, err = ParseOrder(string(text))
	return err
}

// An Override is an operator's standing order for one scope: one register,
// written by any node. Registers are comparable once they went through Merge,
// Write or a parser, which bring their times to UTC.
type Override struct {
	Scope Scope
	Order Order
	// Counter is a Lamport clock: the larger wins; then the larger Order, then the
	// larger Writer, then the larger bytes of the encoding. 1 … MaxOverrideCounter.
	Counter uint64
	// Writer is the name of the node that took the order, 1 … MaxObserverLen bytes.
	Writer string
	// By is who gave it, Reason why; both for the record. At most MaxOverrideBy and
	// MaxOverrideReason bytes of UTF-8 that can be printed on one line.
	By, Reason string
	// At is when, by the writer's clock; for the record, never compared.
	At time.Time
	// Until is when it ends, by the clock of the keeper's site; zero = never.
	Until time.Time
	// Keeper is the site whose nodes end it: the scope's own, else the writer's.
	// Write fills in the scope's own; it must be set if Until is.
	Keeper string
}

// Compare is the order in which one register replaces another of the same scope:
// by counter, order, writer, and then by the bytes of the encoding, so that two
// different registers are never equal. Positive: v replaces o. Both must be valid.
func (v Override) Compare(o Override) int {
	if c := cmp.Compare(v.Counter, o.Counter); c != 0 {
		return c
	}
	if c := cmp.Compare(v.Order, o.Order); c != 0 {
		return c
	}
	if c := strings.Compare(v.Writer, o.Writer); c != 0 {
		return c
	}
	return bytes.Compare(v.encode(nil), o.encode(nil))
}

// Ends reports whether the order is in force and its time has passed at now.
func (v Override) Ends(now time.Time) bool {
	return v.Order != OrderNone && !v.Until.IsZero() && !v.Until.After(now)
}

// check returns what forbids v to be encoded.
func (v *Override) check() error {
	if err := v.Scope.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrOverride, err)
	}
	switch {
	case v.Order > OrderDrain:
		return fmt.Errorf("%w: order %d does not exist", ErrOverride, v.Order)
	case v.Counter == 0 || v.Counter > MaxOverrideCounter:
		return fmt.Errorf("%w: counter %d, want 1 to %d", ErrOverride, v.Counter, uint64(MaxOverrideCounter))
	case v.Writer == "":
		return fmt.Errorf("%w: no writer", ErrOverride)
	case v.Keeper != "" && !isLabel(v.Keeper):
		return fmt.Errorf("%w: keeper %q is not a site's name", ErrOverride, clip(v.Keeper))
	case v.Keeper == "" && !v.Until.IsZero():
		return fmt.Errorf("%w: it ends but no site is to end it", ErrOverride)
	case !storable(v.At):
		return fmt.Errorf("%w: its time %s is out of range", ErrOverride, v.At.Format(time.RFC3339))
	case !storable(v.Until):
		return fmt.Errorf("%w: its end %s is out of range", ErrOverride, v.Until.Format(time.RFC3339))
	}
	if err := checkText("writer", v.Writer, MaxObserverLen); err != nil {
		return err
	}
	if err := checkText("by", v.By, MaxOverrideBy); err != nil {
		return err
	}
	return checkText("reason", v.Reason, MaxOverrideReason)
}

// checkText refuses text that would not show as what it is on one line.
func checkText(what, s string, most int) error {
	switch {
	case len(s) > most:
		return fmt.Errorf("%w: %s of %d bytes, at most %d", ErrOverride, what, len(s), most)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: %s is not UTF-8", ErrOverride, what)
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }):
		return fmt.Errorf("%w: %s has a character that cannot be printed: %q", ErrOverride, what, clip(s))
	}
	return nil
}

// storable reports whether t is zero or fits in 64 bits of nanoseconds.
func storable(t time.Time) bool {
	return t.IsZero() || t.Year() >= 1700 && t.Year() <= 2200
}

// nanos is a storable time as it is stored, 0 for the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// fromNanos is the inverse of nanos.
func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// CheckOverrideTexts returns what is wrong with who gives an order and why, before
// the rest of the order is known. The error wraps ErrOverride.
func CheckOverrideTexts(by, reason string) error {
	return errors.Join(checkText("by", by, MaxOverrideBy), checkText("reason", reason, MaxOverrideReason))
}
