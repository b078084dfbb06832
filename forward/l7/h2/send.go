package h2

import (
	"time"

	"github.com/pharos-lb/pharos/forward"
	"golang.org/x/net/http2"
)

// maxShort is how much the reader writes itself: what a socket takes that has any room.
const maxShort = 1 << 10

// A Message is what Send sends of a stream: each part that is there, in this order.
type Message struct {
	Head     []byte // an encoded field block
	Data     []byte
	Trailers []byte // an encoded field block; the stream ends with it
	End      bool   // the stream ends here
}

// Send sends m, waiting for the peer's windows, for within at most each time.
func (s *Stream) Send(m Message, within time.Duration) error {
	c := s.conn
	ends := m.End && m.Trailers == nil
	c.mu.Lock()
	if err := s.err; err != nil || s.sent {
		c.mu.Unlock()
		if err == nil {
			err = ErrClosed
		}
		return err
	}
	if m.Head != nil {
		c.headLocked(s.id, m.Head, ends && len(m.Data) == 0)
	}
	data := m.Data
	for len(data) > 0 {
		room := min(s.sendWin, c.sendWin, int64(maxOut-len(c.out)))
		if room <= 0 {
			if err := s.makeRoom(within); err != nil {
				return err
			}
			continue // c.mu is held again
		}
		n := min(len(data), int(room), c.frame)
		flags := http2.Flags(0)
		if ends && n == len(data) {
			flags = http2.FlagDataEndStream
		}
		c.out = appendFrame(c.out, http2.FrameData, flags, s.id, n)
		c.out = append(c.out, data[:n]...)
		data = data[n:]
		s.sendWin -= int64(n)
		c.data64 += uint64(n)
		c.sendWin -= int64(n)
	}
	switch {
	case m.Trailers != nil:
		c.headLocked(s.id, m.Trailers, true)
		s.sent = true
	case ends:
		if m.Head == nil && len(m.Data) == 0 {
			c.out = appendFrame(c.out, http2.FrameData, http2.FlagDataEndStream, s.id, 0)
		}
		s.sent = true
	}
	if s.sent {
		s.closeIfDoneLocked()
	}
	c.mu.Unlock()
	return c.flush()
}

// makeRoom writes, and waits until there may be room to send. It is called, and
// returns without an error, with c.mu held.
func (s *Stream) makeRoom(within time.Duration) error {
	c := s.conn
	c.mu.Unlock()
	if err := c.flush(); err != nil {
		return err
	}
	c.mu.Lock()
	if s.err == nil && !s.halted && min(s.sendWin, c.sendWin, int64(maxOut-len(c.out))) <= 0 {
		if !s.waiting {
			s.waiting = true
			c.waiting = append(c.waiting, s)
		}
		c.mu.Unlock()
		if err := wait(s.writable, within); err != nil {
			return err
		}
		c.mu.Lock()
	}
	err := s.err
	if err == nil && s.halted {
		err = ErrStall
	}
	if err != nil {
		c.mu.Unlock()
		return err
	}
	return nil
}

// wakeSendersLocked makes all that wait to send look again.
func (c *Conn) wakeSendersLocked() {
	for i, s := range c.waiting {
		s.waiting = false
		signal(s.writable)
		c.waiting[i] = nil
	}
	c.waiting = c.waiting[:0]
}

// headLocked appends a field block, in as many frames as it takes.
func (c *Conn) headLocked(id uint32, block []byte, end bool) {
	kind, flags := http2.FrameHeaders, http2.Flags(0)
	if end {
		flags = http2.FlagHeadersEndStream
	}
	for {
		n := min(len(block), c.frame)
		if n == len(block) {
			flags |= http2.FlagHeadersEndHeaders
		}
		c.out = appendFrame(c.out, kind, flags, id, n)
		c.out = append(c.out, block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return
		}
		kind, flags = http2.FrameContinuation, 0
	}
}

