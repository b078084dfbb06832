package h2

import (
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A Stream is one exchange.
type Stream struct {
	// Fields are those of the request that the peer sent, pseudo fields first. Valid
	// until Close. Truncated: there were more than are taken.
	Fields    []hpack.HeaderField
	Truncated bool

	// Immutable.
	conn               *Conn
	id                 uint32
	readable, writable chan struct{}

	// Owned by the goroutine that receives.
	taken []byte

	// conn.mu guards the rest.
	recv     []byte
	recvEnd  bool
	heads    [][]hpack.HeaderField // of the answer, not taken yet
	final    bool                  // the answer's head has come
	trailers []hpack.HeaderField
	bodiless bool // the answer has none, whatever its content-length says
	want     int64
	got      int64
	recvWin  int64
	consumed int64
	sendWin  int64
	sent     bool // our end of the stream
	waiting  bool
	stopped  bool
	halted   bool
	notify   func() // once, when it ends early
	handled  bool   // it does not count as open any more
	err      error
}

func newStream(c *Conn, id uint32) *Stream {
	return &Stream{
		conn: c, id: id, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
		want: -1, recvWin: int64(c.opts.Window), sendWin: c.initial,
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// headersLocked takes the answer's head, or trailers.
func (s *Stream) headersLocked(f *http2.MetaHeadersFrame) error {
	fail := http2.StreamError{StreamID: s.id, Code: http2.ErrCodeProtocol}
	if s.recvEnd {
		fail.Code = http2.ErrCodeStreamClosed
		return fail
	}
	fields := append([]hpack.HeaderField(nil), f.Fields...)
	if !s.conn.opts.Client || s.final {
		if !f.StreamEnded() || len(f.PseudoFields()) > 0 || s.want >= 0 && s.got != s.want && !s.bodiless {
			return fail
		}
		s.trailers = fields
	} else {
		if len(s.heads) >= maxHeads {
			return http2.StreamError{StreamID: s.id, Code: http2.ErrCodeEnhanceYourCalm}
		}
		status := f.PseudoValue("status")
		if len(status) != 3 {
			return fail
		}
		s.final = status[0] != '1'
		if !s.final && f.StreamEnded() {
			return fail
		}
		if s.final {
			if err := s.declare(fields); err != nil {
				return err
			}
			s.bodiless = s.bodiless || status == "204" || status == "304"
			if f.StreamEnded() && s.want > 0 && !s.bodiless {
				return fail
			}
		}
		s.heads = append(s.heads, fields)
	}
	if f.StreamEnded() {
		s.recvEnd = true
		s.closeIfDoneLocked()
	}
	signal(s.readable)
	return nil
}

// maxHeads is how many heads of one answer may wait.
const maxHeads = 16

// endLocked ends the stream with an error and wakes whoever waits.
func (s *Stream) endLocked(err error) {
	if s.err == nil {
		s.err = err
	}
	s.forgetLocked()
	signal(s.readable)
	signal(s.writable)
	if f := s.notify; f != nil {
		s.notify = nil
		f()
	}
}

// Notify has f called once if the stream ends early, at once if it has; nil takes that back.
// f must not wait, nor use this connection.
func (s *Stream) Notify(f func()) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if s.notify = f; f != nil && s.err != nil {
		s.notify = nil
		f()
	}
}

// closeIfDoneLocked forgets a stream that both sides have ended.
func (s *Stream) closeIfDoneLocked() {
	if s.recvEnd && s.sent {
		s.forgetLocked()
	}
}

func (s *Stream) forgetLocked() {
	delete(s.conn.streams, s.id)
	if s.conn.opts.Client {
		s.releaseLocked()
	}
}

// releaseLocked makes room for another stream.
func (s *Stream) releaseLocked() {
	if !s.handled {
		s.handled = true
		s.conn.open--
	}
}

// Close says that a handler is done with the stream: one that has not ended is reset.
func (s *Stream) Close() {
	c := s.conn
	c.mu.Lock()
	s.releaseLocked()
	if s.err == nil && !(s.sent && s.recvEnd) {
		code := http2.ErrCodeCancel
		switch {
		case c.opts.Client:
		case s.sent:
			code = http2.ErrCodeNo // RFC 9113, 8.1: the rest of the request is not needed
		default:
			code = http2.ErrCodeInternal
		}
		c.resetLocked(s.id, code)
	} else if s.err == nil && c.resets > 0 {
		c.resets--
	}
	if n := int64(len(s.recv)); n > 0 {
		s.recv = nil
		c.creditLocked(n)
	}
	leave := c.leaving && c.open == 0
	c.mu.Unlock()
	c.flush()
	if leave && !c.opts.Client {
		c.wire.InterruptRead() // the reader finds that nothing is left to do
	}
}

// Reset ends the stream at once.
func (s *Stream) Reset(code http2.ErrCode) {
	s.conn.mu.Lock()
	if s.err == nil && !(s.sent && s.recvEnd) {
		s.conn.resetLocked(s.id, code)
	}
	s.conn.mu.Unlock()
	s.conn.flush()
}

// Err returns why the stream has ended early, nil if it has not.
func (s *Stream) Err() error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.err
}

// Buffered returns how much has arrived, and whether that is all.
func (s *Stream) Buffered() (n int, all bool) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return len(s.recv), s.recvEnd
}

