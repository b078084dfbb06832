package l7

import "strconv"

// appendRequest appends the head that goes upstream: that of a request which has been
// prepared. to is the Host of one that has none.
func appendRequest(dst []byte, r *request, to, upgrade []byte) []byte {
	dst = append(dst, r.method...)
	dst = append(dst, ' ')
	dst = append(dst, r.target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	host := r.authority
	if host == nil {
		host = to // HTTP/1.0 without one; HTTP/1.1 needs one
	}
	dst = append(dst, host...)
	dst = append(dst, '\r', '\n')
	for i := range r.fields {
		f := &r.fields[i]
		switch f.kind {
		case kindOther, kindTrailer:
			if f.drop {
				continue
			}
		case kindExpect:
			if r.minor == 0 {
				continue
			}
		default:
			continue
		}
		dst = appendField(dst, f.name, f.value)
	}
	dst = appendFraming(dst, r.chunked, r.length)
	switch {
	case upgrade != nil:
		dst = appendUpgrade(dst, upgrade)
	case r.trailers:
		dst = append(dst, "Connection: TE\r\nTE: trailers\r\n"...)
	}
	return append(dst, '\r', '\n')
}

// appendResponse appends the head that goes to the client: chunked as given,
// length if it is 0 or more.
func appendResponse(dst []byte, r *response, minor byte, chunked bool, length int64, keep bool) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = append(dst, r.line...)
	if len(r.line) == 3 {
		dst = append(dst, ' ') // the space before an empty reason is not optional
	}
	dst = append(dst, '\r', '\n')
	for i := range r.fields {
		f := &r.fields[i]
		switch f.kind {
		case kindOther, kindTrailer, kindForwarded, kindForwardedFor, kindForwardedOther, kindHost, kindExpect:
			if !f.drop {
				dst = appendField(dst, f.name, f.value)
			}
		}
	}
	dst = appendFraming(dst, chunked, length)
	switch {
	case r.status == 101:
		dst = appendUpgrade(dst, r.protocol)
	case r.status < 200:
	case !keep:
		dst = append(dst, "Connection: close\r\n"...)
	case minor == 0:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	return append(dst, '\r', '\n')
}

func appendFraming(dst []byte, chunked bool, length int64) []byte {
	switch {
	case chunked:
		return append(dst, "Transfer-Encoding: chunked\r\n"...)
	case length >= 0:
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, length, 10)
		return append(dst, '\r', '\n')
	default:
		return dst
	}
}

func appendUpgrade(dst, protocol []byte) []byte {
	dst = append(dst, "Connection: Upgrade\r\nUpgrade: "...)
	dst = append(dst, protocol...)
	return append(dst, '\r', '\n')
}
