package l7

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/h2"
)

// A tunnelEnd is one side of a tunnel, in whatever protocol.
type tunnelEnd interface {
	// receive waits for bytes, which are valid until the next call; io.EOF after the last,
	// os.ErrDeadlineExceeded after silence.
	receive(within time.Duration) ([]byte, error)
	send(p []byte, within time.Duration) error
	// finish says that nothing more is sent.
	finish()
	// interrupt makes both fail soon. Any goroutine may call it.
	interrupt()
	abort()
	free()
}

// A streamEnd is a connection.
type streamEnd struct {
	stream *forward.Stream
	buf    *forward.Buffer // what was received last, or had come before
	fresh  bool            // buf has not been given out
}

func newStreamEnd(s *forward.Stream, early *forward.Buffer) *streamEnd {
	s.ForgetDeadlines()
	return &streamEnd{stream: s, buf: early, fresh: early != nil && early.R < early.W}
}

func (e *streamEnd) receive(within time.Duration) ([]byte, error) {
	if e.fresh {
		e.fresh = false
		return e.buf.Unread(), nil
	}
	e.free()
	e.stream.ReadWithin(within)
	b, err := e.stream.Receive()
	if err != nil {
		return nil, err
	}
	e.buf = b
	return b.Unread(), nil
}

func (e *streamEnd) send(p []byte, within time.Duration) error {
	e.stream.WriteWithin(within)
	_, err := e.stream.Write(p)
	return err
}

func (e *streamEnd) finish() { _ = e.stream.CloseWrite() }

func (e *streamEnd) interrupt() { e.stream.Interrupt() }

func (e *streamEnd) abort() { e.stream.Abort() }

func (e *streamEnd) free() {
	e.buf.Free()
	e.buf = nil
}

// A muxEnd is a stream of HTTP/2.
type muxEnd struct {
	stream *h2.Stream
	over   bool
	reset  func()
}

func (e *muxEnd) receive(within time.Duration) ([]byte, error) {
	if e.over {
		return nil, io.EOF
	}
	p, end, err := e.stream.Receive(within)
	switch {
	case errors.Is(err, h2.ErrStall):
		return nil, os.ErrDeadlineExceeded
	case err != nil:
		return nil, err
	}
	e.over = end
	if end && len(p) == 0 {
		return nil, io.EOF
	}
	return p, nil
}

func (e *muxEnd) send(p []byte, within time.Duration) error {
	return e.stream.Send(h2.Message{Data: p}, within)
}

func (e *muxEnd) finish() { _ = e.stream.Send(h2.Message{End: true}, time.Second) }

func (e *muxEnd) interrupt() { e.stream.Interrupt() }

func (e *muxEnd) abort() { e.reset() }

func (e *muxEnd) free() {}

// A tunnel copies between two ends, of which one is a stream of HTTP/2 at least, until both have ended. For two
// connections there is forward.Tunnel.
type tunnel struct {
	client, backend tunnelEnd
	idle            time.Duration
	ctx             context.Context

	mu      sync.Mutex // guards the rest
	failed  bool
	outcome forward.Outcome
	moved   time.Time
}

// run copies both ways and returns what it says about the backend.
func (t *tunnel) run() forward.Outcome {
	t.outcome, t.moved = forward.OutcomeServed, time.Now()
	down := make(chan struct{})
	go func() {
		defer close(down)
		t.copy(t.client, t.backend, forward.OutcomeClient, forward.OutcomeReset)
	}()
	t.copy(t.backend, t.client, forward.OutcomeReset, forward.OutcomeClient)
	<-down
	t.client.free()
	t.backend.free()
	if t.ctx.Err() != nil {
		return forward.OutcomeClient // we have cut it
	}
	return t.outcome
}

// fail notes the first failure and makes the other direction end.
func (t *tunnel) fail(o forward.Outcome) {
	t.mu.Lock()
	if !t.failed {
		t.failed, t.outcome = true, o
	}
	t.mu.Unlock()
	t.client.interrupt()
	t.backend.interrupt()
}

