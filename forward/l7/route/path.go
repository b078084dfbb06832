package route

import "bytes"

// CheckPath says what is wrong with a path, "" if nothing is: bad escapes and dot
// segments, plain or escaped, between slashes that may be escaped or backslashes, with
// parameters ("..;a") or without: servers that take parameters off see the dots. Proxies
// and backends disagree about what they mean, so a route chosen by one would not be the
// file served by the other.
func CheckPath(path []byte) string {
	dots, segment := 0, 0 // dots of the segment's characters so far
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if i+2 >= len(path) || hexValue(path[i+1]) < 0 || hexValue(path[i+2]) < 0 {
				return "bad escape in the request target"
			}
			c = byte(hexValue(path[i+1])<<4 | hexValue(path[i+2]))
			if c == 0 {
				return "escaped NUL in the request target"
			}
			i += 2
		}
		if c == '/' || c == '\\' || c == ';' {
			if dots == segment && (dots == 1 || dots == 2) {
				return "dot segment in the request target"
			}
			if c == ';' {
				segment++
				continue
			}
			dots, segment = 0, 0
			continue
		}
		segment++
		if c == '.' {
			dots++
		}
	}
	if dots == segment && (dots == 1 || dots == 2) {
		return "dot segment in the request target"
	}
	return ""
}

// plainPath returns path as it is compared: escaped unreserved characters
// decoded and repeated slashes as one. It appends to dst only if something
// changes. "*" is the root.
func plainPath(dst, path []byte) []byte {
	if string(path) == "*" {
		return nil
	}
	if bytes.IndexByte(path, '%') < 0 && !bytes.Contains(path, []byte("//")) {
		return path
	}
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '/' && len(dst) > 0 && dst[len(dst)-1] == '/' {
			continue
		}
		if c == '%' {
			decoded := byte(hexValue(path[i+1])<<4 | hexValue(path[i+2]))
			if isUnreserved(decoded) {
				c = decoded
				i += 2
			}
		}
		dst = append(dst, c)
	}
	return dst
}

// isUnreserved tells the characters whose escape means the same (RFC 3986, 2.3).
func isUnreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
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

func lowered(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// sameName reports whether a field name equals one in lower case.
func sameName(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i := range name {
		if lowered(name[i]) != lower[i] {
			return false
		}
	}
	return true
}
