package l7

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/h2"
	"github.com/quic-go/quic-go/http3"
)

// maxHead3 bounds a request's head, compressed and not.
const maxHead3 = 16 << 10

// A stream3 is one request of a client that speaks HTTP/3: the downstream side of its exchange.
// Package http3 has parsed the head; what it lets through is held to our rules again.
type stream3 struct {
	front *front3
	link  *link3
	rw    http.ResponseWriter
	r     *http.Request

	status  int    // of the answer's head, which is in the header of rw
	began   bool   // the answer's head has been written, or the stream taken over
	key     []byte // of a WebSocket handshake with an HTTP/1 backend
	aborted bool
	vain    bool // the client has made work for nothing
	unhold  func() bool
	first   []byte // of the body: what was read to see whether there is one
	got     int64  // bytes of the body, so far
	over    bool   // its end has been read
	buf     *forward.Buffer
}

// request handles the request.
func (d *stream3) request(ctx context.Context, w *work) {
	w.keep = true
	defer func() {
		d.buf.Free()
		d.aborted = d.aborted || !d.began // package http3 would say 200
	}()
	fields := d.fields()
	extended, f, ok := w.req.parse2(fields, make([]byte, 0, arenaSize(fields)))
	w.req.version = 3
	switch {
	case !ok:
		d.vain = true
		return
	case f.bad():
		w.reply(f)
		return
	}
	if early, f := d.early(w); f.bad() {
		w.reply(f)
		return
	} else if early {
		w.req.fields = append(w.req.fields, field{name: []byte("early-data"), value: []byte("1")})
	}
	if extended != nil {
		if d.key = w.connect(extended); d.key == nil {
			w.reply(fault{status: 501, text: "only WebSocket can be connected to"})
			return
		}
		w.dispatch(ctx)
		return
	}
	if w.req.length < 0 {
		if f, ok := d.peek(w); f.bad() || !ok {
			if ok {
				w.reply(f)
			}
			d.vain = !ok
			return
		}
	}
	w.dispatch(ctx)
}

// fields are those of the request, as they may have come.
func (d *stream3) fields() []h2.Field {
	r := d.r
	out := []h2.Field{
		{Name: ":method", Value: r.Method},
		{Name: ":scheme", Value: "https"},
		{Name: ":path", Value: r.RequestURI},
		{Name: ":authority", Value: r.Host},
	}
	if r.Method == http.MethodConnect && r.Proto != "HTTP/3.0" && r.Proto != "" {
		out[2].Value = r.URL.RequestURI()
		out = append(out, h2.Field{Name: ":protocol", Value: r.Proto})
	}
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range r.Header[name] {
			out = append(out, h2.Field{Name: strings.ToLower(name), Value: value})
		}
	}
	if len(r.Trailer) > 0 { // package http3 has taken it out of the header
		names = names[:0]
		for name := range r.Trailer {
			names = append(names, name)
		}
		slices.Sort(names)
		out = append(out, h2.Field{Name: "trailer", Value: strings.Join(names, ", ")})
	}
	return out
}

// early reports whether the request is one of 0-RTT that may go on at once: somebody may have recorded it and sent it
// again, so it must be safe. All others wait until the handshake has shown that the client is there (RFC 8470).
func (d *stream3) early(w *work) (bool, fault) {
	done := d.link.conn.HandshakeComplete()
	select {
	case <-done:
		return false, fault{}
	default:
	}
	switch string(w.req.method) {
	case "GET", "HEAD", "OPTIONS":
		return true, fault{}
	}
	timer := time.NewTimer(w.set.times.Header)
	defer timer.Stop()
	select {
	case <-done:
		return false, fault{}
	case <-timer.C:
	case <-d.r.Context().Done():
	}
	return false, fault{status: 425, text: "the handshake did not end in time"}
}

// peek finds out whether a request that says nothing of its body has one; ok is false if the client has gone. Methods that have
// one rarely wait for its beginning, or its end.
func (d *stream3) peek(w *work) (_ fault, ok bool) {
	switch string(w.req.method) {
	case "GET", "HEAD", "OPTIONS", "DELETE":
	default:
		w.req.chunked = true
		return fault{}, true
	}
	d.buf = forward.NewBuffer()
	d.readWithin(w.set.times.Body)
	n, err := d.read(d.buf.Data[:])
	switch {
	case n > 0:
		d.first, w.req.chunked = d.buf.Data[:n], true
	case errors.Is(err, io.EOF):
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fault{status: 408, text: "request body did not arrive in time", shed: shedBodyTime}, true
	default:
		return fault{}, false
	}
	return fault{}, true
}

// A deadliner is what a http3.ResponseWriter is besides.
type deadliner interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	FlushError() error
}

func (d *stream3) readWithin(within time.Duration) {
	_ = d.rw.(deadliner).SetReadDeadline(time.Now().Add(within))
}

