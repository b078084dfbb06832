package l7

import (
	"bytes"

	"github.com/pharos-lb/pharos/forward/l7/h2"
)

// parse2 makes a request of the fields of an HTTP/2 stream. It holds them to the same
// rules as an HTTP/1 head, so that what goes upstream as HTTP/1 is what was asked for
// and nothing else: no field can end a line, name a framing, or hide in a name. malformed
// is reported as a fault of status 0: RFC 9113, 8.1.1 wants a stream error.
func (r *request) parse2(fields []h2.Field, arena []byte) (extended []byte, _ fault, ok bool) {
	r.headers = headers{fields: r.fields[:0], length: -1}
	r.method, r.target, r.path, r.authority, r.hostname = nil, nil, nil, nil, nil
	r.minor, r.version, r.head = 1, 2, false
	var scheme, cookie []byte
	keep := func(s string) []byte {
		start := len(arena)
		arena = append(arena, s...)
		return arena[start:len(arena):len(arena)]
	}
	for i := range fields {
		f := &fields[i]
		value := keep(f.Value)
		if f.Name[0] == ':' {
			switch f.Name {
			case ":method":
				r.method = value
			case ":scheme":
				scheme = value
			case ":path":
				r.target = value
			case ":authority":
				r.authority = value
			case ":protocol":
				extended = value
			}
			continue
		}
		if len(trim(value)) != len(value) || !isValue(value) {
			return nil, fault{}, false
		}
		if f.Name == "cookie" { // RFC 9113, 8.2.3: one line for HTTP/1
			if cookie != nil {
				cookie = append(cookie, "; "...)
			}
			cookie = append(cookie, value...)
			continue
		}
		if len(r.fields) >= maxFields-1 {
			return nil, fault{status: 431, text: "too many header fields", shed: shedHeader}, true
		}
		name := keep(f.Name)
		if !isToken(name) || !r.take2(field{name: name, value: value, kind: kindOf(name)}) {
			return nil, fault{}, false
		}
	}
	if cookie != nil {
		r.fields = append(r.fields, field{name: []byte("cookie"), value: cookie})
	}
	if len(r.method) == 0 || !isToken(r.method) || len(scheme) == 0 || len(r.target) == 0 ||
		extended != nil && string(r.method) != "CONNECT" {
		if string(r.method) == "CONNECT" && extended == nil {
			return nil, fault{status: 405, text: "method is not forwarded"}, true
		}
		return nil, fault{}, false
	}
	return extended, r.interpret2(extended), true
}

// take2 keeps one field; false if HTTP/2 does not allow it.
func (r *request) take2(f field) bool {
	switch f.kind {
	case kindConnection, kindTransferEncoding, kindUpgrade:
		return false
	case kindHop:
		return !is(f.name, "keep-alive") && !is(f.name, "proxy-connection")
	case kindContentLength: // checked with the frames
		n, ok := parseLength(f.value)
		if !ok || r.length >= 0 {
			return false
		}
		r.length = n
		r.fields = append(r.fields, f)
		return true
	case kindTE:
		if !is(f.value, "trailers") {
			return false
		}
		r.trailers = true
	case kindHost:
		if r.hosts++; r.hosts > 1 {
			return false
		}
		r.host = f.value
	case kindExpect, kindHanded:
		r.note(f)
	}
	r.fields = append(r.fields, f)
	return true
}

// interpret2 is interpret for HTTP/2.
func (r *request) interpret2(extended []byte) fault {
	r.head = string(r.method) == "HEAD"
	switch {
	case len(r.method) > maxMethod:
		return fault{status: 501, text: "method is too long"}
	case string(r.method) == "CONNECT" && extended == nil || string(r.method) == "TRACE":
		return fault{status: 405, text: "method is not forwarded"}
	case r.expectsOdd:
		return fault{status: 417, text: "expectation is not supported"}
	case len(r.target) > maxTarget:
		return fault{status: 414, text: "request target is too long", shed: shedURI}
	case len(r.authority) == 0 && r.hosts == 0:
		return malformed("Host is missing")
	case len(r.authority) > 0 && r.hosts > 0 && !bytes.EqualFold(r.authority, r.host):
		return malformed("Host differs from :authority")
	case r.target[0] != '/' && string(r.target) != "*":
		return malformed(":path is not a path")
	}
	if len(r.authority) == 0 {
		r.authority = r.host
	}
	if f := r.parseAuthority(); f.bad() {
		return f
	}
	return r.parseTarget()
}
