package l7

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errLate is the cause of a context that ends because a request took too long.
var errLate = errors.New("the request took too long")

// A deadline ends a request that takes longer than Times.Request. It is there only on
// listeners that have such a limit.
type deadline struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc

	mu   sync.Mutex // guards the rest
	up   upstream   // what is aborted when the time is over
	late bool
}

// within bounds what is left of a request, and returns a context that ends with it.
func (w *work) within(ctx context.Context) context.Context {
	limit := w.set.times.Request
	if limit <= 0 {
		return ctx
	}
	d := &deadline{}
	ctx, d.cancel = context.WithCancelCause(ctx)
	d.timer = time.AfterFunc(max(limit-time.Since(w.since), 0), d.expire)
	w.deadline = d
	return ctx
}

func (d *deadline) expire() {
	d.mu.Lock()
	defer d.mu.Unlock() // until the end: what hold has let go of may be lent again
	d.late = true
	d.cancel(errLate)
	if d.up != nil {
		d.up.Abort()
	}
}

// hold makes up end with the request's time, and with the client's connection; nil lets go of it.
func (w *work) hold(up upstream) {
	if d := w.deadline; d != nil {
		d.mu.Lock()
		d.up = up
		if d.late && up != nil {
			up.Abort()
		}
		d.mu.Unlock()
	}
	w.down.hold(up)
}

// isLate reports whether the request's time is over.
func (w *work) isLate() bool {
	d := w.deadline
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.late
}

// relax lifts the limit: the request is over, or has become something that may last.
func (w *work) relax() {
	if d := w.deadline; d != nil {
		d.timer.Stop()
		d.mu.Lock()
		d.up = nil // the timer may be at it already, and what is upgraded goes on
		d.mu.Unlock()
		w.deadline = nil
		d.cancel(nil)
	}
}
