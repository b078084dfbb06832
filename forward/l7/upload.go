package l7

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/pharos-lb/pharos/forward"
)

// pump moves the body of an HTTP/1 request. While it runs, the reading side of the
// client's connection is its own.
func (s *session) pump(p *pump) trouble {
	if p.chunked {
		return s.pumpChunked(p)
	}
	return s.pumpLength(p)
}

func (s *session) stopPump() { s.client.InterruptRead() }

func (s *session) resume() { s.client.ForgetDeadlines() }

// receive reads more of the body into the session's buffer.
func (s *session) receive(p *pump) trouble {
	if s.in == nil {
		s.in = forward.NewBuffer()
	}
	if s.in.W == forward.BufferSize {
		s.in.Compact()
	}
	s.client.ReadWithin(p.work.set.times.Body)
	if p.stopping.Load() {
		return troubleClient
	}
	if _, err := s.in.Fill(s.client); err != nil {
		return p.clientTrouble(err)
	}
	return p.grown(0)
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

// pumpLength sends a body of known length.
func (s *session) pumpLength(p *pump) trouble {
	for {
		b := s.in
		take := min(p.left, int64(b.W-b.R))
		if take > 0 {
			p.left -= take
			if t := p.grown(take); t != troubleNone {
				return t
			}
			if p.left == 0 {
				p.last.Store(true)
			}
			p.up.data(p, b.Data[b.R:b.R+int(take)])
			if p.left == 0 {
				p.up.end(p, nil)
			}
			if t := p.up.flush(p); t != troubleNone {
				return t
			}
			b.R += int(take)
		}
		if p.left == 0 {
			return troubleNone
		}
		if p.left >= spliceAtLeast && p.up.wire() != nil {
			if t := s.splice(p); t != troubleNone {
				return t
			}
			continue
		}
		if t := s.receive(p); t != troubleNone {
			return t
		}
	}
}

// splice moves a chunk inside the kernel. It leaves the end of the body to
// pumpLength.
func (s *session) splice(p *pump) trouble {
	times := &p.work.set.times
	client := s.client
	chunk := min(p.left-1, spliceChunk)
	start := time.Now()
	n, err := p.up.wire().Splice(client, chunk, times.Body, times.Response)
	if p.stopping.Load() {
		return troubleClient
	}
	p.left -= n
	if t := p.grown(n); n > 0 && t != troubleNone {
		return t
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
	case time.Since(start) >= times.Body+times.Response:
		return troubleSilent
	case n == 0:
		return troubleSlow
	default:
		return troubleNone
	}
}

// pumpChunked sends a chunked body, chunked anew.
func (s *session) pumpChunked(p *pump) trouble {
	c := &p.chunks
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
			if t := p.grown(int64(len(payload))); t != troubleNone {
				return t
			}
			p.up.data(p, payload)
		}
		if c.done() {
			p.last.Store(true)
			p.up.end(p, c.trailers)
		}
		if t := p.up.flush(p); t != troubleNone {
			return t
		}
		if c.done() {
			return troubleNone
		}
		if t := s.receive(p); t != troubleNone {
			return t
		}
	}
}
