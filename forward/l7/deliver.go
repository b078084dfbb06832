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
func (w *work) deliver() (keepBackend bool, t trouble) {
	w.editAnswer()
	w.announce()
	frame := w.res.framing(w.req.head)
	if w.draining() || w.pump != nil && !w.pump.settled() {
		w.keep = false
	}
	w.grpcEnds = frame != frameNone && w.answersGRPC() // now: the head's bytes may be written over by the body
	w.down.head(w, frame)
	return w.up.deliver(w, frame)
}

// announce says in an answer over TCP that HTTP/3 is spoken too (RFC 7838). What the backend says of itself is
// not for this client then.
func (w *work) announce() {
	if !w.announces() {
		return
	}
	for i := range w.res.fields {
		if f := &w.res.fields[i]; is(f.name, "alt-svc") {
			f.drop = true
		}
	}
	w.res.fields = append(w.res.fields, field{name: nameAltSvc, value: w.set.altSvc})
}

// announces reports whether the client is told of HTTP/3.
func (w *work) announces() bool { return w.set.altSvc != nil && w.req.version != 3 }

var nameAltSvc = []byte("alt-svc")

// deliver passes the body on.
func (u *upstream1) deliver(w *work, frame framing) (keep bool, t trouble) {
	keep = w.res.persistent() && frame != frameClose
	u.back.R += u.head
	switch frame {
	case frameNone:
		w.down.end(w, nil)
		t = w.down.flush(w)
	case frameLength:
		t = u.sendLength(w, w.res.length)
	case frameChunked:
		t = u.sendChunked(w)
	case frameClose:
		t = u.sendRest(w)
	}
	// Bytes behind the answer belong to no request of ours.
	return keep && u.back.R == u.back.W, t
}

// sendLength sends a body of n bytes.
func (u *upstream1) sendLength(w *work, n int64) trouble {
	b := u.back
	for {
		take := int(min(n, int64(b.W-b.R)))
		w.down.data(w, b.Data[b.R:b.R+take])
		b.R += take
		if n -= int64(take); n == 0 {
			w.down.end(w, nil)
		}
		if t := w.down.flush(w); t != troubleNone || n == 0 {
			return t
		}
		if n >= spliceAtLeast && w.down.wire() != nil {
			return u.spliceLength(w, n)
		}
		if t := u.moreBody(w); t != troubleNone {
			return t
		}
	}
}

// spliceLength moves n bytes inside the kernel.
func (u *upstream1) spliceLength(w *work, n int64) trouble {
	wait := w.set.times.Response
	up, client := u.stream, w.down.wire()
	for n > 0 {
		chunk := min(n, spliceChunk)
		start := time.Now()
		moved, err := client.Splice(up, chunk, wait, wait)
		n -= moved
		w.downBytes += moved
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

// moreBody waits for more of the body in u.back, which is empty or holds the
// start of a line.
func (u *upstream1) moreBody(w *work) trouble {
	if u.back.W == forward.BufferSize {
		u.back.Compact()
	}
	u.stream.ReadWithin(w.set.times.Response)
	if w.pump != nil && w.pump.broken() != troubleNone {
		return w.pump.broken()
	}
	if _, err := u.back.Fill(u.stream); err != nil {
		if w.pump != nil && w.pump.broken() != troubleNone {
			return w.pump.broken()
		}
		return backendTrouble(err)
	}
	return troubleNone
}

// sendChunked sends a chunked body.
func (u *upstream1) sendChunked(w *work) trouble {
	c, b := &u.chunks, u.back
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
			w.down.data(w, payload)
		}
		if c.done() {
			w.down.end(w, c.trailers)
		}
		if t := w.down.flush(w); t != troubleNone || c.done() {
			return t
		}
		if t := u.moreBody(w); t != troubleNone {
			return t
		}
	}
}

// sendRest sends everything until the backend closes.
func (u *upstream1) sendRest(w *work) trouble {
	b := u.back
	for {
		w.down.data(w, b.Unread())
		b.R = b.W
		if t := w.down.flush(w); t != troubleNone {
			return t
		}
		u.stream.ReadWithin(w.set.times.Response)
		if _, err := b.Fill(u.stream); err != nil {
			if !errors.Is(err, io.EOF) {
				return backendTrouble(err)
			}
			w.down.end(w, nil)
			return w.down.flush(w)
		}
	}
}
