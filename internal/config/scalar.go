package config

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// text is any scalar of 1 … most bytes without control characters.
func text(noun string, most int) *scalar {
	return &scalar{noun: noun, kind: kindAny, read: func(s string) (any, *problem) {
		switch {
		case s == "":
			return nil, refuse("is empty: write %s", noun)
		case len(s) > most:
			return nil, refuse("is %d bytes long: %s has at most %d", len(s), noun, most)
		case strings.ContainsFunc(s, isControl):
			return nil, refuse("has a control character in it")
		}
		return s, nil
	}}
}

// longText is any text, with line breaks, of up to maxFile bytes; it may be empty.
func longText(noun string) *scalar {
	return &scalar{noun: noun, kind: kindString, read: func(s string) (any, *problem) {
		return s, nil
	}}
}

// fileName is the name of a file, relative to the folder of the config.
func fileName(noun string, most int) *scalar {
	s := text(noun, most)
	s.kind = kindString
	return s
}

func secret(noun string) *scalar {
	return &scalar{noun: noun, kind: kindString, secret: true, example: "${PHAROS_SECRET}", pattern: envPattern}
}

// label is a name that the operator gives to a thing: short, lower case, safe in
// a metric's label, a URL and a file name.
func label(noun string) *scalar {
	return &scalar{
		noun: noun, kind: kindString, pattern: `^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`,
		read: func(s string) (any, *problem) {
			if isLabel(s) {
				return s, nil
			}
			p := refuse("%q is not %s: 1 to 63 lower-case letters, digits and hyphens, beginning with a letter", clip(s), noun)
			if lower := strings.ToLower(strings.ReplaceAll(s, "_", "-")); lower != s && isLabel(lower) {
				p.try(lower)
			}
			return nil, p
		},
	}
}

func isLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[len(s)-1] == '-' {
		return false
	}
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return true
}

// siteName, serviceName and networkName are references to what the file defines.
func siteName() *scalar    { return labelOf("a site", refSite) }
func serviceName() *scalar { return labelOf("a service", refService) }

func labelOf(noun string, ref reference) *scalar {
	s := label(noun)
	s.ref = ref
	return s
}

// enum is one of a few words.
func enum(noun string, words ...string) *scalar {
	return &scalar{
		noun: noun, kind: kindString, enum: words,
		read: func(s string) (any, *problem) {
			if slices.Contains(words, s) {
				return s, nil
			}
			return nil, refuse("%q is not %s: write %s", clip(s), noun, either(words)).
				try(nearest(s, slices.Values(words)))
		},
	}
}

// integer is a whole number in decimal. what names it in messages.
func integer(what string, least, most int) *scalar {
	return &scalar{
		noun: "a whole number", kind: kindInteger, least: float64(least), most: float64(most),
		read: func(s string) (any, *problem) {
			n, err := strconv.Atoi(s)
			if err != nil || strconv.Itoa(n) != s {
				return nil, refuse("%q is not a whole number: %s is from %d to %d", clip(s), what, least, most)
			}
			if n < least || n > most {
				return nil, refuse("%d is out of range: %s is from %d to %d", n, what, least, most)
			}
			return n, nil
		},
	}
}

// number32 is a whole number of 32 bits.
func number32(what string, least uint32) *scalar {
	const most = 1<<32 - 1
	return &scalar{
		noun: "a whole number", kind: kindInteger, least: float64(least), most: most,
		read: func(s string) (any, *problem) {
			n, err := strconv.ParseUint(s, 10, 32)
			if err != nil || n < uint64(least) || strconv.FormatUint(n, 10) != s {
				return nil, refuse("%q is out of range: %s is a whole number from %d to %d", clip(s), what, least, uint32(most))
			}
			return uint32(n), nil
		},
	}
}

// publicKey is an Ed25519 key.
func publicKey() *scalar {
	return &scalar{noun: "a public key", kind: kindString, pattern: `^[A-Za-z0-9+/]{43}=$`, read: func(s string) (any, *problem) {
		key, err := base64.StdEncoding.Strict().DecodeString(s)
		switch {
		case err != nil || strings.ContainsAny(s, "\r\n"):
			return nil, refuse("%q is not a public key: 32 bytes in base64", clip(s))
		case len(key) != 32:
			return nil, refuse("is a key of %d bytes: Ed25519 has public keys of 32", len(key))
		}
		return key, nil
	}}
}

func port() *scalar { return integer("a port", 1, 65535) }

// number is a decimal fraction. what names it in messages.
func number(what string, least, most float64) *scalar {
	return &scalar{
		noun: "a number", kind: kindNumber, least: least, most: most,
		read: func(s string) (any, *problem) {
			f, err := strconv.ParseFloat(s, 64)
			if err != nil || math.IsNaN(f) || strings.ContainsAny(s, "xXpP_iI") {
				return nil, refuse("%q is not a number: %s is from %g to %g", clip(s), what, least, most)
			}
			if f < least || f > most {
				return nil, refuse("%s is out of range: %s is from %g to %g", clip(s), what, least, most)
			}
			return f, nil
		},
	}
}

// boolean is true or false.
func boolean() *scalar {
	return &scalar{noun: "true or false", kind: kindBoolean, read: func(s string) (any, *problem) {
		switch s {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, refuse("%q is not true or false", clip(s))
	}}
}

// duration is a length of time with its unit, in whole multiples of step.
// what names it in messages.
func duration(what string, least, most, step time.Duration) *scalar {
	return &scalar{
		noun: "a duration", kind: kindString, example: "2s",
		pattern: `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`,
		read: func(s string) (any, *problem) {
			if _, err := strconv.ParseFloat(s, 64); err == nil {
				return nil, refuse("%q has no unit: write %ss for seconds or %sms for milliseconds", clip(s), clip(s), clip(s))
			}
			if days, err := strconv.ParseUint(strings.TrimSuffix(s, "d"), 10, 16); err == nil {
				return nil, refuse("%q is in days: write hours", clip(s)).try(fmt.Sprintf("%dh", 24*days))
			}
			d, err := time.ParseDuration(s)
			if err != nil || strings.ContainsAny(s, "+-nuµμ") || !wholeNumbers(s) {
				return nil, refuse("%q is not a duration: write a number and a unit, like 500ms, 2s, 5m or 1h", clip(s))
			}
			if d < least || d > most {
				return nil, refuse("%s is out of range: %s is from %s to %s", clip(s), what, plain(least), plain(most))
			}
			if d%step != 0 {
				return nil, refuse("%s is too fine: %s is in steps of %s", clip(s), what, plain(step))
			}
			return d, nil
		},
	}
}

// wholeNumbers reports whether every number in a duration has digits on both
// sides of its point, as the schema's pattern wants.
func wholeNumbers(s string) bool {
	for i := range len(s) {
		if s[i] == '.' && (i == 0 || i+1 == len(s) || !isDigit(s[i-1]) || !isDigit(s[i+1])) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// plain writes a duration as an operator would: "1h", not "1h0m0s".
func plain(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func isControl(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 || r == utf8.RuneError }

// clip shortens a value for a message.
func clip(s string) string {
	const longest = 60
	if utf8.RuneCountInString(s) <= longest {
		return s
	}
	return string([]rune(s)[:longest]) + "…"
}

// either joins words: "a, b or c".
func either(words []string) string {
	switch len(words) {
	case 0:
		return ""
	case 1:
		return words[0]
	}
	return fmt.Sprintf("%s or %s", strings.Join(words[:len(words)-1], ", "), words[len(words)-1])
}
