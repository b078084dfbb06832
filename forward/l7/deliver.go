package l7

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/pharos-lb/pharos/forward"
)

const (
	// What is left of a body after its first buffer is spliced if it is at least
	// this long.
	spliceAtLeast = 64 << 10
	// spliceChunk is how much one splice moves before deadlines are renewed.
	spliceChunk = 1 << 20
)

// deliver passes the final answer on and reports whether the upstream
// connection is fit for another request.
func (s *session) deliver(w *work) (keepBackend bool, t trouble) {
	r, old := &w.res, w.req.minor == 0
	frame := r.framing(w.req.head)
	length := r.length
	if r.status == 204 {
		length = -1
	}
	chunked := frame == frameChunked || frame == frameClose || frame == frameNone && r.chunked && r.status != 204
	if chunked && old {
		chunked = false
		if frame != frameNone {
			w.keep = false // the end of the connection is the end of the body
		}
	}
	if s.conn.Draining() || w.pump != nil && !w.pump.settled() {
		w.keep = false
	}
	w.out = appendResponse(w.out[:0], r, w.req.minor, chunked, length, w.keep)
	keepBackend = r.persistent() && frame != frameClose
	w.back.R += w.scan.next
	switch frame {
	case frameNone:
		t = s.writeClient(w, w.out)
	case frameLength:
		t = s.sendLength(w, r.length)
	case frameChunked:
		t = s.sendChunked(w, !old)
	case frameClose:
		t = s.sendRest(w, !old)
	}
	// Bytes behind the answer belong to no request of ours.
	return keepBackend && w.back.R == w.back.W, t
}

// sendLength sends w.out and a body of n bytes.
func (s *session) sendLength(w *work, n int64) trouble {
	b := w.back
	for {
		take := int(min(n, int64(b.W-b.R)))
		w.out = append(w.out, b.Data[b.R:b.R+take]...)
		b.R += take
		n -= int64(take)
		if t := s.writeClient(w, w.out); t != troubleNone {
			return t
		}
		w.out = w.out[:0]
		if n == 0 {
			return troubleNone
		}
		if n >= spliceAtLeast {
			return s.spliceLength(w, n)
		}
		if t := s.moreBody(w); t != troubleNone {
			return t
		}
	}
}

// spliceLength moves n bytes inside the kernel.
func (s *session) spliceLength(w *work, n int64) trouble {
	wait := s.server.opts.ResponseTimeout
	up := w.lease.Stream
	for n > 0 {
		chunk := min(n, spliceChunk)
		start := time.Now()
		moved, err := s.client.Splice(up, chunk, wait, wait)
		n -= moved
		switch {
		case moved == chunk:
		case err == nil || errors.Is(err, io.EOF):
			return troubleReset // short body
		case !errors.Is(err, os.ErrDeadlineExceeded):
			if up.Gone() { // splice does not say which of the two it was
				return troubleReset
			}
			return troubleClient
		case time.Since(start) >= 2*wait:
			return troubleClient // takes nothing
		case moved == 0:
			return troubleSilent
		}
	}
	up.ForgetDeadlines()
	return troubleNone
}

// moreBody waits for more of the body in w.back, which is empty or holds the
// start of a line.
func (s *session) moreBody(w *work) trouble {
	if w.back.W == forward.BufferSize {
		w.back.Compact()
	}
	w.lease.Stream.ReadWithin(s.server.opts.ResponseTimeout)
	if w.pump != nil && w.pump.broken() != troubleNone {
		return w.pump.broken()
	}
	if _, err := w.back.Fill(w.lease.Stream); err != nil {
		if w.pump != nil && w.pump.broken() != troubleNone {
			return w.pump.broken()
		}
		return backendTrouble(err)
	}
	return troubleNone
}

// sendChunked sends w.out and a chunked body, chunked anew or plain.
func (s *session) sendChunked(w *work, chunked bool) trouble {
	c, b := &w.chunks, w.back
	c.reset()
	for {
		for !c.done() {
			payload, used, err := c.next(b.Unread())
			if err != nil {
				return troubleProtocol
			}
			if used == 0 {
				break
			}
			b.R += used
			if chunked {
				w.out = appendChunk(w.out, payload)
			} else {
				w.out = append(w.out, payload...)
			}
		}
		if c.done() && chunked {
			w.out = appendLastChunk(w.out, c.trailers)
		}
		if len(w.out) > 0 {
			if t := s.writeClient(w, w.out); t != troubleNone {
				return t
			}
			w.out = w.out[:0]
		}
		if c.done() {
			return troubleNone
		}
		if t := s.moreBody(w); t != troubleNone {
			return t
		}
	}
}

// sendRest sends w.out and everything until the backend closes.
func (s *session) sendRest(w *work, chunked bool) trouble {
	b := w.back
	for {
		if chunked {
			w.out = appendChunk(w.out, b.Unread())
		} else {
			w.out = append(w.out, b.Unread()...)
		}
		b.R = b.W
		if t := s.writeClient(w, w.out); t != troubleNone {
			return t
		}
		w.out = w.out[:0]
		w.lease.Stream.ReadWithin(s.server.opts.ResponseTimeout)
		if _, err := b.Fill(w.lease.Stream); err != nil {
			if !errors.Is(err, io.EOF) {
				return backendTrouble(err)
			}
			if chunked {
				return s.writeClient(w, appendLastChunk(w.out, nil))
			}
			return troubleNone
		}
	}
}
