package l7

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/h2"
)

const (
	// maxStreams is how many requests a client may have open on one connection.
	maxStreams = 128
	// spareFor is how long a goroutine that has handled a stream waits for another
	// one before it ends: a stack that has grown is worth keeping for a moment.
	spareFor = 5 * time.Second
)

// errIdle ends a connection on which nothing happens.
var errIdle = errors.New("idle")

// isPreface reports whether a connection begins with HTTP/2 (RFC 9113, 3.3). No
// HTTP/1 method begins like it.
func isPreface(b []byte) bool {
	const first = "PRI * HTTP/2.0\r\n"
	n := min(len(b), len(first))
	return n >= len("PRI ") && bytes.Equal(b[:n], []byte(first[:n]))
}

// A front2 is a client connection that speaks HTTP/2.
type front2 struct {
	server *Server
	conn   *forward.Conn[settings]
	h2     *h2.Conn
	ctx    context.Context
	ends   *ends
	open   sync.WaitGroup
	left   bool      // it has been said that no more streams are taken
	warned time.Time // when it was said that none are wanted
}

// serveHTTP2 is the HTTP/2 engine. The connection's goroutine reads frames; each
// request is handled on one of the goroutines that are kept for that.
func (s *Server) serveHTTP2(ctx context.Context, c *forward.Conn[settings], early *forward.Buffer) {
	f := &front2{server: s, conn: c, ctx: ctx, ends: newEnds(c)}
	defer f.ends.whom.Gone()
	f.h2 = h2.New(c.Stream, early, h2.Options{
		Serve: f.serve, MaxStreams: c.Settings().gate.limits.Streams, Extended: true, Waited: f.waited, Stall: c.Settings().times.Write,
		Idle: func() time.Duration { return c.Settings().idle }, Head: func() time.Duration { return c.Settings().times.Header },
	})
	s.metrics.http2.Add(1)
	c.Stream.ForgetDeadlines()
	if !c.Rest() { // from here on draining interrupts the reader
		f.leave()
	}
	switch err := f.h2.Run(); { // how else a client's connection ends is its own business
	case errors.Is(err, h2.ErrFlood):
		s.metrics.floods2.Add(1)
	case errors.Is(err, h2.ErrLate):
		s.metrics.shed[shedHeaderTime].Add(1)
	}
	f.open.Wait() // handlers hold what is the connection's
}

// leave tells the client to go elsewhere with what it has not sent yet.
func (f *front2) leave() {
	f.left = true
	f.conn.Busy()
	f.conn.Stream.ForgetRead() // handlers may be writing
	f.h2.Leave()
}

// waited is called when the client has sent nothing for long, or the reader was interrupted.
func (f *front2) waited() error {
	switch {
	case f.left && f.h2.Open() == 0:
		return errIdle
	case f.h2.Open() == 0:
		f.leave()
		return errIdle
	case f.conn.Draining() && !f.left:
		f.leave()
	}
	f.conn.Stream.ForgetRead()
	return nil
}

// farewell2 is how long streams are still taken that were on their way when a client was told to go elsewhere.
const farewell2 = 2 * time.Second

// usher tells a client that goes on here while another process has the sockets to go there. Nothing that it has sent is refused.
func (f *front2) usher() {
	switch {
	case f.warned.IsZero():
		f.warned = time.Now()
		f.h2.Warn()
	case time.Since(f.warned) > farewell2:
		f.leave()
	}
}

// serve hands a stream to a goroutine.
func (f *front2) serve(s *h2.Stream) {
	f.open.Add(1)
	if !f.left && f.conn.Draining() {
		f.usher()
	}
	select {
	case f.server.streams <- job{f, s}:
	default:
		f.server.handlers.Go(func() { f.server.handle(job{f, s}) })
	}
}

// A job is a stream to be handled.
type job struct {
	front  *front2
	stream *h2.Stream
}

// handle handles streams until there has been none for a while.
func (s *Server) handle(j job) {
	timer := time.NewTimer(spareFor)
	defer timer.Stop()
	for {
		j.front.handle(j.stream)
		timer.Reset(spareFor)
		select {
		case j = <-s.streams:
		case <-timer.C:
			return
		case <-s.ended:
			return
		}
	}
}

// handle handles one request.
func (f *front2) handle(stream *h2.Stream) {
	d := &stream2{front: f, stream: stream}
	w := f.server.begin(f.conn, d, f.ends)
	d.request(f.ctx, w)
	w.finish()
	w.free()
	stream.Close()
	f.open.Done()
}