// flush writes what there is to write, unless another goroutine is doing so.
func (c *Conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.writing {
		c.writeLocked()
	}
	return c.err
}

// kick is flush for the reader, who must not wait until the peer reads: the peer may do so only when it has written what
// we do not read meanwhile. It writes a little where the kernel has room, and leaves the rest to another goroutine.
func (c *Conn) kick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing || len(c.out) == 0 || c.err != nil {
		return
	}
	c.writing = true
	if len(c.out) <= maxShort && c.wire.Roomy() { // to wake somebody costs more than to write
		c.writePartLocked()
	}
	if len(c.out) == 0 || c.err != nil {
		c.writtenLocked()
		return
	}
	c.writers.Go(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.writeLocked()
	})
}

// writeLocked writes until nothing is left. c.mu is held, but for the writes.
func (c *Conn) writeLocked() {
	c.writing = true
	for len(c.out) > 0 && c.err == nil {
		c.writePartLocked()
	}
	c.writtenLocked()
}

// writePartLocked writes what there is now.
func (c *Conn) writePartLocked() {
	buf := c.out
	c.out, c.spare, c.owed = c.spare[:0], nil, 0
	c.mu.Unlock()
	c.wire.WriteWithin(c.opts.Stall)
	_, err := c.wire.Write(buf)
	c.mu.Lock()
	if cap(buf) <= 2*maxOut {
		c.spare = buf[:0]
	}
	c.wakeSendersLocked()
	if err != nil {
		c.err = err
		for _, s := range c.streams {
			s.endLocked(ErrClosed)
		}
		c.wire.Abort() // the reader is to see it
	}
}

// writtenLocked ends a turn of writing.
func (c *Conn) writtenLocked() {
	c.writing = false
	if c.said != nil {
		close(c.said)
		c.said = nil
	}
	if len(c.streams) == 0 {
		c.out, c.spare = nil, nil // an idle connection holds nothing
	}
}

// awaitSaid waits until whoever is writing has written all, and reports whether that was in time.
func (c *Conn) awaitSaid() bool {
	c.mu.Lock()
	if !c.writing || c.err != nil {
		c.mu.Unlock()
		return true
	}
	c.said = make(chan struct{})
	said := c.said
	c.mu.Unlock()
	timer := time.NewTimer(forward.LingerFor)
	defer timer.Stop()
	select {
	case <-said:
		return true
	case <-timer.C:
		return false
	}
}

// Start opens a stream of a client; ErrGoAway if the connection takes no more. What ended one on which the peer has said
// nothing yet is returned as it is.
// bodiless says that the answer has no body (HEAD).
func (c *Conn) Start(m Message, bodiless bool, within time.Duration) (*Stream, error) {
	c.mu.Lock()
	if err := c.err; err != nil && !c.greeted { // nobody has refused: there was no connection
		c.mu.Unlock()
		return nil, err
	}
	if c.err != nil || c.gone || c.leaving || c.open >= int(min(c.limit, mostStreams)) || c.nextID > maxWindow-2 {
		c.mu.Unlock()
		return nil, ErrGoAway
	}
	s := newStream(c, c.nextID)
	s.bodiless = bodiless
	c.nextID += 2
	c.streams[s.id] = s
	c.open++
	// The head goes into the buffer before anybody can open the next stream.
	c.headLocked(s.id, m.Head, m.End && len(m.Data) == 0)
	if m.End && len(m.Data) == 0 {
		s.sent = true
		c.mu.Unlock()
		return s, c.flush()
	}
	c.mu.Unlock()
	if len(m.Data) == 0 {
		return s, c.flush()
	}
	m.Head = nil
	return s, s.Send(m, within)
}

// Close ends the connection at once. What Run has started ends with it.
func (c *Conn) Close() {
	c.end(ErrClosed)
	_ = c.wire.Close()
	c.writers.Wait()
}
