package h2

import "golang.org/x/net/http2/hpack"

// static are the names of HPACK's static table (RFC 7541, appendix A) by what they are
// found by: the index of the first entry of each.
var static = func() map[string]byte {
	names := []string{
		":authority", ":method", "", ":path", "", ":scheme", "", ":status", "", "", "", "", "", "",
		"accept-charset", "accept-encoding", "accept-language", "accept-ranges", "accept", "access-control-allow-origin",
		"age", "allow", "authorization", "cache-control", "content-disposition", "content-encoding", "content-language",
		"content-length", "content-location", "content-range", "content-type", "cookie", "date", "etag", "expect",
		"expires", "from", "host", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since",
		"last-modified", "link", "location", "max-forwards", "proxy-authenticate", "proxy-authorization", "range",
		"referer", "refresh", "retry-after", "server", "set-cookie", "strict-transport-security", "transfer-encoding",
		"user-agent", "vary", "via", "www-authenticate",
	}
	m := make(map[string]byte, len(names))
	for i, n := range names {
		if n != "" {
			m[n] = byte(i + 1)
		}
	}
	return m
}()

// AppendStatus appends the :status of an answer.
func AppendStatus(dst []byte, status int) []byte {
	switch status {
	case 200:
		return append(dst, 0x80|8)
	case 204:
		return append(dst, 0x80|9)
	case 206:
		return append(dst, 0x80|10)
	case 304:
		return append(dst, 0x80|11)
	case 400:
		return append(dst, 0x80|12)
	case 404:
		return append(dst, 0x80|13)
	case 500:
		return append(dst, 0x80|14)
	}
	return append(dst, 0x08, 3, byte('0'+status/100), byte('0'+status/10%10), byte('0'+status%10))
}

// AppendRequest appends the pseudo fields of a request.
func AppendRequest(dst, method []byte, scheme string, authority, path []byte) []byte {
	switch string(method) {
	case "GET":
		dst = append(dst, 0x80|2)
	case "POST":
		dst = append(dst, 0x80|3)
	default:
		dst = AppendField(dst, []byte(":method"), method)
	}
	if scheme == "https" {
		dst = append(dst, 0x80|7)
	} else {
		dst = append(dst, 0x80|6)
	}
	dst = AppendField(dst, []byte(":authority"), authority)
	if string(path) == "/" {
		return append(dst, 0x80|4)
	}
	return AppendField(dst, []byte(":path"), path)
}

// AppendField appends a field without indexing; upper-case letters of the name become
// lower. Pseudo fields must come first.
func AppendField(dst, name, value []byte) []byte {
	var space [64]byte
	low := space[:0]
	for _, c := range name {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		low = append(low, c)
	}
	if i := static[string(low)]; i > 0 {
		dst = appendInt(dst, 0, 4, int(i))
	} else {
		dst = append(dst, 0)
		dst = appendInt(dst, 0, 7, len(low))
		dst = append(dst, low...)
	}
	dst = appendInt(dst, 0, 7, len(value))
	return append(dst, value...)
}

// appendInt appends an integer with a prefix of so many bits (RFC 7541, 5.1).
func appendInt(dst []byte, first byte, bits uint, n int) []byte {
	most := 1<<bits - 1
	if n < most {
		return append(dst, first|byte(n))
	}
	dst = append(dst, first|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n&0x7f|0x80))
	}
	return append(dst, byte(n))
}

// A Field is a received field.
type Field = hpack.HeaderField
