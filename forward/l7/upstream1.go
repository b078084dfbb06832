package l7

import (
	"time"

	"github.com/pharos-lb/pharos/forward"
)

// An upstream1 is the way to a backend that speaks HTTP/1, with TLS or without: a
// connection of its own.
type upstream1 struct {
	w      *work
	stream *forward.Stream
	back   *forward.Buffer // what the backend has sent
	head   int             // length of the final head, at the front of back
	chunks chunkReader
	unsent bool // the request is in work.out and goes when the answer is waited for

	// Owned by the pump.
	piece []byte // what flush is to write
	out   []byte
}

// send writes the head and the body as one. Where there is nothing more to send, that is left to fill.
func (u *upstream1) send(w *work) trouble {
	w.out = appendRequest(w.out[:0], &w.req, w.ends.to, w.upgrade)
	if w.pump == nil {
		w.out = append(w.out, w.body...)
		u.unsent = true
		return troubleNone
	}
	u.stream.WriteWithin(w.set.times.Response)
	if _, err := u.stream.Write(w.out); err != nil {
		return backendTrouble(err)
	}
	return troubleNone
}

// answer leaves the bytes of the final head at the front of u.back.
func (u *upstream1) answer(w *work) trouble {
	scan := headScan{}
	for interim := 0; ; {
		n := 0
		if u.back != nil {
			var f fault
			if n, f = scan.end(u.back.Unread()); f.bad() {
				return troubleProtocol
			}
		}
		if n == 0 {
			if t := u.fill(w); t != troubleNone {
				return t
			}
			continue
		}
		if f := w.res.parse(u.back.Unread()[:n]); f.bad() {
			return troubleProtocol
		}
		if w.res.status == 101 && !w.res.upgradedTo(w.upgrade) {
			return troubleProtocol
		}
		if w.res.status >= 200 || w.res.status == 101 {
			u.head = n
			return troubleNone
		}
		if interim++; interim > maxInterim {
			return troubleProtocol
		}
		if t := w.interim(); t != troubleNone {
			return t
		}
		u.back.R += n
		scan = headScan{}
	}
}

// fill reads more of the answer's head, and asks for it first if that has not been done.
func (u *upstream1) fill(w *work) trouble {
	if u.back != nil && u.back.W == forward.BufferSize {
		u.back.Compact()
		if u.back.W == forward.BufferSize {
			return troubleProtocol // larger than any head may be
		}
	}
	by := time.Now().Add(w.set.times.Response)
	for {
		u.stream.ReadWithin(max(min(time.Until(by), lookEvery), time.Millisecond))
		if w.pump != nil && w.pump.broken() != troubleNone {
			return w.pump.broken()
		}
		var err error
		switch {
		case u.unsent:
			u.unsent = false
			u.stream.WriteWithin(w.set.times.Response)
			var sent bool
			if u.back, sent, err = u.stream.Ask(w.out); !sent {
				return backendTrouble(err)
			}
		case u.back == nil:
			u.back, err = u.stream.Receive()
		default:
			_, err = u.back.Fill(u.stream)
		}
		if err == nil {
			return troubleNone
		}
		t, again := w.waited(backendTrouble(err), &by)
		if !again {
			return t
		}
	}
}

func (u *upstream1) untouched() bool { return u.back == nil }

func (u *upstream1) data(p *pump, payload []byte) {
	switch {
	case p.chunked:
		u.out = appendChunk(u.out, payload)
		u.piece = u.out
	case len(u.piece) == 0:
		u.piece = payload
	default:
		u.out = append(append(u.out[:0], u.piece...), payload...)
		u.piece = u.out
	}
}

func (u *upstream1) end(p *pump, trailers []byte) {
	if p.chunked {
		u.out = appendLastChunk(u.out, trailers)
		u.piece = u.out
	}
}

func (u *upstream1) flush(*pump) trouble {
	if len(u.piece) == 0 {
		return troubleNone
	}
	u.stream.WriteWithin(u.w.set.times.Response)
	_, err := u.stream.Write(u.piece)
	u.piece, u.out = nil, u.out[:0]
	if err != nil {
		return backendTrouble(err)
	}
	return troubleNone
}

func (u *upstream1) wire() *forward.Stream { return u.stream }

func (u *upstream1) interrupt() { u.stream.Interrupt() }

func (u *upstream1) Abort() { u.stream.Abort() }

func (u *upstream1) free() {
	u.back.Free()
	out := u.out[:0]
	if cap(out) > maxKept {
		out = nil
	}
	*u = upstream1{out: out}
}
