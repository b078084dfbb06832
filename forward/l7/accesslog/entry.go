package accesslog

import (
	"bytes"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"
)

// A Format is how a line looks.
type Format uint8

// The formats.
const (
	// JSON is one object a line.
	JSON Format = iota
	// Common is the Common Log Format, Combined the same with Referer and User-Agent, as
	// Apache httpd writes them.
	Common
	Combined
)

// An Entry is what is known of a request at its end. Its slices are not kept.
type Entry struct {
	Time   time.Time // when the request had come
	Took   time.Duration
	Client netip.Addr // as far as it is believed
	Peer   netip.Addr // who connected
	// Method, Target and Host as the client sent them; Target is without the query.
	Method, Target, Query, Host []byte
	Proto                       string // "HTTP/1.1"
	Line                        []byte // what came of a request that was not understood: its Method and Target are not known
	Status                      int    // 0 = the client got none
	Up, Down                    int64  // bytes of the request's body, and of all that was sent back
	Listener, Route, Service    string
	Backend                     string
	Referer, UserAgent          []byte
	RequestID                   []byte
	// Trouble says why it did not go to its end; "" if it did.
	Trouble string
}

// appendEntry appends a line without its end.
func appendEntry(dst []byte, f Format, e *Entry) []byte {
	if f == JSON {
		return appendObject(dst, e)
	}
	dst = e.Client.AppendTo(dst)
	dst = append(dst, " - - ["...)
	dst = e.Time.AppendFormat(dst, "02/Jan/2006:15:04:05 -0700")
	dst = append(dst, `] "`...)
	switch {
	case len(e.Method) > 0:
		dst = append(appendQuoted(dst, e.Method), ' ')
		dst = appendQuoted(dst, e.Target)
		if len(e.Query) > 0 {
			dst = appendQuoted(append(dst, '?'), e.Query)
		}
		dst = append(append(dst, ' '), e.Proto...)
	case len(e.Line) > 0:
		dst = appendQuoted(dst, e.Line)
	default:
		dst = append(dst, '-')
	}
	dst = append(dst, `" `...)
	dst = strconv.AppendInt(dst, int64(e.Status), 10)
	dst = strconv.AppendInt(append(dst, ' '), e.Down, 10)
	if f == Combined {
		for _, v := range [2][]byte{e.Referer, e.UserAgent} {
			dst = append(dst, ` "`...)
			if len(v) == 0 {
				v = []byte("-")
			}
			dst = append(appendQuoted(dst, v), '"')
		}
	}
	return dst
}

// appendQuoted appends what a client sent so that it stays inside quotes and on its line.
func appendQuoted(dst, v []byte) []byte {
	const hex = "0123456789abcdef"
	for _, c := range v {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ' || c >= 0x7f:
			dst = append(dst, '\\', 'x', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func appendObject(dst []byte, e *Entry) []byte {
	dst = append(dst, `{"time":"`...)
	dst = e.Time.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	dst = append(dst, `","client":"`...)
	dst = e.Client.AppendTo(dst)
	if e.Peer != e.Client {
		dst = append(dst, `","peer":"`...)
		dst = e.Peer.AppendTo(dst)
	}
	dst = append(dst, '"')
	dst = appendMember(dst, "method", e.Method)
	dst = appendMember(dst, "host", e.Host)
	dst = appendMember(dst, "path", e.Target)
	dst = appendMember(dst, "query", e.Query)
	dst = appendMember(dst, "line", e.Line)
	dst = appendText(dst, "protocol", e.Proto)
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendInt(dst, int64(e.Status), 10)
	dst = append(dst, `,"bytes_in":`...)
	dst = strconv.AppendInt(dst, e.Up, 10)
	dst = append(dst, `,"bytes_out":`...)
	dst = strconv.AppendInt(dst, e.Down, 10)
	dst = append(dst, `,"seconds":`...)
	dst = strconv.AppendFloat(dst, e.Took.Seconds(), 'f', 6, 64)
	dst = appendText(dst, "listener", e.Listener)
	dst = appendText(dst, "route", e.Route)
	dst = appendText(dst, "service", e.Service)
	dst = appendText(dst, "backend", e.Backend)
	dst = appendMember(dst, "referer", e.Referer)
	dst = appendMember(dst, "user_agent", e.UserAgent)
	dst = appendMember(dst, "request_id", e.RequestID)
	dst = appendText(dst, "trouble", e.Trouble)
	return append(dst, '}')
}

// appendText appends a member that is our own word; "" appends nothing.
func appendText(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	dst = append(append(append(dst, `,"`...), name...), `":"`...)
	for len(value) > 0 {
		var c rune
		var size int
		c, size = utf8.DecodeRuneInString(value)
		dst = appendRune(dst, c, size, value[:size])
		value = value[size:]
	}
	return append(dst, '"')
}

// appendMember appends a member that a client sent; an empty one appends nothing.
func appendMember(dst []byte, name string, value []byte) []byte {
	if len(value) == 0 {
		return dst
	}
	dst = append(append(append(dst, `,"`...), name...), `":"`...)
	for len(value) > 0 {
		n := plain(value)
		dst = append(dst, value[:n]...)
		if value = value[n:]; len(value) == 0 {
			break
		}
		c, size := utf8.DecodeRune(value)
		dst = appendRune(dst, c, size, string(value[:size]))
		value = value[size:]
	}
	return append(dst, '"')
}

// plain is how many bytes at the front stand for themselves in JSON.
func plain(v []byte) int {
	for i, c := range v {
		if c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return i
		}
	}
	return len(v)
}

func appendRune(dst []byte, c rune, size int, text string) []byte {
	const hex = "0123456789abcdef"
	switch {
	case c == utf8.RuneError && size == 1:
		return append(dst, `\ufffd`...)
	case c == '"' || c == '\\':
		return append(dst, '\\', byte(c))
	case c < ' ' || c >= 0x7f && c < 0xa0 || c == 0x2028 || c == 0x2029:
		return append(dst, '\\', 'u', hex[c>>12&15], hex[c>>8&15], hex[c>>4&15], hex[c&15])
	default:
		return append(dst, text...)
	}
}

// WithoutQuery cuts the query off a URL.
func WithoutQuery(u []byte) []byte {
	if i := bytes.IndexByte(u, '?'); i >= 0 {
		return u[:i]
	}
	return u
}
