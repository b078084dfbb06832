package forward

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A flow that fills this many buffers in a row is bulky and is spliced.
	bulkyAfter = 2
	// spliceChunk is how much one splice moves before deadlines are renewed.
	spliceChunk = 1 << 20
	// spliceWait is how long a splice waits for more before its pipe is given
	// back: an idle splice holds two descriptors and up to 1 MiB.
	spliceWait = 500 * time.Millisecond
)

// ErrIdle means that both directions were silent for the allowed time.
var ErrIdle = errors.New("idle for too long")

// A Tunnel copies between two streams, both ways, until both have ended.
type Tunnel struct {
	// Client and Backend are the two ends. The Tunnel closes neither.
	Client, Backend *Stream
	// Idle is how long both directions may be silent together; up to a quarter
	// more passes before it is noticed.
	Idle time.Duration

	// Up counts bytes to the backend, Down bytes to the client. Valid after Run.
	Up, Down int64
	// Broken is the stream on which the first failure was seen; nil when both
	// directions ended in order or were idle. Valid after Run.
	Broken *Stream

	start  time.Time
	last   atomic.Int64 // when bytes last moved, as nanoseconds since start
	failed atomic.Bool
	once   sync.Once
	err    error // set by once
}

// Run copies until both directions have ended, one breaks, or both are silent
// for Idle. An end of one direction is passed on (half-close) and the other
// goes on. It returns nil after two orderly ends.
func (t *Tunnel) Run() error {
	t.start = time.Now()
	t.Client.ForgetDeadlines()
	t.Backend.ForgetDeadlines()
	down := make(chan struct{})
	go func() {
		defer close(down)
		t.Down = t.copy(t.Client, t.Backend)
	}()
	t.Up = t.copy(t.Backend, t.Client)
	<-down
	return t.err
}

// fail notes the first failure and makes the other direction end.
func (t *Tunnel) fail(on *Stream, err error) {
	t.once.Do(func() {
		t.err, t.Broken = err, on
		t.failed.Store(true) // before Interrupt: copyOnce checks after it has set its deadline
		t.Client.Interrupt()
		t.Backend.Interrupt()
	})
}

func (t *Tunnel) touch() { t.last.Store(int64(time.Since(t.start))) }

// silent reports whether nothing has moved either way for Idle.
func (t *Tunnel) silent() bool {
	return time.Since(t.start)-time.Duration(t.last.Load()) >= t.Idle
}

// copy moves bytes from src to dst until src ends, and then ends dst: through
// buffers at first, inside the kernel while the flow is bulky.
func (t *Tunnel) copy(dst, src *Stream) (total int64) {
	full := 0
	for {
		var n int64
		var more bool
		if full < bulkyAfter {
			n, more = t.copyOnce(dst, src)
			full++
			if n < BufferSize {
				full = 0
			}
		} else {
			n, more = t.splice(dst, src)
			if n < spliceChunk {
				full = 0
			}
		}
		total += n
		if !more {
			return total
		}
	}
}

// copyOnce moves one buffer and reports whether there may be more.
func (t *Tunnel) copyOnce(dst, src *Stream) (int64, bool) {
	for {
		src.ReadWithin(max(t.Idle/4, time.Millisecond))
		if t.failed.Load() {
			return 0, false
		}
		b, err := src.Receive()
		if err == nil {
			t.touch()
			dst.WriteWithin(2 * t.Idle)
			n, err := dst.Write(b.Unread())
			b.Free()
			if err != nil {
				t.fail(dst, err)
			}
			return int64(n), err == nil
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = dst.CloseWrite() // if dst is gone its own read says so
			return 0, false
		case !errors.Is(err, os.ErrDeadlineExceeded):
			t.fail(src, err)
			return 0, false
		case t.silent():
			t.fail(nil, ErrIdle)
			return 0, false
		}
	}
}

// splice moves one chunk and reports whether there may be more.
func (t *Tunnel) splice(dst, src *Stream) (int64, bool) {
	n, err := dst.Splice(src, spliceChunk, min(spliceWait, t.Idle), 2*t.Idle)
	if n > 0 {
		t.touch()
	}
	switch {
	case t.failed.Load():
		return n, false
	case err == nil && n == spliceChunk:
		return n, true
	case err == nil || errors.Is(err, io.EOF):
		_ = dst.CloseWrite()
		return n, false
	case errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(dst.writeBy):
		src.readBy = time.Time{} // src was quiet: back to buffers
		return n, true
	default:
		if src.Gone() { // splice does not say which of the two it was
			dst = src
		}
		t.fail(dst, err)
		return n, false
	}
}
