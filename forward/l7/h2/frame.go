package h2

import (
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// appendFrame appends a frame's header; the caller appends length bytes behind it.
func appendFrame(dst []byte, kind http2.FrameType, flags http2.Flags, id uint32, length int) []byte {
	return append(dst, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags),
		byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func appendWindow(dst []byte, id, n uint32) []byte {
	dst = appendFrame(dst, http2.FrameWindowUpdate, 0, id, 4)
	return append(dst, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// handle does what a frame says.
func (c *Conn) handle(f http2.Frame) error {
	if !c.settled {
		if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
	}
	id := f.Header().StreamID
	moved := false
	var err error
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		moved = true
		err = c.headers(f)
	case *http2.DataFrame:
		moved = len(f.Data()) > 0 || f.StreamEnded()
		err = c.data(f)
	case *http2.SettingsFrame:
		err = c.settings(f)
		c.settled = true
		c.know()
	case *http2.WindowUpdateFrame:
		moved, err = c.windowUpdate(id, f.Increment)
	case *http2.RSTStreamFrame:
		err = c.reset(id, f.ErrCode)
	case *http2.PingFrame:
		err = c.ping(f)
	case *http2.GoAwayFrame:
		c.mu.Lock()
		c.gone = true
		if c.opts.Client {
			for id, s := range c.streams {
				if id > f.LastStreamID {
					s.endLocked(ErrGoAway)
				}
			}
		}
		c.mu.Unlock()
	case *http2.PriorityFrame:
		if f.StreamDep == id {
			err = http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
		}
	case *http2.PushPromiseFrame:
		err = http2.ConnectionError(http2.ErrCodeProtocol) // nobody was asked for any
	}
	if err != nil {
		return err
	}
	if moved {
		c.vain = 0
	} else if c.vain++; c.vain > spareFrames {
		now := time.Now()
		if now.Sub(c.calm) < calmFor {
			return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
		}
		c.calm, c.vain = now, 0
	}
	return nil
}

func (c *Conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	c.mu.Lock()
	c.greeted = true
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			delta := int64(s.Val) - c.initial
			c.initial = int64(s.Val)
			for _, st := range c.streams {
				if st.sendWin += delta; st.sendWin > maxWindow {
					return http2.ConnectionError(http2.ErrCodeFlowControl)
				}
			}
			c.wakeSendersLocked()
		case http2.SettingMaxConcurrentStreams:
			c.limit = s.Val
		case http2.SettingMaxFrameSize:
			c.frame = int(min(s.Val, maxOut))
		case http2.SettingEnableConnectProtocol:
			c.extended = s.Val == 1
		}
		return nil
	})
	if err == nil {
		c.out = appendFrame(c.out, http2.FrameSettings, http2.FlagSettingsAck, 0, 0)
		err = c.owesLocked()
	}
	c.mu.Unlock()
	return err
}

func (c *Conn) ping(f *http2.PingFrame) error {
	if f.IsAck() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = appendFrame(c.out, http2.FramePing, http2.FlagPingAck, 0, 8)
	c.out = append(c.out, f.Data[:]...)
	return c.owesLocked()
}

