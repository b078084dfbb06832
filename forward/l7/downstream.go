package l7

import (
	"context"

	"github.com/pharos-lb/pharos/forward"
)

// A downstream is the side of an exchange that asked, in whatever protocol: what a
// request and its answer look like there. Everything between (routes, backends,
// limits, retries, outcomes) is written once, for all of them, in terms of a work.
//
// The answer is given as one head, pieces of data and an end; nothing need be sent
// before flush.
type downstream interface {
	// collect appends the body of the request, n bytes, to w.body; false if the client
	// has gone.
	collect(w *work, n int) (fault, bool)
	// pump moves the body of the request to p.up until its end, on a goroutine of its
	// own; stopPump makes it return soon, and is followed by resume when it has.
	pump(p *pump) trouble
	stopPump()
	resume()

	// interim passes w.res, a 1xx, on.
	interim(w *work) trouble
	// head begins the final answer, w.res.
	head(w *work, frame framing)
	data(w *work, payload []byte)
	// end ends the answer; trailers are lines with CRLF.
	end(w *work, trailers []byte)
	flush(w *work) trouble
	// say gives an answer of our own and reports whether another request may follow.
	say(w *work, n *notice) bool
	// ended is called after a whole answer.
	ended(w *work)

	// tunnel passes a 101 on and then everything, both ways, until both sides end.
	tunnel(ctx context.Context, w *work)
	// wire is the connection, if an answer's body may be written to it as it is.
	wire() *forward.Stream
	// hold makes up end with the client's connection; nil lets go of it.
	hold(up upstream)
	// gone reports whether the client has gone.
	gone() bool
	// broken reports whether an answer can reach the client no more; one that has only finished sending is gone, but
	// may still read.
	broken() bool
	// abort ends what has begun so that the client sees that it is not the whole.
	abort()
}
