package l7

import "bytes"

// maxFields is how many header fields a message may have.
const maxFields = 128

// maxConnectionOptions is how many options Connection may name in all.
const maxConnectionOptions = 32

// A fault is why a message is refused. The zero fault is none.
type fault struct {
	status int // what the client is told
	text   string
	retry  int // in how many seconds it may be worth trying again; 0 = nobody knows
	shed   shed
	grpc   grpcCode // for clients of gRPC; 0 = as the status says
}

func (f fault) bad() bool { return f.status != 0 }

func malformed(text string) fault { return fault{status: 400, text: text} }

// A kind is what a header field means to a proxy.
type kind uint8

const (
	kindOther kind = iota
	kindConnection
	kindContentLength
	kindExpect
	kindForwarded
	kindForwardedFor
	kindForwardedOther // X-Forwarded-Host, -Port, -Proto
	kindHanded         // Pharos-Overflow
	kindHop            // meant for this hop only: Keep-Alive, Proxy-*
	kindHost
	kindTE
	kindTrailer
	kindTransferEncoding
	kindUpgrade
)

// kindOf classifies a field name.
func kindOf(name []byte) kind {
	switch len(name) {
	case 2:
		if is(name, "te") {
			return kindTE
		}
	case 4:
		if is(name, "host") {
			return kindHost
		}
	case 6:
		if is(name, "expect") {
			return kindExpect
		}
	case 7:
		switch {
		case is(name, "upgrade"):
			return kindUpgrade
		case is(name, "trailer"):
			return kindTrailer
		}
	case 9:
		if is(name, "forwarded") {
			return kindForwarded
		}
	case 10:
		switch {
		case is(name, "connection"):
			return kindConnection
		case is(name, "keep-alive"):
			return kindHop
		}
	case 14:
		if is(name, "content-length") {
			return kindContentLength
		}
	case 15:
		switch {
		case is(name, "x-forwarded-for"):
			return kindForwardedFor
		case is(name, "pharos-overflow"):
			return kindHanded
		}
	case 16:
		if is(name, "x-forwarded-host") || is(name, "x-forwarded-port") {
			return kindForwardedOther
		}
	case 17:
		switch {
		case is(name, "transfer-encoding"):
			return kindTransferEncoding
		case is(name, "x-forwarded-proto"):
			return kindForwardedOther
		}
	}
	if bytes.IndexByte(name, '_') >= 0 && poses(name) {
		return kindHop
	}
	if len(name) >= 5 && lowered(name[0]) == 'p' && is(name[:5], "proxy") && (len(name) == 5 || name[5] == '-') {
		return kindHop
	}
	return kindOther
}

// poses reports whether a name looks like one of ours to a backend that does not tell
// underscores from hyphens, as everything that hands headers on as variables (CGI, WSGI).
func poses(name []byte) bool {
	var space [32]byte
	if len(name) > len(space) {
		return false
	}
	plain := append(space[:0], name...)
	for i, c := range plain {
		if c == '_' {
			plain[i] = '-'
		}
	}
	return kindOf(plain) != kindOther
}

// A field is one header field; its slices point into the message's buffer.
type field struct {
	name, value []byte
	kind        kind
	drop        bool // named by Connection
}

// A headScan finds the end of a head as it arrives, looking at each byte once.
type headScan struct {
	line int // where the current line starts
	next int // where the search goes on
}

// end returns the length of the head with its empty line, 0 if it is not
// complete yet.
func (s *headScan) end(buf []byte) (int, fault) {
	for {
		i := bytes.IndexByte(buf[s.next:], '\n')
		if i < 0 {
			s.next = len(buf)
			return 0, fault{}
		}
		lf := s.next + i
		if lf == 0 || buf[lf-1] != '\r' {
			return 0, malformed("line ends with a bare LF")
		}
		if lf-1 == s.line {
			return lf + 1, fault{}
		}
		s.line, s.next = lf+1, lf+1
	}
}

// firstLine cuts the first line off a complete head.
func firstLine(head []byte) (line, rest []byte) {
	i := bytes.IndexByte(head, '\n')
	return head[:i-1], head[i+1:]
}

