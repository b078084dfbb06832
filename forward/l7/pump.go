package l7

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/forward"
)

// settleFor is how long an answer waits for the last write of the request's
// body to return, so that the connection can go on.
const settleFor = 50 * time.Millisecond

// A pump sends the rest of a request body upstream while the session's own
// goroutine reads the answer. While it runs, the reading side of the client's
// connection and the writing side of the upstream one are its own.
type pump struct {
	session *session
	chunked bool
	left    int64 // bytes of the body still to come, when not chunked

	started bool // by the session's goroutine
	up      *forward.Stream
	chunks  chunkReader
	out     []byte

	trouble  atomic.Uint32 // why it ended early
	last     atomic.Bool   // everything has been read, the last write is going on
	finished atomic.Bool   // everything has been written
	moved    atomic.Int64  // when bytes last came, as UnixNano
	stopping atomic.Bool
	done     chan struct{}
}

// start starts the pump's goroutine, which stop joins.
func (p *pump) start(up *forward.Stream) {
	p.started, p.up, p.done = true, up, make(chan struct{})
	p.moved.Store(time.Now().UnixNano())
	go func() {
		defer close(p.done)
		p.run()
	}()
}

func (p *pump) run() {
	t := troubleNone
	if p.chunked {
		t = p.runChunked()
	} else {
		t = p.runLength()
	}
	switch t {
	case troubleNone:
		p.finished.Store(true)
	case troubleReset, troubleSilent:
		// The backend takes no more. It may have answered already: the session
		// goes on reading and sees what there is to see.
	default:
		p.trouble.Store(uint32(t)) // before the interrupt: see fillBack
		p.up.Interrupt()
	}
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
	return !p.ended() && time.Since(time.Unix(0, p.moved.Load())) < p.session.server.opts.ResponseTimeout
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
		p.session.client.InterruptRead()
		p.up.Interrupt()
	}
	<-p.done
	p.session.client.ForgetDeadlines()
	return p.finished.Load()
}

// receive reads more of the body into the session's buffer.
func (p *pump) receive() trouble {
	s := p.session
	if s.in == nil {
		s.in = forward.NewBuffer()
	}
	if s.in.W == forward.BufferSize {
		s.in.Compact()
	}
	s.client.ReadWithin(s.server.opts.BodyTimeout)
	if p.stopping.Load() {
		return troubleClient
	}
	if _, err := s.in.Fill(s.client); err != nil {
		return p.clientTrouble(err)
	}
	p.moved.Store(time.Now().UnixNano())
	return troubleNone
}

func (p *pump) clientTrouble(err error) trouble {
	switch {
	case p.stopping.Load():
		return troubleClient
	case errors.Is(err, os.ErrDeadlineExceeded):
		return troubleSlow
	default:
		return troubleClient
	}
}

func (p *pump) send(b []byte) trouble {
	p.up.WriteWithin(p.session.server.opts.ResponseTimeout)
	if _, err := p.up.Write(b); err != nil {
		return backendTrouble(err)
	}
	return troubleNone
}

// runLength sends a body of known length.
func (p *pump) runLength() trouble {
	s := p.session
	for {
		b := s.in
		take := min(p.left, int64(b.W-b.R))
		if take > 0 {
			p.left -= take
			if p.left == 0 {
				p.last.Store(true)
			}
			if t := p.send(b.Data[b.R : b.R+int(take)]); t != troubleNone {
				return t
			}
			b.R += int(take)
		}
		if p.left == 0 {
			return troubleNone
		}
		if p.left >= spliceAtLeast {
			if t := p.splice(); t != troubleNone {
				return t
			}
			continue
		}
		if t := p.receive(); t != troubleNone {
			return t
		}
	}
}

// splice moves a chunk inside the kernel. It leaves the end of the body to
// runLength.
func (p *pump) splice() trouble {
	opts := &p.session.server.opts
	client := p.session.client
	chunk := min(p.left-1, spliceChunk)
	start := time.Now()
	n, err := p.up.Splice(client, chunk, opts.BodyTimeout, opts.ResponseTimeout)
	if p.stopping.Load() {
		return troubleClient
	}
	p.left -= n
	if n > 0 {
		p.moved.Store(time.Now().UnixNano())
	}
	switch {
	case n == chunk:
		return troubleNone
	case err == nil || errors.Is(err, io.EOF):
		return troubleClient
	case !errors.Is(err, os.ErrDeadlineExceeded):
		if client.Gone() { // splice does not say which of the two it was
			return troubleClient
		}
		return troubleReset
	case time.Since(start) >= opts.BodyTimeout+opts.ResponseTimeout:
		return troubleSilent
	case n == 0:
		return troubleSlow
	default:
		return troubleNone
	}
}

// runChunked sends a chunked body, chunked anew.
func (p *pump) runChunked() trouble {
	s, c := p.session, &p.chunks
	for {
		for !c.done() {
			payload, used, err := c.next(s.in.Unread())
			if err != nil {
				return troubleBody
			}
			if used == 0 {
				break
			}
			s.in.R += used
			p.out = appendChunk(p.out, payload)
		}
		if c.done() {
			p.last.Store(true)
			p.out = appendLastChunk(p.out, c.trailers)
		}
		if len(p.out) > 0 {
			if t := p.send(p.out); t != troubleNone {
				return t
			}
			p.out = p.out[:0]
		}
		if c.done() {
			return troubleNone
		}
		if t := p.receive(); t != troubleNone {
			return t
		}
	}
}