// Stop makes Receive and Head fail with ErrStall from now on.
func (s *Stream) Stop() {
	s.conn.mu.Lock()
	s.stopped = true
	s.conn.mu.Unlock()
	signal(s.readable)
}

// Interrupt is Stop that makes Send fail as well where it would wait. Any goroutine may call it.
func (s *Stream) Interrupt() {
	s.conn.mu.Lock()
	s.stopped, s.halted = true, true
	s.conn.mu.Unlock()
	signal(s.readable)
	signal(s.writable)
}

// wait waits for ch, within d.
func wait(ch chan struct{}, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ch:
		return nil
	case <-timer.C:
		return ErrStall
	}
}

// Receive waits for more of the body. The bytes are valid until the next call; end
// says that nothing follows but Trailers.
func (s *Stream) Receive(within time.Duration) (p []byte, end bool, err error) {
	c := s.conn
	for {
		c.mu.Lock()
		if len(s.recv) > 0 || s.recvEnd {
			s.recv, s.taken = s.taken[:0], s.recv
			n := int64(len(s.taken))
			c.creditLocked(n)
			s.creditLocked(n)
			flush := len(c.out) > 0
			end = s.recvEnd
			c.mu.Unlock()
			if flush {
				c.flush()
			}
			return s.taken, end, nil
		}
		err = s.err
		if err == nil && s.stopped {
			err = ErrStall
		}
		c.mu.Unlock()
		if err != nil {
			return nil, false, err
		}
		if err = wait(s.readable, within); err != nil {
			return nil, false, err
		}
	}
}

func (s *Stream) creditLocked(n int64) {
	if s.recvEnd || s.err != nil {
		return
	}
	if s.consumed += n; s.consumed >= int64(s.conn.opts.Window)/4 {
		s.conn.out = appendWindow(s.conn.out, s.id, uint32(s.consumed))
		s.recvWin += s.consumed
		s.consumed = 0
	}
}

// Head waits for the next head of the answer: interim ones first. end says that the
// answer has no body.
func (s *Stream) Head(within time.Duration) (fields []hpack.HeaderField, end bool, err error) {
	for {
		s.conn.mu.Lock()
		if len(s.heads) > 0 {
			fields = s.heads[0]
			s.heads = s.heads[1:]
			end = s.recvEnd && len(s.recv) == 0 && s.trailers == nil && len(s.heads) == 0
			s.conn.mu.Unlock()
			return fields, end, nil
		}
		err = s.err
		if err == nil && s.stopped {
			err = ErrStall
		}
		s.conn.mu.Unlock()
		if err != nil {
			return nil, false, err
		}
		if err = wait(s.readable, within); err != nil {
			return nil, false, err
		}
	}
}

// Trailers returns the fields behind the body, valid after the end.
func (s *Stream) Trailers() []hpack.HeaderField {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.trailers
}