// A headers is the fields of a message and what they say about its framing and
// its connection.
type headers struct {
	fields []field // backed by the work's array

	length     int64 // Content-Length, −1 for none
	chunked    bool
	close      bool // Connection: close
	keepAlive  bool // Connection: keep-alive
	upgrade    bool // Connection: upgrade
	hosts      int
	host       []byte
	protocol   []byte // Upgrade
	handed     []byte // Pharos-Overflow
	upgrades   int
	expects    bool // Expect: 100-continue
	expectsOdd bool // Expect: anything else
	trailers   bool // TE: trailers
}

// parse reads the lines after the first, up to the empty one.
func (h *headers) parse(lines []byte) fault {
	*h = headers{fields: h.fields[:0], length: -1}
	codings := 0
	for {
		var line []byte
		line, lines = firstLine(lines)
		if len(line) == 0 {
			break
		}
		if len(h.fields) == maxFields {
			return fault{status: 431, text: "too many header fields", shed: shedHeader}
		}
		f, bad := parseField(line)
		if bad.bad() {
			return bad
		}
		h.fields = append(h.fields, f)
		switch f.kind {
		case kindContentLength:
			if h.length >= 0 {
				return malformed("more than one Content-Length")
			}
			n, ok := parseLength(f.value)
			if !ok {
				return malformed("Content-Length is not a number")
			}
			h.length = n
		case kindTransferEncoding:
			codings++
			if codings > 1 {
				return malformed("more than one Transfer-Encoding")
			}
			if !is(f.value, "chunked") {
				return fault{status: 501, text: "transfer coding is not supported"}
			}
			h.chunked = true
		default:
			h.note(f)
		}
	}
	if h.chunked && h.length >= 0 {
		return malformed("both Transfer-Encoding and Content-Length")
	}
	return h.hopByHop()
}

// note keeps what f says besides framing.
func (h *headers) note(f field) {
	switch f.kind {
	case kindHost:
		h.hosts++
		h.host = f.value
	case kindUpgrade:
		h.upgrades++
		h.protocol = f.value
	case kindHanded:
		h.handed = f.value
	case kindExpect:
		if is(f.value, "100-continue") {
			h.expects = true
		} else {
			h.expectsOdd = true
		}
	case kindTE:
		for list := f.value; list != nil; {
			var item []byte
			item, list = listItem(list)
			if is(item, "trailers") {
				h.trailers = true
			}
		}
	}
}

// hopByHop applies the Connection fields.
func (h *headers) hopByHop() fault {
	options := 0
	for i := range h.fields {
		if h.fields[i].kind != kindConnection {
			continue
		}
		for list := h.fields[i].value; list != nil; {
			var option []byte
			option, list = listItem(list)
			if options++; options > maxConnectionOptions {
				return malformed("Connection names too many options")
			}
			switch {
			case len(option) == 0:
			case is(option, "close"):
				h.close = true
			case is(option, "keep-alive"):
				h.keepAlive = true
			case is(option, "upgrade"):
				h.upgrade = true
			case !isToken(option):
				return malformed("Connection option is not a token")
			default:
				h.dropNamed(option)
			}
		}
	}
	return fault{}
}

// dropNamed keeps the fields called name on their side. Those that this proxy
// understands itself cannot be taken away by naming them.
func (h *headers) dropNamed(name []byte) {
	for i := range h.fields {
		if h.fields[i].kind == kindOther && equalFold(h.fields[i].name, name) {
			h.fields[i].drop = true
		}
	}
}

// parseField reads one line.
func parseField(line []byte) (field, fault) {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || !isToken(line[:colon]) {
		switch {
		case line[0] == ' ' || line[0] == '\t':
			return field{}, malformed("folded header line")
		case colon > 0 && (line[colon-1] == ' ' || line[colon-1] == '\t'):
			return field{}, malformed("space before the colon of a header")
		default:
			return field{}, malformed("header line without a valid name")
		}
	}
	value := trim(line[colon+1:])
	if !isValue(value) {
		return field{}, malformed("control character in a header")
	}
	return field{name: line[:colon], value: value, kind: kindOf(line[:colon])}, fault{}
}

// parseLength reads a Content-Length: 1 to 18 digits.
func parseLength(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}
