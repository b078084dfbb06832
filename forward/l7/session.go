package l7

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/route"
)

const (
	// maxInline is the largest request body that is collected before the request
	// is sent on.
	maxInline = 16 << 10
	// maxKept is the largest scratch space that goes back to the pool.
	maxKept = 64 << 10
	// lastRequest is how long a connection may take to send one more request, whose answer tells the client that it is
	// the last, when its listener goes away.
	lastRequest = 500 * time.Millisecond
)

// A work is the space that one request needs. It is pooled: a connection that
// waits for its next request holds none.
type work struct {
	req       request
	res       response
	reqFields [maxFields]field
	resFields [maxFields]field
	scan      headScan
	out       []byte // what is about to be written
	arena     []byte // texts that are made for the request
	resArena  []byte // holds the fields of an answer of HTTP/2

	// What it belongs to.
	server *Server
	conn   *forward.Conn[settings] // nil without TCP
	shard  uint32
	set    *settings // those in force when the request came
	down   downstream
	ends   *ends
	guest  *ends // ends of a request that another site's node has handed on; nil = none has

	// What is found out about the request.
	ask       route.Request
	space     route.Space
	rule      *route.Rule // that takes it; nil until then
	who       netip.Addr  // the client, as far as it is known
	trusted   bool        // what the peer says of that is believed
	prefers   int         // what errors are to be, if that was found out already
	requestID []byte

	lease      forward.Lease
	up         upstream  // what the lease is for; one of the next two
	up1        upstream1 // to a backend that speaks HTTP/1
	up2        upstream2 // HTTP/2
	upgrade    []byte    // the protocol that the client wants to change to; nil = none
	body       []byte    // of the request, if it is short
	replayable bool      // may be sent again on another connection
	keep       bool      // the client's connection goes on after this
	grpcEnds   bool      // a broken answer can end with a status of gRPC
	sent       bool      // part of the answer has been written to the client
	reached    bool      // and the client's side has taken it
	status     int       // of the answer; 0 until there is one
	chunked    bool      // the answer goes to an HTTP/1 client in chunks
	pump       *pump     // sends the rest of the body; nil if there is none

	// What metrics and the access log want to know.
	since              time.Time // when the request began to arrive
	gate               *gate     // that it has passed
	meter              *meter    // of its route
	upBytes, downBytes int64
	service, backend   string
	trouble            string
	kept               bool // the head's bytes are not looked at any more: the next two are what the log wants of its fields
	referer, agent     []byte
	line               []byte    // of a request that was refused before it was understood: what came of its first
	deadline           *deadline // of the whole; nil = none
}

var works = sync.Pool{New: func() any {
	w := new(work)
	w.req.fields, w.res.fields = w.reqFields[:0], w.resFields[:0]
	w.req.minor, w.req.version = 1, 1
	w.out = make([]byte, 0, 4<<10)
	return w
}}

func (w *work) free() {
	if w.up != nil {
		w.up.free()
	}
	w.up, w.pump, w.lease, w.upgrade = nil, nil, forward.Lease{}, nil
	w.server, w.conn, w.set, w.down, w.ends = nil, nil, nil, nil, nil
	if w.guest != nil {
		w.guest.whom.Gone()
		w.guest = nil
	}
	w.rule, w.requestID, w.ask = nil, nil, route.Request{}
	w.gate, w.meter, w.upBytes, w.downBytes = nil, nil, 0, 0
	w.service, w.backend, w.trouble = "", "", ""
	w.kept, w.referer, w.agent, w.line = false, nil, nil, nil
	w.who, w.trusted, w.prefers, w.status = netip.Addr{}, false, 0, 0
	w.scan, w.sent, w.reached, w.grpcEnds = headScan{}, false, false, false
	w.req.head, w.req.minor, w.req.version = false, 1, 1 // what a reply to an unread request assumes
	w.req.fields, w.res.fields, w.arena = w.reqFields[:0], w.resFields[:0], w.arena[:0]
	if cap(w.arena) > maxKept {
		w.arena = nil
	}
	if cap(w.out) > maxKept {
		w.out = make([]byte, 0, 4<<10)
	}
	if cap(w.resArena) > maxKept {
		w.resArena = nil
	}
	works.Put(w)
}

