package l7

import (
	"bytes"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/pharos-lb/pharos/forward/l7/h2"
)

// appendRequest2 encodes the head that goes to a backend which speaks HTTP/2: that of a request which has been
// prepared. to is the authority of one that has none.
func appendRequest2(dst []byte, r *request, to []byte, tls, websocket bool) []byte {
	scheme, method, host := "http", r.method, r.authority
	if tls {
		scheme = "https"
	}
	if websocket {
		method = []byte("CONNECT")
	}
	if host == nil {
		host = to // HTTP/1.0 without one
	}
	dst = h2.AppendRequest(dst, method, scheme, host, r.target)
	if websocket {
		dst = h2.AppendField(dst, []byte(":protocol"), []byte("websocket"))
	}
	var space [20]byte
	for i := range r.fields {
		f := &r.fields[i]
		switch f.kind {
		case kindOther, kindTrailer, kindExpect:
			if f.drop || f.kind == kindExpect && r.minor == 0 || websocket && is(f.name, "sec-websocket-key") {
				continue
			}
			dst = h2.AppendField(dst, f.name, f.value)
		}
	}
	if r.length >= 0 && !r.chunked && !websocket {
		dst = h2.AppendField(dst, []byte("content-length"), strconv.AppendInt(space[:0], r.length, 10))
	}
	if r.trailers {
		dst = h2.AppendField(dst, []byte("te"), []byte("trailers"))
	}
	return dst
}

// appendTrailers2 encodes trailers, lines with CRLF.
func appendTrailers2(dst, lines []byte) []byte {
	for len(lines) > 0 {
		var line []byte
		line, lines = firstLine(lines)
		if colon := bytes.IndexByte(line, ':'); colon > 0 {
			dst = h2.AppendField(dst, line[:colon], trim(line[colon+1:]))
		}
	}
	return dst
}

var errAnswer2 = errors.New("not an answer of HTTP/2")

// parse2 makes a response of the fields of a stream, by the rules of an HTTP/1 head: what a
// client that speaks HTTP/1 gets is what was answered and nothing else. arena holds the bytes, and is
// returned as it has grown.
func (r *response) parse2(fields []h2.Field, arena []byte) ([]byte, error) {
	r.headers = headers{fields: r.fields[:0], length: -1}
	r.minor, r.status, r.empty, r.trailing = 1, 0, false, false
	if need := arenaSize(fields); cap(arena) < need {
		arena = make([]byte, 0, need)
	}
	keep := func(s string) []byte {
		start := len(arena)
		arena = append(arena, s...)
		return arena[start:len(arena):len(arena)]
	}
	for i := range fields {
		name, value := keep(fields[i].Name), keep(fields[i].Value)
		if name[0] == ':' {
			n, ok := parseLength(value)
			if string(name) != ":status" || r.status != 0 || !ok || len(value) != 3 || n < 100 || n > 599 {
				return arena, errAnswer2
			}
			r.status = int(n)
			continue
		}
		if len(trim(value)) != len(value) || !isValue(value) || !isToken(name) {
			return arena, errAnswer2
		}
		if len(r.fields) == maxFields {
			return arena, errAnswer2
		}
		f := field{name: name, value: value, kind: kindOf(name)}
		switch f.kind {
		case kindConnection, kindTransferEncoding, kindUpgrade:
			return arena, errAnswer2
		case kindHop:
			if is(name, "keep-alive") || is(name, "proxy-connection") {
				return arena, errAnswer2
			}
		case kindTrailer:
			r.trailing = true
		case kindContentLength:
			n, ok := parseLength(value)
			if !ok || r.length >= 0 {
				return arena, errAnswer2
			}
			r.length = n
		}
		r.fields = append(r.fields, f)
	}
	if r.status == 0 {
		return arena, errAnswer2
	}
	r.line = append(strconv.AppendInt(r.space[:0], int64(r.status), 10), ' ')
	r.line = append(r.line, http.StatusText(r.status)...)
	return arena, nil
}

// asUpgrade makes of the acceptance of a CONNECT (RFC 8441) the 101 that a client of HTTP/1 waits for.
func (r *response) asUpgrade(w *work) {
	var key []byte
	for i := range w.req.fields {
		if is(w.req.fields[i].name, "sec-websocket-key") {
			key = w.req.fields[i].value
		}
	}
	// One that the backend has sent is for a key of its own making: in HTTP/2 there are none (RFC 8441, 5).
	r.fields = slices.DeleteFunc(r.fields, func(f field) bool { return is(f.name, "sec-websocket-accept") })
	r.status, r.line = 101, []byte("101 Switching Protocols")
	r.upgrade, r.upgrades, r.protocol = true, 1, w.upgrade
	if len(r.fields) < maxFields {
		accept := field{name: []byte("Sec-WebSocket-Accept"), value: []byte(websocketAccept(key))}
		r.fields = append(r.fields, accept)
	}
}