// owesLocked counts an answer that the reader has put into the buffer. It does not write that itself: it would wait
// until the peer reads, and the peer may read only when it has written what we do not read meanwhile.
func (c *Conn) owesLocked() error {
	c.owes = true
	if c.owed++; c.owed > maxOwed {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return nil
}

// windowUpdate reports whether something was sent since the last one.
func (c *Conn) windowUpdate(id, n uint32) (moved bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	moved = c.data64 != c.seen64
	c.seen64 = c.data64
	if id == 0 {
		if c.sendWin += int64(n); c.sendWin > maxWindow {
			return moved, http2.ConnectionError(http2.ErrCodeFlowControl)
		}
	} else {
		s := c.streams[id]
		if s == nil {
			if c.idleLocked(id) {
				return moved, http2.ConnectionError(http2.ErrCodeProtocol)
			}
			return moved, nil
		}
		if s.sendWin += int64(n); s.sendWin > maxWindow {
			return moved, http2.StreamError{StreamID: id, Code: http2.ErrCodeFlowControl}
		}
	}
	c.wakeSendersLocked()
	return moved, nil
}

// idleLocked reports whether a stream has never been opened.
func (c *Conn) idleLocked(id uint32) bool {
	if (id%2 == 1) == c.opts.Client {
		return id >= c.nextID
	}
	return id > c.last
}

func (c *Conn) reset(id uint32, code http2.ErrCode) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[id]
	if s == nil {
		if c.idleLocked(id) {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		return nil
	}
	if code == http2.ErrCodeRefusedStream {
		s.endLocked(ErrRefused)
	} else {
		s.endLocked(ErrReset)
	}
	if c.tooManyLocked() {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return nil
}

// headers opens a stream, or brings an answer or trailers.
func (c *Conn) headers(f *http2.MetaHeadersFrame) error {
	id := f.StreamID
	if f.HasPriority() && f.Priority.StreamDep == id {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
	}
	c.shorten(f)
	c.mu.Lock()
	s := c.streams[id]
	switch {
	case s != nil:
		defer c.mu.Unlock()
		if f.Truncated {
			return http2.StreamError{StreamID: id, Code: http2.ErrCodeEnhanceYourCalm}
		}
		return s.headersLocked(f)
	case c.opts.Client:
		defer c.mu.Unlock()
		if c.idleLocked(id) || id%2 == 0 {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		return c.strayLocked(id)
	case id%2 == 0:
		c.mu.Unlock()
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case id <= c.last:
		c.mu.Unlock()
		return http2.ConnectionError(http2.ErrCodeStreamClosed)
	}
	c.last = id
	if c.leaving || c.open >= c.opts.MaxStreams {
		if c.tooManyLocked() {
			c.mu.Unlock()
			return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
		}
		c.resetLocked(id, http2.ErrCodeRefusedStream)
		err := c.owesLocked()
		c.mu.Unlock()
		return err
	}
	s = newStream(c, id)
	s.Fields = append(s.Fields[:0], f.Fields...)
	s.Truncated = f.Truncated
	if err := s.declare(s.Fields); err != nil {
		c.mu.Unlock()
		return err
	}
	s.recvEnd = f.StreamEnded()
	if s.recvEnd && s.want > 0 {
		c.mu.Unlock()
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
	}
	c.streams[id] = s
	c.open++
	c.mu.Unlock()
	c.opts.Serve(s)
	return nil
}

// shorten leaves of a field section what one may have.
func (c *Conn) shorten(f *http2.MetaHeadersFrame) {
	left := c.opts.MaxHead
	for i := range f.Fields {
		if left -= int(f.Fields[i].Size()); left < 0 {
			f.Fields, f.Truncated = f.Fields[:i], true
			return
		}
	}
}

// declare notes the content-length.
func (s *Stream) declare(fields []hpack.HeaderField) error {
	s.want = -1
	for _, f := range fields {
		if f.Name != "content-length" {
			continue
		}
		n, err := strconv.ParseInt(f.Value, 10, 63)
		if err != nil || n < 0 || f.Value[0] == '+' || s.want >= 0 {
			return http2.StreamError{StreamID: s.id, Code: http2.ErrCodeProtocol}
		}
		s.want = n
	}
	return nil
}

func (c *Conn) data(f *http2.DataFrame) error {
	id, n := f.StreamID, int64(f.Length) // padding counts
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.recvWin -= n; c.recvWin < 0 {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	s := c.streams[id]
	if s == nil || s.err != nil || s.recvEnd {
		c.owes = true // nobody else may write the credit
		c.creditLocked(n)
		switch {
		case s == nil && c.idleLocked(id):
			return http2.ConnectionError(http2.ErrCodeProtocol)
		case s == nil || s.err != nil:
			if c.opts.Client {
				return c.strayLocked(id)
			}
			return http2.StreamError{StreamID: id, Code: http2.ErrCodeStreamClosed}
		}
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeStreamClosed}
	}
	if c.opts.Client && !s.final {
		c.creditLocked(n)
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol} // a body without a head
	}
	if s.recvWin -= n; s.recvWin < 0 {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeFlowControl}
	}
	payload := f.Data()
	if pad := n - int64(len(payload)); pad > 0 {
		c.owes = true
		c.creditLocked(pad)
		s.creditLocked(pad)
	}
	s.got += int64(len(payload))
	if s.want >= 0 && (s.got > s.want || f.StreamEnded() && s.got != s.want) && !s.bodiless {
		c.creditLocked(int64(len(payload)))
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
	}
	s.recv = append(s.recv, payload...)
	if f.StreamEnded() {
		s.recvEnd = true
		s.closeIfDoneLocked()
	}
	signal(s.readable)
	return nil
}

// creditLocked gives window back to the peer, in large steps.
func (c *Conn) creditLocked(n int64) {
	if c.consumed += n; c.consumed >= connWindow/4 {
		c.out = appendWindow(c.out, 0, uint32(c.consumed))
		c.recvWin += c.consumed
		c.consumed = 0
	}
}