// begin takes space for a request that has begun to arrive.
func (s *Server) begin(c *forward.Conn[settings], down downstream, e *ends) *work {
	w := s.beginWith(c.Settings(), down, e)
	w.conn, w.shard = c, uint32(c.ID)
	return w
}

// draining reports whether the client's connection is to end after this.
func (w *work) draining() bool { return w.conn != nil && w.conn.Draining() }

// beginWith is begin for what did not come over a connection of TCP.
func (s *Server) beginWith(set *settings, down downstream, e *ends) *work {
	w := works.Get().(*work)
	w.server, w.set, w.down, w.ends = s, set, down, e
	w.who, w.since = e.peer.Addr(), time.Now()
	return w
}

// How long, and how many bytes, a client may go on sending after it was refused: many send all of a large body before they
// look for an answer.
const (
	lingerMost  = 10 * time.Second
	lingerBytes = 64 << 20
)

// A session is one client connection. Its goroutine owns it.
type session struct {
	server *Server
	conn   *forward.Conn[settings]
	client *forward.Stream
	in     *forward.Buffer // what the client has sent; nil while nothing is there
	ends   *ends

	requests int  // so far
	lingers  bool // the client may still be sending when the connection ends
}

// serveHTTP1 is the HTTP/1 engine.
func (s *Server) serveHTTP1(ctx context.Context, c *forward.Conn[settings]) {
	ss := session{server: s, conn: c, client: c.Stream, ends: newEnds(c)}
	defer func() {
		ss.in.Free()
		ss.ends.whom.Gone()
	}()
	for ss.await() {
		if ss.requests++; ss.requests == 1 && isPreface(ss.in.Unread()) {
			in := ss.in
			ss.in = nil
			s.serveHTTP2(ctx, c, in)
			return
		}
		w := s.begin(c, &ss, ss.ends)
		again := ss.request(ctx, w)
		w.finish()
		w.free()
		if !again {
			ss.leave()
			return
		}
	}
}

// await waits for the first byte of a request and reports whether there is one.
func (s *session) await() bool {
	if s.in != nil {
		if s.in.R < s.in.W {
			return true // pipelined
		}
		s.in.Free()
		s.in = nil
	}
	s.client.ReadWithin(s.conn.Settings().idle)
	going, err := !s.conn.Rest(), error(nil)
	if !going {
		s.in, err = s.client.Receive()
		going = errors.Is(err, os.ErrDeadlineExceeded) && s.conn.Draining()
	}
	s.conn.Busy()
	if going {
		// Its client knows nothing of that, and its next request is probably on the way: the answer says so.
		s.client.ReadWithin(s.conn.Farewell(lastRequest))
		s.in, err = s.client.Receive()
	}
	return err == nil
}

// request handles one request and reports whether another may follow.
func (s *session) request(ctx context.Context, w *work) bool {
	n, f, ok := s.readHead(w)
	switch {
	case !ok:
		return false
	case f.bad():
		return s.refuse(w, f)
	}
	if f := w.req.parse(s.in.Unread()[:n]); f.bad() {
		return s.refuse(w, f)
	}
	s.in.R += n
	return w.dispatch(ctx)
}

// readHead waits until a whole head has arrived and returns its length. ok is
// false when the client has gone.
func (s *session) readHead(w *work) (n int, f fault, ok bool) {
	var by time.Time
	for {
		n, f := w.scan.end(s.in.Unread())
		if n > 0 || f.bad() {
			return n, f, true
		}
		if s.in.W == forward.BufferSize {
			s.in.Compact()
		}
		if s.in.W == forward.BufferSize {
			if w.scan.line == 0 {
				return 0, fault{status: 414, text: "request line is too long", shed: shedURI}, true
			}
			return 0, fault{status: 431, text: "header fields are too large", shed: shedHeader}, true
		}
		if by.IsZero() {
			by = time.Now().Add(w.set.times.Header)
		}
		s.client.ReadUntil(by)
		if _, err := s.in.Fill(s.client); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return 0, fault{status: 408, text: "request head did not arrive in time", shed: shedHeaderTime}, true
			}
			return 0, fault{}, false
		}
	}
}

