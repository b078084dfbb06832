package l7

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/h2"
	"golang.org/x/net/http2"
)

// An upstream2 is the way to a backend that speaks HTTP/2: one stream of a connection that
// other requests use too.
type upstream2 struct {
	w       *work
	peer    *peer
	stream  atomic.Pointer[h2.Stream] // nil before send
	stopped atomic.Bool               // Abort came before it
	touched bool
	over    bool   // the answer ended with its head
	lines   []byte // trailers of the answer
	block   []byte // the request's head

	// Owned by the pump.
	piece    []byte // what flush is to send
	out      []byte
	last     bool
	trailers []byte // an encoded field block
}

// trouble2 classifies an error of a stream to a backend.
func trouble2(err error) trouble {
	switch {
	case errors.Is(err, h2.ErrGoAway), errors.Is(err, h2.ErrRefused):
		return troubleRefused
	case errors.Is(err, h2.ErrStall):
		return troubleSilent
	case errors.Is(err, h2.ErrProtocol):
		return troubleProtocol
	default:
		return troubleReset
	}
}

func (u *upstream2) send(w *work) trouble {
	within := w.set.times.Response
	websocket := w.upgrade != nil && is(w.upgrade, "websocket")
	if !websocket {
		w.upgrade = nil // HTTP/2 knows no other
	} else if !u.peer.conn.Extended(w.set.times.Connect) {
		return troubleNoTunnel
	}
	u.block = appendRequest2(u.block[:0], &w.req, w.ends.to, u.peer.peers.via.TLS(), websocket)
	m := h2.Message{Head: u.block}
	if w.pump == nil && !websocket {
		m.Data, m.End = w.body, true
	}
	// Servers of gRPC know the end of what a client says by a DATA frame alone, as its protocol demands.
	empty := m.End && len(m.Data) == 0 && w.speaksGRPC()
	m.End = m.End && !empty
	s, err := u.peer.conn.Start(m, w.req.head, within)
	if err == nil && empty {
		err = s.Send(h2.Message{End: true}, within)
	}
	if s != nil {
		u.stream.Store(s)
		if u.stopped.Load() {
			s.Reset(http2.ErrCodeCancel)
		}
	}
	if err != nil {
		return trouble2(err)
	}
	return troubleNone
}

func (u *upstream2) answer(w *work) trouble {
	stream := u.stream.Load()
	by := time.Now().Add(w.set.times.Response)
	for interim := 0; ; {
		fields, end, err := stream.Head(max(min(time.Until(by), lookEvery), time.Millisecond))
		if err != nil {
			u.touched = u.touched || errors.Is(err, h2.ErrReset) // it has seen the request
			if t, again := w.waited(trouble2(err), &by); !again {
				return t
			}
			continue
		}
		u.touched = true
		if w.resArena, err = w.res.parse2(fields, w.resArena[:0]); err != nil {
			return troubleProtocol
		}
		switch status := w.res.status; {
		case status == 101:
			return troubleProtocol // RFC 9113, 8.6: there is none
		case status >= 200 && status < 300 && w.upgrade != nil:
			w.res.asUpgrade(w)
			return troubleNone
		case status >= 200:
			u.over, w.res.empty = end, end
			return troubleNone
		}
		if interim++; interim > maxInterim {
			return troubleProtocol
		}
		if t := w.interim(); t != troubleNone {
			return t
		}
	}
}

// deliver passes the body on. That it is as long as was said is seen to by package h2.
func (u *upstream2) deliver(w *work, frame framing) (keep bool, t trouble) {
	if u.over || w.req.head || w.res.status == 204 || w.res.status == 304 {
		w.down.end(w, nil)
		return true, w.down.flush(w)
	}
	stream := u.stream.Load()
	if n, all := stream.Buffered(); n == 0 && !all { // the body may take its time
		if t := w.down.flush(w); t != troubleNone {
			return true, t
		}
	}
	for {
		p, end, err := stream.Receive(w.set.times.Response)
		switch {
		case w.pump != nil && w.pump.broken() != troubleNone:
			return false, w.pump.broken()
		case err != nil:
			return false, trouble2(err)
		}
		if len(p) > 0 {
			w.down.data(w, p)
		}
		if end {
			u.lines = trailerLines(u.lines[:0], stream.Trailers())
			w.down.end(w, u.lines)
		}
		if t := w.down.flush(w); t != troubleNone || end {
			return true, t
		}
	}
}

func (u *upstream2) untouched() bool { return !u.touched }

func (u *upstream2) data(_ *pump, payload []byte) {
	if len(u.piece) == 0 {
		u.piece = payload
		return
	}
	u.out = append(append(u.out[:0], u.piece...), payload...)
	u.piece = u.out
}

func (u *upstream2) end(_ *pump, trailers []byte) {
	u.last = true
	if len(trailers) > 0 {
		u.trailers = appendTrailers2(u.trailers[:0], trailers)
	}
}

func (u *upstream2) flush(*pump) trouble {
	if len(u.piece) == 0 && !u.last {
		return troubleNone
	}
	m := h2.Message{Data: u.piece, End: u.last}
	if len(u.trailers) > 0 {
		m.Trailers = u.trailers
	}
	u.piece = nil
	if err := u.stream.Load().Send(m, u.w.set.times.Response); err != nil {
		return trouble2(err)
	}
	return troubleNone
}

func (u *upstream2) wire() *forward.Stream { return nil }

func (u *upstream2) interrupt() {
	if s := u.stream.Load(); s != nil {
		s.Interrupt()
	}
}

func (u *upstream2) Abort() {
	u.stopped.Store(true)
	if s := u.stream.Load(); s != nil {
		s.Reset(http2.ErrCodeCancel)
	}
}

func (u *upstream2) free() {
	if s := u.stream.Load(); s != nil {
		s.Close()
	}
	u.peer.release()
	u.w, u.peer = nil, nil
	u.stream.Store(nil)
	u.stopped.Store(false)
	u.touched, u.over, u.last = false, false, false
	u.piece, u.trailers = nil, nil
	if cap(u.out) > maxKept {
		u.out = nil
	}
}
