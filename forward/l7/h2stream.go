package l7

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/h2"
	"golang.org/x/net/http2"
)

// A stream2 is one request of a client that speaks HTTP/2: the downstream side of its
// exchange.
type stream2 struct {
	front  *front2
	stream *h2.Stream

	block    []byte // the answer's head, encoded and not sent yet
	trailers []byte // the same
	over     bool   // the answer ends with what is about to be sent
	key      []byte // of a WebSocket handshake with an HTTP/1 backend
}

// request handles the request.
func (d *stream2) request(ctx context.Context, w *work) {
	w.keep = true
	if d.stream.Truncated {
		w.contentTypeOf(d.stream.Fields)
		w.reply(fault{status: 431, text: "header fields are too large", shed: shedHeader})
		return
	}
	extended, f, ok := w.req.parse2(d.stream.Fields, make([]byte, 0, arenaSize(d.stream.Fields)))
	if !ok {
		d.stream.Reset(http2.ErrCodeProtocol)
		return
	}
	if f.bad() {
		w.reply(f)
		return
	}
	n, all := d.stream.Buffered()
	switch {
	case all && w.req.length < 0 && len(d.stream.Trailers()) == 0:
		w.req.length = int64(n)
		if n == 0 {
			w.req.length = -1 // no body, and nothing that says so
		}
	case w.req.length < 0:
		w.req.chunked = true
	}
	if extended != nil {
		if d.key = w.connect(extended); d.key == nil {
			w.reply(fault{status: 501, text: "only WebSocket can be connected to"})
			return
		}
	}
	w.dispatch(ctx)
}

func arenaSize(fields []h2.Field) (n int) {
	for i := range fields {
		n += len(fields[i].Name) + len(fields[i].Value)
	}
	return n
}

// collect appends a body of known length.
func (d *stream2) collect(w *work, n int) (fault, bool) {
	since, total := time.Now(), n
	for n > 0 {
		if w.tooSlow(since, int64(total-n)) {
			return fault{status: 408, text: "request body came too slowly", shed: shedBodyRate}, true
		}
		p, end, err := d.stream.Receive(w.set.times.Body)
		switch {
		case errors.Is(err, h2.ErrStall):
			return fault{status: 408, text: "request body did not arrive in time", shed: shedBodyTime}, true
		case err != nil:
			return fault{}, false
		}
		w.body = append(w.body, p...)
		if n -= len(p); end && n > 0 {
			return fault{}, false
		}
	}
	return fault{}, true
}

// pump moves the body.
func (d *stream2) pump(p *pump) trouble {
	times := &p.work.set.times
	var lines []byte
	for {
		payload, end, err := d.stream.Receive(times.Body)
		switch {
		case p.stopping.Load():
			return troubleClient
		case errors.Is(err, h2.ErrStall):
			return troubleSlow
		case err != nil:
			return troubleClient
		}
		if t := p.grown(int64(len(payload))); t != troubleNone {
			return t
		}
		p.up.data(p, payload)
		if end {
			p.last.Store(true)
			lines = trailerLines(lines, d.stream.Trailers())
			p.up.end(p, lines)
		}
		if t := p.up.flush(p); t != troubleNone {
			return t
		}
		if end {
			return troubleNone
		}
	}
}

// trailerLines appends the trailers that may be passed on as HTTP/1 lines.
func trailerLines(dst []byte, fields []h2.Field) []byte {
	for i := range fields {
		name, value := []byte(fields[i].Name), trim([]byte(fields[i].Value))
		if isToken(name) && isValue(value) && kindOf(name) == kindOther {
			dst = appendField(dst, name, value)
		}
	}
	return dst
}

func (d *stream2) stopPump() { d.stream.Stop() }

func (d *stream2) resume() {}

// interim passes a 1xx on; 101 has no meaning in HTTP/2.
func (d *stream2) interim(w *work) trouble {
	return d.send(w, h2.Message{Head: appendHead2(nil, &w.res, -1)})
}

func (d *stream2) head(w *work, frame framing) {
	length := w.res.length
	if w.res.status == 204 || frame == frameChunked || frame == frameClose {
		length = -1
	}
	d.block = appendHead2(d.block[:0], &w.res, length)
	w.out = w.out[:0]
}

// appendHead2 encodes the head of an answer.
func appendHead2(dst []byte, r *response, length int64) []byte {
	dst = h2.AppendStatus(dst, r.status)
	for i := range r.fields {
		f := &r.fields[i]
		switch f.kind {
		case kindOther, kindTrailer, kindForwarded, kindForwardedFor, kindForwardedOther, kindHost, kindExpect:
			if !f.drop {
				dst = h2.AppendField(dst, f.name, f.value)
			}
		}
	}
	if length >= 0 {
		var digits [20]byte
		dst = h2.AppendField(dst, []byte("content-length"), strconv.AppendInt(digits[:0], length, 10))
	}
	return dst
}

func (d *stream2) data(w *work, payload []byte) { w.out = append(w.out, payload...) }

func (d *stream2) end(_ *work, trailers []byte) {
	d.over = true
	if len(trailers) > 0 {
		d.trailers = appendTrailers2(d.trailers, trailers)
	}
}

func (d *stream2) flush(w *work) trouble {
	m := h2.Message{Data: w.out, End: d.over, Trailers: d.trailers}
	if len(d.block) > 0 {
		m.Head = d.block
	}
	if m.Head == nil && len(m.Data) == 0 && !m.End {
		return troubleNone
	}
	t := d.send(w, m)
	d.block, w.out = d.block[:0], w.out[:0]
	return t
}

func (d *stream2) send(w *work, m h2.Message) trouble {
	w.sent = true
	w.downBytes += int64(len(m.Head) + len(m.Data) + len(m.Trailers))
	if err := d.stream.Send(m, w.set.times.Write); err != nil {
		return troubleClient
	}
	w.reached = true
	return troubleNone
}

func (d *stream2) ended(*work) {}

func (d *stream2) wire() *forward.Stream { return nil }

// hold makes the exchange with the backend fail as soon as the client leaves, or its connection ends.
func (d *stream2) hold(up upstream) {
	if up == nil {
		d.stream.Notify(nil)
		return
	}
	d.stream.Notify(up.interrupt)
}

func (d *stream2) gone() bool { return d.stream.Err() != nil }

func (d *stream2) broken() bool { return d.gone() }

func (d *stream2) abort() { d.stream.Reset(http2.ErrCodeInternal) }
