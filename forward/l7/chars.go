package l7

import "encoding/binary"

// Sets of ASCII characters as two words of bits, so that a test is a shift.
const (
	digits = 1<<'0' | 1<<'1' | 1<<'2' | 1<<'3' | 1<<'4' | 1<<'5' | 1<<'6' | 1<<'7' | 1<<'8' | 1<<'9'
	upper  = (1<<26 - 1) << ('A' - 64)
	lower  = (1<<26 - 1) << ('a' - 64)

	// RFC 9110, 5.6.2: tchar.
	tokenLow = digits | 1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'.'
	// The high word starts at '@' (64).
	tokenHigh = upper | lower | 1<<('^'-64) | 1<<('_'-64) | 1<<('`'-64) | 1<<('|'-64) | 1<<('~'-64)

	// Host names, IPv4 addresses and what people put in names.
	hostLow  = digits | 1<<'-' | 1<<'.'
	hostHigh = upper | lower | 1<<('_'-64) | 1<<('~'-64)
)

func in(c byte, low, high uint64) bool {
	if c < 64 {
		return low>>c&1 != 0
	}
	return c < 128 && high>>(c-64)&1 != 0
}

func isToken(b []byte) bool {
	for _, c := range b {
		if !in(c, tokenLow, tokenHigh) {
			return false
		}
	}
	return len(b) > 0
}

// isValue reports whether b can be a field value: no control characters but tab.
func isValue(b []byte) bool {
	for len(b) >= 8 {
		// Eight at a time: is a byte below 0x20, or 0x7f? The high bit of each byte
		// tells. A tab looks like the others and takes the slow way.
		const ones, high = 0x0101010101010101, 0x8080808080808080
		x := binary.LittleEndian.Uint64(b)
		del := x ^ 0x7f*ones
		if ((x-0x20*ones)&^x|(del-ones)&^del)&high != 0 && !isValueSlow(b[:8]) {
			return false
		}
		b = b[8:]
	}
	return isValueSlow(b)
}

func isValueSlow(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// is reports whether b, made of token characters, equals word but for case.
// word is in lower case.
func is(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != word[i] {
			return false
		}
	}
	return true
}

// equalFold reports whether two tokens are equal but for case.
func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lowered(a[i]) != lowered(b[i]) {
			return false
		}
	}
	return true
}

func lowered(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// hexValue returns the value of a hexadecimal digit, −1 if it is none.
func hexValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	default:
		return -1
	}
}

// trim cuts spaces and tabs off both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// listItem cuts the first element off a comma-separated list.
func listItem(list []byte) (item, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return trim(list[:i]), list[i+1:]
		}
	}
	return trim(list), nil
}