// read reads some of the body.
func (d *stream3) read(p []byte) (int, error) {
	n, err := d.r.Body.Read(p)
	d.link.scale.take(n)
	d.got += int64(n)
	d.over = errors.Is(err, io.EOF)
	return n, err
}

// unread reports whether some of the body may still be on its way, or would be.
func (d *stream3) unread() bool { return !d.over && d.got != d.r.ContentLength }

// collect appends a body of known length.
func (d *stream3) collect(w *work, n int) (fault, bool) {
	since, total := time.Now(), n
	for n > 0 {
		if w.tooSlow(since, int64(total-n)) {
			return fault{status: 408, text: "request body came too slowly", shed: shedBodyRate}, true
		}
		at := len(w.body)
		w.body = slices.Grow(w.body, n)[:at+n]
		d.readWithin(w.set.times.Body)
		got, err := d.read(w.body[at:])
		w.body = w.body[:at+got]
		switch n -= got; {
		case n == 0 || got > 0 && err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fault{status: 408, text: "request body did not arrive in time", shed: shedBodyTime}, true
		case err != nil:
			return fault{}, false
		}
	}
	return fault{}, true
}

// pump moves the body.
func (d *stream3) pump(p *pump) trouble {
	if d.buf == nil {
		d.buf = forward.NewBuffer()
	}
	payload, err := d.first, error(nil)
	for {
		if len(payload) == 0 {
			d.readWithin(p.work.set.times.Body)
			if p.stopping.Load() {
				return troubleClient
			}
			var n int
			n, err = d.read(d.buf.Data[:])
			payload = d.buf.Data[:n]
		}
		if !p.chunked && int64(len(payload)) > p.left {
			return troubleBody // package http3 sees to it too
		}
		if len(payload) > 0 {
			if t := p.grown(int64(len(payload))); t != troubleNone {
				return t
			}
			p.left -= int64(len(payload))
			p.up.data(p, payload)
			payload = nil
		}
		end := errors.Is(err, io.EOF)
		switch {
		case end && !p.chunked && p.left != 0:
			return troubleClient
		case end:
			p.last.Store(true)
			p.up.end(p, trailerLines3(d.r.Trailer))
		case err != nil:
			return p.clientTrouble(err)
		}
		if t := p.up.flush(p); t != troubleNone || end {
			return t
		}
	}
}

// trailerLines3 are the trailers that may be passed on as HTTP/1 lines.
func trailerLines3(h http.Header) []byte {
	var fields []h2.Field
	for name, values := range h {
		for _, value := range values {
			fields = append(fields, h2.Field{Name: strings.ToLower(name), Value: value})
		}
	}
	return trailerLines(nil, fields)
}

func (d *stream3) stopPump() { _ = d.rw.(deadliner).SetReadDeadline(time.Now()) }

func (d *stream3) resume() {}

// fill makes the header of w.res the one that is written next.
func (d *stream3) fill(r *response, length int64) {
	h := d.rw.Header()
	clear(h)
	for i := range r.fields {
		f := &r.fields[i]
		switch f.kind {
		case kindOther, kindForwarded, kindForwardedFor, kindForwardedOther, kindHost, kindExpect:
			if !f.drop {
				h.Add(string(f.name), string(f.value))
			}
		}
	}
	for _, name := range []string{"Date", "Content-Type"} { // package http3 would make them up
		if _, there := h[name]; !there {
			h[name] = nil
		}
	}
	if length >= 0 {
		h.Set("Content-Length", strconv.FormatInt(length, 10))
	}
}

// interim passes a 1xx on; 101 has no meaning in HTTP/3.
func (d *stream3) interim(w *work) trouble {
	d.fill(&w.res, -1)
	_ = d.rw.(deadliner).SetWriteDeadline(time.Now().Add(w.set.times.Write))
	d.rw.WriteHeader(w.res.status)
	return troubleNone
}

func (d *stream3) head(w *work, frame framing) {
	length := w.res.length
	if w.res.status == 204 || frame == frameChunked || frame == frameClose {
		length = -1
	}
	d.fill(&w.res, length)
	d.status = w.res.status // the first flush writes it: until then the answer may become another
	w.out = w.out[:0]
}

func (d *stream3) data(w *work, payload []byte) { w.out = append(w.out, payload...) }

func (d *stream3) end(_ *work, trailers []byte) {
	for len(trailers) > 0 {
		var line []byte
		line, trailers = firstLine(trailers)
		if colon := bytes.IndexByte(line, ':'); colon > 0 {
			d.rw.Header().Add(http.TrailerPrefix+string(line[:colon]), string(trim(line[colon+1:])))
		}
	}
}

