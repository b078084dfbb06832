package l7

import (
	"context"

	"github.com/pharos-lb/pharos/forward"
)

// An upstream is the side of an exchange that answers, opposite a downstream: what one
// request and its answer look like on the way to one backend. Everything between is
// written once, in terms of a work.
type upstream interface {
	// send sends the head of w.req, with w.body if there is no pump.
	send(w *work) trouble
	// answer reads heads until the final one, which it leaves in w.res; interim ones go
	// to w.interim.
	answer(w *work) trouble
	// deliver passes the body of the answer to w.down, and reports whether the connection is fit
	// for another request.
	deliver(w *work, frame framing) (keep bool, t trouble)
	// untouched reports whether nothing has come of an answer.
	untouched() bool

	// The rest of the body of the request comes from a pump, on its goroutine: pieces of data, which
	// stay valid until flush, and an end with trailers, lines with CRLF. Nothing need be sent before flush.
	data(p *pump, payload []byte)
	end(p *pump, trailers []byte)
	flush(p *pump) trouble
	// wire is the connection, if the body may be written to it as it is.
	wire() *forward.Stream
	// interrupt makes whoever waits for the backend fail soon. Any goroutine may call it.
	interrupt()

	// far is the backend's end of a tunnel, after a 101.
	far(w *work) tunnelEnd
	// Abort ends the exchange so that the backend sees that it is not the whole. Any
	// goroutine may call it.
	Abort()
	// free gives back what the exchange needed.
	free()
}

// reach makes w.up the way to the backend of w.lease.
func (w *work) reach() {
	if w.lease.Joined != nil {
		w.up2.w, w.up2.peer = w, w.lease.Joined.(*peer)
		w.up = &w.up2
		return
	}
	w.up1 = upstream1{w: w, stream: w.lease.Stream, out: w.up1.out[:0]}
	w.up = &w.up1
}

// renew gives the way to the backend up and takes another one to it.
func (w *work) renew(ctx context.Context, terms forward.Terms) error {
	w.up.free()
	w.up = nil
	if err := w.lease.Renew(ctx, terms); err != nil {
		return err
	}
	w.reach()
	return nil
}
