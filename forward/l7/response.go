package l7

// A response is a parsed response head. Its slices point into the buffer that
// holds the head.
type response struct {
	headers

	status int
	// line is "200 OK": the status line behind the version.
	line  []byte
	minor byte

	// Of HTTP/2.
	empty    bool     // it ended with its head
	trailing bool     // it announces trailers, whatever its length
	space    [64]byte // of line
}

// parse reads a complete head, empty line included. A fault's status is not
// meant for the client, who gets 502.
func (r *response) parse(head []byte) fault {
	line, rest := firstLine(head)
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' {
		return malformed("status line is not HTTP/1.x")
	}
	r.minor, r.empty, r.trailing = line[7]-'0', false, false
	r.line = line[9:]
	r.status = 0
	for _, c := range r.line[:3] {
		if c < '0' || c > '9' {
			return malformed("status is not a number")
		}
		r.status = 10*r.status + int(c-'0')
	}
	if r.status < 100 || r.status > 599 || len(r.line) > 3 && r.line[3] != ' ' || !isValue(r.line) {
		return malformed("invalid status line")
	}
	if f := r.headers.parse(rest); f.bad() {
		return f
	}
	if r.chunked && r.minor == 0 {
		return malformed("Transfer-Encoding in HTTP/1.0")
	}
	return fault{}
}

// A framing says how the end of a body is known.
type framing uint8

const (
	frameNone    framing = iota // there is no body
	frameLength                 // Content-Length
	frameChunked                // last chunk
	frameClose                  // the connection ends
)

// framing of the answer to a request with or without method HEAD. RFC 9112, 6.3.
func (r *response) framing(head bool) framing {
	switch {
	case head || r.status < 200 || r.status == 204 || r.status == 304:
		return frameNone
	case r.chunked:
		return frameChunked
	case r.empty || r.length == 0 && !r.trailing:
		return frameNone
	case r.length >= 0:
		return frameLength
	default:
		return frameClose
	}
}

// persistent reports whether the backend keeps the connection.
func (r *response) persistent() bool {
	if r.minor == 0 {
		return r.keepAlive && !r.close
	}
	return !r.close
}