func (d *stream3) flush(w *work) trouble {
	if d.began && len(w.out) == 0 {
		return troubleNone
	}
	if !d.began {
		d.rw.WriteHeader(d.status)
	}
	w.sent, d.began = true, true
	rw := d.rw.(deadliner)
	_ = rw.SetWriteDeadline(time.Now().Add(w.set.times.Write))
	w.downBytes += int64(len(w.out))
	var err error
	if len(w.out) > 0 {
		_, err = d.rw.Write(w.out)
		w.out = w.out[:0]
	}
	if err == nil {
		err = rw.FlushError()
	}
	if err != nil {
		return troubleClient
	}
	w.reached = true
	return troubleNone
}

// say sends an answer of our own.
func (d *stream3) say(w *work, n *notice) bool {
	h := d.rw.Header()
	clear(h)
	h.Set("Server", w.server.opts.ServerName)
	bodiless := n.bodiless()
	if h["Content-Type"] = nil; !bodiless || n.bare { // package http3 would make one up
		h.Set("Content-Type", n.contentType)
	}
	if !bodiless {
		h.Set("Content-Length", strconv.Itoa(len(n.body)))
	}
	for _, f := range n.fields[:n.used] {
		h.Add(string(f.name), string(f.value))
	}
	d.status = n.status
	w.out = w.out[:0]
	if !w.req.head && !bodiless {
		w.out = append(w.out, n.body...)
	}
	d.flush(w)
	return true
}

func (d *stream3) ended(*work) {}

func (d *stream3) wire() *forward.Stream { return nil }

// hold makes the exchange with the backend fail as soon as the client leaves.
func (d *stream3) hold(up upstream) {
	if d.unhold != nil {
		d.unhold()
		d.unhold = nil
	}
	if up != nil {
		d.unhold = afterFunc(d.r.Context(), up.interrupt)
	}
}

// afterFunc is context.AfterFunc, but when what it returns has returned f neither runs nor will.
func afterFunc(ctx context.Context, f func()) (stop func() bool) {
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(done)
		f()
	})
	return func() bool {
		stopped := cancel()
		if !stopped {
			<-done
		}
		return stopped
	}
}

func (d *stream3) gone() bool { return d.r.Context().Err() != nil }

func (d *stream3) broken() bool { return d.gone() }

func (d *stream3) abort() { d.aborted = true }

// tunnel passes a WebSocket on as the body of the stream (RFC 9220).
func (d *stream3) tunnel(_ context.Context, w *work) {
	m := w.server.metrics
	defer w.lease.Release(false)
	if !w.res.proves(d.key) {
		w.lease.Backend.ReportAnswer(forward.OutcomeProtocol)
		w.up.Abort()
		w.reply(fault{status: 502, text: "the backend did not accept the WebSocket"})
		return
	}
	w.status = 200
	m.answered(200)
	m.upgrades.Add(1)
	w.lease.Backend.Tell(true)
	d.fill(&w.res, -1)
	d.rw.WriteHeader(200)
	stream, err := d.rw.(http3.HTTPStreamer).HTTPStream()
	if err != nil {
		w.lease.Backend.Report(forward.OutcomeClient)
		w.up.Abort()
		return
	}
	d.began = true
	d.hold(nil) // the request's context ends with our side of the stream too, and then the other side goes on
	end := &quicEnd{stream: stream, scale: &d.link.scale, buf: forward.NewBuffer()}
	t := tunnel{client: end, backend: w.up.far(w), idle: w.set.times.Tunnel, ctx: d.link.conn.Context()}
	outcome := t.run()
	w.lease.Backend.Report(outcome)
	if outcome != forward.OutcomeServed {
		w.up.Abort()
		end.abort()
	}
}

// A quicEnd is a stream of HTTP/3.
type quicEnd struct {
	stream  *http3.Stream
	scale   *scale3
	buf     *forward.Buffer
	stopped atomic.Bool
}

func (e *quicEnd) receive(within time.Duration) ([]byte, error) {
	_ = e.stream.SetReadDeadline(time.Now().Add(within))
	if e.stopped.Load() { // interrupt may have come before that deadline
		return nil, os.ErrDeadlineExceeded
	}
	n, err := e.stream.Read(e.buf.Data[:])
	e.scale.take(n)
	if n > 0 {
		return e.buf.Data[:n], nil // an error comes again
	}
	return nil, err
}

func (e *quicEnd) send(p []byte, within time.Duration) error {
	_ = e.stream.SetWriteDeadline(time.Now().Add(within))
	if e.stopped.Load() {
		return os.ErrDeadlineExceeded
	}
	_, err := e.stream.Write(p)
	return err
}

func (e *quicEnd) finish() { _ = e.stream.Close() }

func (e *quicEnd) interrupt() {
	e.stopped.Store(true)
	_ = e.stream.SetDeadline(time.Now())
}

func (e *quicEnd) abort() {
	e.stream.CancelRead(quicCancelled)
	e.stream.CancelWrite(quicCancelled)
}

func (e *quicEnd) free() { e.buf.Free() }

// quicCancelled is H3_REQUEST_CANCELLED.
const quicCancelled = 0x10c