// refuse replies to a request that was not understood; the connection ends,
// because where the next request starts is not known.
func (s *session) refuse(w *work, f fault) bool {
	w.keep = false
	w.rememberLine(s.in.Unread())
	return w.reply(f)
}

// leave ends the connection so that the client can read what was sent to it, even if it is still sending. It is no part of a
// request: what is refused because there is too much to do must not count as work while its client goes.
func (s *session) leave() {
	if !s.lingers {
		return
	}
	s.in.Free()
	s.in = nil
	s.client.Linger(lingerMost, lingerBytes)
}

// writeClient writes p to the client.
func (s *session) writeClient(w *work, p []byte) trouble {
	w.sent = true
	s.client.WriteWithin(w.set.times.Write)
	n, err := s.client.Write(p)
	w.downBytes += int64(n)
	if err != nil {
		return troubleClient
	}
	w.reached = true
	return troubleNone
}

// collect appends the n bytes of a body to w.body.
func (s *session) collect(w *work, n int) (fault, bool) {
	take := min(n, s.in.W-s.in.R)
	w.body = append(w.body, s.in.Data[s.in.R:s.in.R+take]...)
	s.in.R += take
	since, total := time.Now(), n
	for n -= take; n > 0; {
		if w.tooSlow(since, int64(total-n)) {
			return fault{status: 408, text: "request body came too slowly", shed: shedBodyRate}, true
		}
		start := len(w.body)
		w.body = slices.Grow(w.body, n)[:start+n]
		s.client.ReadWithin(w.set.times.Body)
		got, err := s.client.Read(w.body[start:])
		w.body = w.body[:start+got]
		n -= got
		switch {
		case got > 0:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fault{status: 408, text: "request body did not arrive in time", shed: shedBodyTime}, true
		default:
			return fault{}, false
		}
	}
	return fault{}, true
}

// head appends the head of the final answer to w.out.
func (s *session) head(w *work, frame framing) {
	r, old := &w.res, w.req.minor == 0
	length := r.length
	switch {
	case r.status == 204:
		length = -1
	case length < 0 && r.empty && !w.req.head && r.status != 304:
		length = 0
	case r.trailing && frame == frameLength && !old: // HTTP/1 has trailers behind chunks only
		frame, length = frameChunked, -1
	}
	w.chunked = frame == frameChunked || frame == frameClose || frame == frameNone && r.chunked && r.status != 204
	if w.chunked && old {
		w.chunked = false
		if frame != frameNone {
			w.keep = false // the end of the connection is the end of the body
		}
	}
	w.out = appendResponse(w.out[:0], r, w.req.minor, w.chunked, length, w.keep)
	w.chunked = w.chunked && frame != frameNone
}

func (s *session) data(w *work, payload []byte) {
	if w.chunked {
		w.out = appendChunk(w.out, payload)
	} else {
		w.out = append(w.out, payload...)
	}
}

func (s *session) end(w *work, trailers []byte) {
	if w.chunked {
		w.out = appendLastChunk(w.out, trailers)
	}
}

func (s *session) flush(w *work) trouble {
	if len(w.out) == 0 {
		return troubleNone
	}
	t := s.writeClient(w, w.out)
	w.out = w.out[:0]
	return t
}

// interim passes a 1xx on.
func (s *session) interim(w *work) trouble {
	return s.writeClient(w, appendResponse(nil, &w.res, w.req.minor, false, -1, true))
}

// ended lets a client that may still be sending read the answer.
func (s *session) ended(w *work) {
	if !w.keep && (w.pump != nil || s.in.R < s.in.W || s.conn.Draining()) {
		s.lingers = true
	}
}

func (s *session) wire() *forward.Stream { return s.client }

func (s *session) hold(up upstream) { s.conn.Hold(up) }

func (s *session) gone() bool { return s.client.Gone() }

func (s *session) broken() bool { return s.client.Broken() }

func (s *session) abort() { s.client.Abort() }
