package l7

import (
	"strings"
	"testing"
)

func TestChars(t *testing.T) {
	const token = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for c := range 256 {
		b := []byte{byte(c)}
		if got, want := isToken(b), c < 128 && strings.Contains(token, string(rune(c))); got != want {
			t.Errorf("token %q: got %v, want %v", b, got, want)
		}
		want := c == '\t' || c >= ' ' && c != 0x7f
		for at := range 20 { // everywhere in the eights and in the rest
			value := []byte(strings.Repeat("\xff", 20))
			value[at] = byte(c)
			if got := isValue(value); got != want {
				t.Errorf("value with %q at %d: got %v, want %v", b, at, got, want)
			}
		}
	}
}