// look notes that something moved, or reports whether to go on after silence.
func (t *tunnel) look(moved bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if moved {
		t.moved = time.Now()
	}
	return !t.failed && t.ctx.Err() == nil && time.Since(t.moved) < t.idle
}

// copy moves bytes from src to dst until src ends, and then ends dst. onDst and onSrc are what it means if one breaks.
func (t *tunnel) copy(dst, src tunnelEnd, onDst, onSrc forward.Outcome) {
	for {
		p, err := src.receive(max(t.idle/4, time.Millisecond))
		switch {
		case err == nil:
			t.look(true)
			if err := dst.send(p, 2*t.idle); err != nil {
				t.fail(onDst)
				return
			}
		case errors.Is(err, io.EOF):
			dst.finish()
			return
		case errors.Is(err, os.ErrDeadlineExceeded) && t.look(false):
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.fail(forward.OutcomeTimeout)
			return
		default:
			t.fail(onSrc)
			return
		}
	}
}

// far is the backend's connection with what it has sent behind its head.
func (u *upstream1) far(*work) tunnelEnd {
	u.back.R += u.head
	back := u.back
	u.back = nil
	return newStreamEnd(u.stream, back)
}

// far is the backend's stream.
func (u *upstream2) far(*work) tunnelEnd {
	return &muxEnd{stream: u.stream.Load(), reset: u.Abort}
}

// tunnel passes a 101 on and then everything, both ways, until both sides have
// ended.
func (s *session) tunnel(ctx context.Context, w *work) {
	m := s.server.metrics
	m.answered(w.res.status)
	m.upgrades.Add(1)
	w.lease.Backend.Tell(true) // it has answered; how the tunnel ends may be anybody's doing
	defer w.lease.Release(false)
	w.out = appendResponse(w.out[:0], &w.res, w.req.minor, false, -1, true)
	u, direct := w.up.(*upstream1)
	if !direct {
		if s.writeClient(w, w.out) != troubleNone {
			w.lease.Backend.Report(forward.OutcomeClient)
			return
		}
		in := s.in
		s.in = nil
		s.run(ctx, w, newStreamEnd(s.client, in))
		return
	}
	u.back.R += u.head
	w.out = append(w.out, u.back.Unread()...)
	early := s.in.Unread() // sent before the answer was seen
	u.stream.WriteWithin(w.set.times.Response)
	if len(early) > 0 {
		if _, err := u.stream.Write(early); err != nil {
			w.lease.Backend.Report(forward.OutcomeReset)
			return
		}
	}
	if s.writeClient(w, w.out) != troubleNone {
		w.lease.Backend.Report(forward.OutcomeClient)
		return
	}
	// The tunnel may last for days: it needs none of this space.
	u.back.Free()
	s.in.Free()
	u.back, s.in = nil, nil
	s.splice1(ctx, w, u.stream)
}

// run is the tunnel to a backend that speaks HTTP/2.
func (s *session) run(ctx context.Context, w *work, near tunnelEnd) {
	t := tunnel{client: near, backend: w.up.far(w), idle: w.set.times.Tunnel, ctx: ctx}
	outcome := t.run()
	w.lease.Backend.Report(outcome)
	if outcome != forward.OutcomeServed {
		near.abort()
		t.backend.abort()
	}
}

// splice1 is the tunnel between two connections.
func (s *session) splice1(ctx context.Context, w *work, up *forward.Stream) {
	t := forward.Tunnel{Client: s.client, Backend: up, Idle: w.set.times.Tunnel}
	err := t.Run()
	switch {
	case err == nil:
		w.lease.Backend.Report(forward.OutcomeServed)
		return
	case ctx.Err() != nil: // we have cut it
		w.lease.Backend.Report(forward.OutcomeClient)
	case errors.Is(err, forward.ErrIdle):
		w.lease.Backend.Report(forward.OutcomeTimeout)
	case t.Broken == up:
		w.lease.Backend.Report(forward.OutcomeReset)
	default:
		w.lease.Backend.Report(forward.OutcomeClient)
	}
	s.client.Abort()
	up.Abort()
}
