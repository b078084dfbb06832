package l7

import (
	"bytes"
	"net/netip"

	"github.com/pharos-lb/pharos/forward/l7/route"
)

const (
	maxMethod = 32            // characters
	maxTarget = route.MaxPath // bytes; more is 414
	maxHost   = route.MaxHost // bytes
)

// A request is a parsed request head. Its slices point into the buffer that
// holds the head.
type request struct {
	headers

	method []byte
	// target is what is sent upstream: origin-form or "*".
	target []byte
	// path is target without the query.
	path []byte
	// authority is the Host, or that of an absolute-form target; empty only for HTTP/1.0.
	authority []byte
	// hostname is authority without the port.
	hostname []byte
	minor    byte // HTTP/1.minor; 1 for later versions
	version  byte // HTTP/version
	head     bool // method is HEAD
}

// parse reads a complete head, empty line included.
func (r *request) parse(head []byte) fault {
	line, rest := firstLine(head)
	r.minor, r.version, r.head = 1, 1, false
	if f := r.parseLine(line); f.bad() {
		return f
	}
	if f := r.headers.parse(rest); f.bad() {
		return f
	}
	return r.interpret()
}

// parseLine reads "METHOD SP target SP HTTP/1.x".
func (r *request) parseLine(line []byte) fault {
	sp := bytes.IndexByte(line, ' ')
	if sp <= 0 || !isToken(line[:sp]) {
		return malformed("request line without a valid method")
	}
	if sp > maxMethod {
		return fault{status: 501, text: "method is too long"}
	}
	r.method = line[:sp]
	line = line[sp+1:]
	sp = bytes.IndexByte(line, ' ')
	if sp <= 0 {
		return malformed("request line without a target and a version")
	}
	if sp > maxTarget {
		return fault{status: 414, text: "request target is too long", shed: shedURI}
	}
	r.target = line[:sp]
	switch version := line[sp+1:]; string(version) {
	case "HTTP/1.1":
		r.minor = 1
	case "HTTP/1.0":
		r.minor = 0
	default:
		if len(version) == 8 && string(version[:5]) == "HTTP/" && version[6] == '.' &&
			hexValue(version[5]) >= 0 && hexValue(version[7]) >= 0 {
			return fault{status: 505, text: "only HTTP/1.0 and HTTP/1.1 are spoken here"}
		}
		return malformed("request line without a valid version")
	}
	r.head = string(r.method) == "HEAD"
	return fault{}
}

// interpret checks what needs the line and the fields together.
func (r *request) interpret() fault {
	switch {
	case string(r.method) == "CONNECT" || string(r.method) == "TRACE":
		return fault{status: 405, text: "method is not forwarded"}
	case r.hosts > 1:
		return malformed("more than one Host")
	case r.hosts == 0 && r.minor > 0:
		return malformed("Host is missing")
	case r.minor == 0 && r.chunked:
		return malformed("Transfer-Encoding in HTTP/1.0")
	case r.expectsOdd:
		return fault{status: 417, text: "expectation is not supported"}
	case r.upgrades > 1:
		return malformed("more than one Upgrade")
	}
	r.authority, r.hostname = nil, nil
	if r.hosts == 1 {
		r.authority = r.host
		if f := r.parseAuthority(); f.bad() {
			return f
		}
	}
	return r.parseTarget()
}

// parseTarget checks the target and reduces absolute-form to origin-form.
func (r *request) parseTarget() fault {
	if string(r.target) == "*" {
		if string(r.method) != "OPTIONS" {
			return malformed("target * is for OPTIONS only")
		}
		r.path = r.target
		return fault{}
	}
	for _, c := range r.target {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return malformed("invalid character in the request target")
		}
	}
	if r.target[0] != '/' {
		if f := r.parseAbsolute(); f.bad() {
			return f
		}
	}
	r.path = r.target
	if q := bytes.IndexByte(r.target, '?'); q >= 0 {
		r.path = r.target[:q]
	}
	if wrong := route.CheckPath(r.path); wrong != "" {
		return malformed(wrong)
	}
	return fault{}
}

// parseAbsolute reduces "http://authority/path" to "/path". RFC 9112, 3.2.2:
// the authority counts and Host is ignored.
func (r *request) parseAbsolute() fault {
	i := bytes.Index(r.target, []byte("://"))
	if i < 0 || !is(r.target[:i], "http") && !is(r.target[:i], "https") {
		return malformed("request target is neither a path nor an http URL")
	}
	t := r.target[i+len("://"):]
	end := bytes.IndexAny(t, "/?")
	if end < 0 {
		end = len(t)
	}
	r.authority = t[:end]
	if f := r.parseAuthority(); f.bad() {
		return f
	}
	rest := t[end:]
	switch {
	case len(rest) > 0 && rest[0] == '/':
		r.target = rest
	case len(rest) == 0 && string(r.method) == "OPTIONS":
		r.target = []byte("*")
	default: // rare: no path, perhaps a query
		r.target = append([]byte("/"), rest...)
	}
	return fault{}
}

// parseAuthority checks authority as host or host:port.
func (r *request) parseAuthority() fault {
	a := r.authority
	bad := malformed("Host is not a host name or address")
	if len(a) == 0 || len(a) > maxHost {
		return bad
	}
	var port []byte
	if a[0] == '[' {
		end := bytes.IndexByte(a, ']')
		if end < 0 {
			return bad
		}
		addr, err := netip.ParseAddr(string(a[1:end]))
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return bad
		}
		r.hostname, port = a[:end+1], a[end+1:]
	} else {
		n := 0
		for n < len(a) && in(a[n], hostLow, hostHigh) {
			n++
		}
		if n == 0 {
			return bad
		}
		r.hostname, port = a[:n], a[n:]
	}
	if len(port) == 0 {
		return fault{}
	}
	if port[0] != ':' || len(port) > 6 {
		return bad
	}
	number := 0
	for _, c := range port[1:] {
		if c < '0' || c > '9' {
			return bad
		}
		number = 10*number + int(c-'0')
	}
	if number > 65535 {
		return bad
	}
	return fault{}
}

// idempotent reports whether sending the request twice is the same as once
// (RFC 9110, 9.2.2).
func (r *request) idempotent() bool {
	switch string(r.method) {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE":
		return true
	default:
		return false
	}
}

// upgradeTo returns the protocol that the client wants to change to, nil if
// none or if it is not one that a proxy can pass on.
func (r *request) upgradeTo() []byte {
	if !r.upgrade || r.upgrades != 1 || r.minor == 0 || r.chunked || r.length > 0 {
		return nil
	}
	p := r.protocol
	name, version, found := bytes.Cut(p, []byte("/"))
	if !isToken(name) || found && !isToken(version) {
		return nil // a list, or odd
	}
	if is(name, "h2c") || is(name, "http") || is(name, "tls") {
		return nil // changes what this hop speaks, which the backend cannot know
	}
	return p
}

// persistent reports whether the client wants to keep the connection.
func (r *request) persistent() bool {
	if r.minor == 0 {
		return r.keepAlive && !r.close
	}
	return !r.close
}
