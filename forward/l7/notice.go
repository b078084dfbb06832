package l7

import (
	"cmp"
	"strconv"
	"time"

	"github.com/pharos-lb/pharos/forward/l7/h2"
)

// A notice is an answer of our own.
type notice struct {
	status      int
	means       int // the status that is counted and logged, if it is another
	contentType string
	body        []byte
	bare        bool // no body, and no length of one
	fields      [6]field
	used        int
}

// bodiless reports whether nothing follows the head.
func (n *notice) bodiless() bool { return n.bare || n.status == 204 || n.status == 304 }

// add adds a field; there is room for six.
func (n *notice) add(name, value []byte) {
	n.fields[n.used] = field{name: name, value: value}
	n.used++
}

// reply answers with an error of our own, if there is still somebody to answer, and reports whether another request may follow.
func (w *work) reply(f fault) bool {
	if f.shed != shedNone {
		w.server.metrics.shed[f.shed].Add(1)
	}
	if w.down.broken() { // what it takes back is no failure of ours
		return w.deserted()
	}
	n := notice{status: f.status}
	if w.speaksGRPC() {
		w.fillGRPC(&n, f)
	} else {
		if f.status == 405 {
			n.add(nameAllow, allowed)
		}
		if f.retry > 0 {
			n.add(nameRetryAfter, w.number(f.retry))
		}
		w.fill(&n, f)
	}
	w.server.metrics.replied(f.status)
	w.trouble = f.text
	return w.say(&n)
}

// say sends a notice with what all of them have.
func (w *work) say(n *notice) bool {
	if n.contentType == "" {
		n.contentType = plainText
	}
	if len(w.requestID) > 0 {
		n.add(w.text(w.set.origin.RequestID), w.requestID)
	}
	if w.announces() {
		n.add(nameAltSvc, w.set.altSvc)
	}
	w.status = cmp.Or(n.means, n.status)
	return w.down.say(w, n)
}

var (
	nameAllow      = []byte("Allow")
	nameRetryAfter = []byte("Retry-After")
	allowed        = []byte("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
)

const plainText = "text/plain; charset=utf-8"

// number is n as text, kept for the time of the request.
func (w *work) number(n int) []byte {
	start := len(w.arena)
	w.arena = strconv.AppendInt(w.arena, int64(n), 10)
	return w.arena[start:len(w.arena):len(w.arena)]
}

// say sends a notice to a client of HTTP/1.
func (s *session) say(w *work, n *notice) bool {
	w.keep = w.keep && !s.conn.Draining()
	out := append(w.out[:0], "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(n.status), 10)
	out = append(out, ' ')
	out = append(out, statusText(n.status)...)
	out = append(out, "\r\nServer: "...)
	out = append(out, s.server.opts.ServerName...)
	out = append(out, "\r\nDate: "...)
	out = time.Now().UTC().AppendFormat(out, "Mon, 02 Jan 2006 15:04:05 GMT")
	bodiless := n.bodiless()
	if !bodiless {
		out = append(append(append(out, "\r\nContent-Type: "...), n.contentType...), '\r', '\n')
		out = appendFraming(out, false, int64(len(n.body)))
	} else {
		out = append(out, '\r', '\n')
	}
	for _, f := range n.fields[:n.used] {
		out = appendField(out, f.name, f.value)
	}
	switch {
	case !w.keep:
		out = append(out, "Connection: close\r\n"...)
	case w.req.minor == 0:
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	out = append(out, '\r', '\n')
	if !w.req.head && !bodiless {
		out = append(out, n.body...)
	}
	w.out = out
	if s.writeClient(w, out) != troubleNone {
		return false
	}
	if !w.keep {
		s.lingers = true
	}
	return w.keep
}

// say sends a notice to a client of HTTP/2.
func (d *stream2) say(w *work, n *notice) bool {
	var space [256]byte
	block := h2.AppendStatus(space[:0], n.status)
	block = h2.AppendField(block, []byte("server"), []byte(w.server.opts.ServerName))
	block = h2.AppendField(block, []byte("date"), time.Now().UTC().AppendFormat(nil, "Mon, 02 Jan 2006 15:04:05 GMT"))
	bodiless := n.bodiless()
	if !bodiless || n.bare {
		block = h2.AppendField(block, []byte("content-type"), []byte(n.contentType))
	}
	if !bodiless {
		block = h2.AppendField(block, []byte("content-length"), strconv.AppendInt(nil, int64(len(n.body)), 10))
	}
	for _, f := range n.fields[:n.used] {
		block = h2.AppendField(block, f.name, f.value)
	}
	m := h2.Message{Head: block, End: true}
	if !w.req.head && !bodiless {
		m.Data = n.body
	}
	d.send(w, m)
	return true
}

// statusText names the statuses of our own answers.
func statusText(status int) string {
	if text := statusTexts[status]; text != "" {
		return text
	}
	return "Status " + strconv.Itoa(status)
}

var statusTexts = map[int]string{
	200: "OK", 201: "Created", 202: "Accepted", 204: "No Content",
	301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified", 307: "Temporary Redirect",
	308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
	405: "Method Not Allowed", 408: "Request Timeout", 410: "Gone", 413: "Content Too Large", 414: "URI Too Long",
	417: "Expectation Failed", 421: "Misdirected Request", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
	451: "Unavailable For Legal Reasons", 500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
	503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}
