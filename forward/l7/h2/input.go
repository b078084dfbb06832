package h2

import (
	"time"

	"github.com/pharos-lb/pharos/forward"
	"golang.org/x/net/http2"
)

// input is what the framer reads from. It holds no buffer while it waits, and
// deadlines do not reach the framer, which would lose its place.
type input struct {
	conn *Conn
	buf  *forward.Buffer
	by   time.Time // when what is being read has to be there; zero: it may take any time
	// The framer reads a field block in one go, whatever number of frames it comes in.
	inBlock bool
	frames  int // of this block, at most; see Read
}

// limit bounds what is read from now on, until by is zero again.
func (in *input) limit() {
	if head := in.conn.opts.Head; head != nil {
		in.by = time.Now().Add(head())
	}
}

func (in *input) Read(p []byte) (int, error) {
	c := in.conn
	// A frame's header is asked for in one piece first; a payload that is as long, or what is left of
	// one, may count as well, which makes two of one frame at most.
	if in.inBlock && len(p) == frameHeader {
		if in.frames++; in.frames > spareFrames {
			return 0, http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
		}
	}
	for in.buf == nil {
		switch {
		case !in.by.IsZero():
			c.wire.ReadUntil(in.by)
		case c.opts.Idle != nil:
			c.wire.ReadWithin(c.opts.Idle())
		}
		if c.owes {
			c.owes = false
			c.kick()
		}
		b, err := c.wire.Receive()
		if err == nil {
			in.buf = b
			break
		}
		if !isTimeout(err) || c.opts.Waited == nil {
			return 0, err
		}
		if !in.by.IsZero() && !time.Now().Before(in.by) {
			return 0, ErrLate
		}
		if err := c.opts.Waited(); err != nil {
			return 0, err
		}
	}
	n := copy(p, in.buf.Unread())
	if in.buf.R += n; in.buf.R == in.buf.W {
		in.buf.Free()
		in.buf = nil
	}
	return n, nil
}
