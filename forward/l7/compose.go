package l7

import (
	"strconv"
	"time"
)

// appendRequest appends the head that goes upstream.
func appendRequest(dst []byte, r *request, from, to, upgrade []byte, secure bool) []byte {
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
	dst = append(dst, "X-Forwarded-For: "...)
	for i := range r.fields {
		if r.fields[i].kind == kindForwardedFor && len(r.fields[i].value) > 0 {
			dst = append(dst, r.fields[i].value...)
			dst = append(dst, ',', ' ')
		}
	}
	dst = append(dst, from...)
	if secure {
		dst = append(dst, "\r\nX-Forwarded-Proto: https\r\n"...)
	} else {
		dst = append(dst, "\r\nX-Forwarded-Proto: http\r\n"...)
	}
	if r.authority != nil {
		dst = append(dst, "X-Forwarded-Host: "...)
		dst = append(dst, r.authority...)
		dst = append(dst, '\r', '\n')
	}
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
		case kindOther, kindTrailer, kindForwardedFor, kindForwardedOther, kindHost, kindExpect:
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

// statusText names the statuses of our own replies.
func statusText(status int) string {
	switch status {
	case 400:
		return "Bad Request"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 408:
		return "Request Timeout"
	case 414:
		return "URI Too Long"
	case 417:
		return "Expectation Failed"
	case 431:
		return "Request Header Fields Too Large"
	case 501:
		return "Not Implemented"
	case 502:
		return "Bad Gateway"
	case 503:
		return "Service Unavailable"
	case 504:
		return "Gateway Timeout"
	default:
		return "HTTP Version Not Supported"
	}
}

// reply sends a reply of our own and reports whether the connection goes on.
func (s *session) reply(w *work, f fault) bool {
	status, text := f.status, f.text
	w.keep = w.keep && !s.conn.Draining()
	out := append(w.out[:0], "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(status), 10)
	out = append(out, ' ')
	out = append(out, statusText(status)...)
	out = append(out, "\r\nServer: "...)
	out = append(out, s.server.opts.ServerName...)
	out = append(out, "\r\nDate: "...)
	out = time.Now().UTC().AppendFormat(out, "Mon, 02 Jan 2006 15:04:05 GMT")
	out = append(out, "\r\nContent-Type: text/plain; charset=utf-8\r\n"...)
	if status == 405 {
		out = append(out, "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"...)
	}
	out = appendFraming(out, false, int64(len(text)+1))
	switch {
	case !w.keep:
		out = append(out, "Connection: close\r\n"...)
	case w.req.minor == 0:
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	out = append(out, '\r', '\n')
	if !w.req.head {
		out = append(out, text...)
		out = append(out, '\n')
	}
	w.out = out
	s.server.metrics.replied(status)
	if s.writeClient(w, out) != troubleNone {
		return false
	}
	if !w.keep {
		s.linger()
	}
	return w.keep
}
