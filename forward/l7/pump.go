package l7

import (
	"sync/atomic"
	"time"
)

// settleFor is how long an answer waits for the last write of the request's
// body to return, so that the connection can go on.
const settleFor = 50 * time.Millisecond

// A pump sends the rest of a request body upstream while the session's own
// goroutine reads the answer. While it runs, the reading side of the client's
// connection and the writing side of the upstream one are its own.
type pump struct {
	work    *work
	chunked bool
	left    int64 // bytes of the body still to come, when not chunked

	started bool      // by the session's goroutine
	most    int64     // how large the body may be; 0 = any size
	since   time.Time // of the start
	total   int64     // bytes of the body so far; of the pump's goroutine until it is joined
	up      upstream
	chunks  chunkReader

	trouble  atomic.Uint32 // why it ended early
	last     atomic.Bool   // everything has been read, the last write is going on
	finished atomic.Bool   // everything has been written
	moved    atomic.Int64  // when bytes last came, as UnixNano
	stopping atomic.Bool
	done     chan struct{}
}

// start starts the pump's goroutine, which stop joins.
func (p *pump) start(up upstream) {
	p.started, p.up, p.done = true, up, make(chan struct{})
	p.most, p.since = p.work.maxBody(), time.Now()
	p.moved.Store(p.since.UnixNano())
	go func() {
		defer close(p.done)
		p.run()
	}()
}

func (p *pump) run() {
	t := p.work.down.pump(p)
	switch t {
	case troubleNone:
		p.finished.Store(true)
	case troubleReset, troubleSilent:
		// The backend takes no more. It may have answered already: the session
		// goes on reading and sees what there is to see.
	default:
		p.trouble.Store(uint32(t)) // before the interrupt: see waited
		p.up.interrupt()
	}
}

// grown notes that more of the body has come, and says what is wrong with that.
func (p *pump) grown(n int64) trouble {
	p.moved.Store(time.Now().UnixNano())
	p.total += n
	switch {
	case p.most > 0 && p.total > p.most:
		return troubleLarge
	case !p.chunked && p.work.tooSlow(p.since, p.total):
		return troubleRate
	}
	return troubleNone
}

// broken says why the client's side of the body failed, if it did.
func (p *pump) broken() trouble { return trouble(p.trouble.Load()) }

// ended reports whether the pump's goroutine is done with both connections.
func (p *pump) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// busy reports whether the body is still on its way.
func (p *pump) busy() bool {
	return !p.ended() && time.Since(time.Unix(0, p.moved.Load())) < p.work.set.times.Response
}

// complete reports whether the whole body was read and sent.
func (p *pump) complete() bool { return p.finished.Load() }

// settled is complete, after a moment for a last write that is going on.
func (p *pump) settled() bool {
	if !p.finished.Load() && p.last.Load() {
		timer := time.NewTimer(settleFor)
		defer timer.Stop()
		select {
		case <-p.done:
		case <-timer.C:
		}
	}
	return p.finished.Load()
}

// stop ends the pump and waits for its goroutine. It returns complete.
func (p *pump) stop() bool {
	if !p.finished.Load() {
		p.stopping.Store(true)
		p.work.down.stopPump()
		p.up.interrupt()
	}
	<-p.done
	p.work.down.resume()
	return p.finished.Load()
}
