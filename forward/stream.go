package forward

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// BufferSize is the capacity of a Buffer in bytes.
const BufferSize = 16 << 10

// A Buffer is pooled space for bytes on their way: Data[R:W] is unread.
type Buffer struct {
	Data [BufferSize]byte
	R, W int
}

var buffers = sync.Pool{New: func() any { return new(Buffer) }}

// NewBuffer returns an empty buffer from the pool.
func NewBuffer() *Buffer { return buffers.Get().(*Buffer) }

// Free gives b back; nil is allowed. b must not be used afterwards.
func (b *Buffer) Free() {
	if b != nil {
		b.R, b.W = 0, 0
		buffers.Put(b)
	}
}

// Unread returns the bytes that have been received and not consumed.
func (b *Buffer) Unread() []byte { return b.Data[b.R:b.W] }

// Compact moves the unread bytes to the front.
func (b *Buffer) Compact() {
	if b.R > 0 {
		b.W = copy(b.Data[:], b.Data[b.R:b.W])
		b.R = 0
	}
}

// Fill reads more bytes behind the unread ones; io.ErrShortBuffer if there is
// no room.
func (b *Buffer) Fill(r io.Reader) (int, error) {
	if b.R == b.W {
		b.R, b.W = 0, 0
	}
	if b.W == len(b.Data) {
		return 0, io.ErrShortBuffer
	}
	n, err := r.Read(b.Data[b.W:])
	b.W += n
	if n > 0 {
		return n, nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return 0, err
}

// A Stream is a connection whose reader holds no buffer while it waits and
// whose deadlines are cheap to renew. One goroutine may read and another write.
// Bulk moves inside the kernel when both ends are plain TCP. A Stream that speaks
// TLS (Secure) keeps the first two properties; one around any other net.Conn works
// without these savings.
type Stream struct {
	// Immutable.
	born time.Time
	conn net.Conn
	tcp  *net.TCPConn // nil when conn is not plain TCP
	raw  syscall.RawConn
	// records is below a TLS connection; nil without TLS, or where it is not ours.
	records *records

	// Owned by the reader.
	readBy   time.Time
	receive  func(fd uintptr) bool
	received *Buffer
	err      error
	asking   []byte // what receive is to write first
	peek     func(fd uintptr)
	peeked   peeked

	// Owned by the writer, who changes them under records.mu where there is one.
	writeBy  time.Time
	writeFor time.Duration // how long a write may last, when that was said last

	// Set by any goroutine, checked after every deadline that is set: an
	// interrupt is never overwritten.
	stopRead, stopWrite atomic.Bool
}

// NewStream wraps conn, which the Stream then owns.
func NewStream(conn net.Conn) *Stream {
	s := &Stream{born: time.Now(), conn: conn}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return s
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return s // closed already: reads and writes will say so
	}
	s.tcp, s.raw = tcp, raw
	s.receive, s.peek = s.receiveFD, s.peekFD
	return s
}

// Receive waits for bytes and returns them in a pooled buffer, which the caller
// frees. It takes the buffer from the pool only when there is something to
// read. io.EOF means that the peer has finished sending.
func (s *Stream) Receive() (*Buffer, error) {
	if s.raw == nil {
		if s.records != nil && !s.records.pending() {
			if err := s.records.await(); err != nil {
				return nil, err
			}
		}
		b := NewBuffer()
		if _, err := b.Fill(s); err != nil {
			b.Free()
			return nil, err
		}
		return b, nil
	}
	return s.receiveRaw()
}

func (s *Stream) receiveRaw() (*Buffer, error) {
	s.received, s.err = nil, nil
	err := s.raw.Read(s.receive)
	b := s.received
	s.received = nil
	if err == nil {
		err = s.err
	}
	return b, err
}

// Ask writes all of p and then is Receive; sent reports whether p was written. It is for a peer that says nothing unless it is
// asked: where it can, it does not try to read before something has come.
//
// What came just before and was not read, an end too, is seen with what comes next only, or by the next Receive.
func (s *Stream) Ask(p []byte) (b *Buffer, sent bool, err error) {
	if s.raw == nil {
		if _, err := s.Write(p); err != nil {
			return nil, false, err
		}
		b, err = s.Receive()
		return b, true, err
	}
	s.asking = p
	b, err = s.receiveRaw()
	sent = s.asking == nil
	s.asking = nil
	return b, sent, err
}

// receiveFD is one try to read; false means to wait until readable. What is written here is answered after the wait has been
// prepared, so that the answer ends it.
func (s *Stream) receiveFD(fd uintptr) bool {
	if len(s.asking) > 0 {
		if _, s.err = s.conn.Write(s.asking); s.err != nil {
			return true
		}
		s.asking = nil
		return false
	}
	b := NewBuffer()
	for {
		n, err := syscall.Read(int(fd), b.Data[:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			b.Free()
			return false
		case err != nil:
			b.Free()
			s.err = os.NewSyscallError("read", err)
			return true
		case n == 0:
			b.Free()
			s.err = io.EOF
			return true
		}
		b.W = n
		s.received = b
		return true
	}
}

// Read reads into p.
func (s *Stream) Read(p []byte) (int, error) {
	if s.records != nil {
		return s.records.read(p, s.conn)
	}
	return s.conn.Read(p)
}

// Write writes all of p.
func (s *Stream) Write(p []byte) (int, error) {
	if s.records != nil {
		return s.records.write(p, s.conn)
	}
	return s.conn.Write(p)
}

// Roomy reports whether a write of a few hundred bytes would not have to wait for the peer, where that can be known.
// Only the writer may call it.
func (s *Stream) Roomy() bool {
	if s.records != nil {
		return s.records.under.Roomy()
	}
	roomy := false
	if s.raw == nil || s.raw.Control(func(fd uintptr) {
		p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p[:], 0)
		roomy = err == nil && n > 0 && p[0].Revents == unix.POLLOUT
	}) != nil {
		return false
	}
	return roomy
}

// ReadWithin makes reads fail when they last longer than d from now. An earlier
// deadline that is at most an eighth of d short of that is left as it is,
// because setting one costs as much as a small read.
func (s *Stream) ReadWithin(d time.Duration) {
	if by, ok := s.renew(s.readBy, d); ok {
		s.setRead(by)
	}
}

// ReadUntil makes reads fail after by.
func (s *Stream) ReadUntil(by time.Time) {
	if !by.Equal(s.readBy) {
		s.setRead(by)
	}
}

// WriteWithin is ReadWithin for writes.
func (s *Stream) WriteWithin(d time.Duration) {
	if by, ok := s.renew(s.writeBy, d); ok {
		s.setWrite(by, d)
	}
}

func (s *Stream) setRead(by time.Time) {
	s.readBy = by
	_ = s.conn.SetReadDeadline(by) // on a closed connection the read says so
	if s.stopRead.Load() {
		_ = s.conn.SetReadDeadline(past)
	}
}

func (s *Stream) setWrite(by time.Time, within time.Duration) {
	if s.records != nil {
		s.records.mu.Lock()
		defer s.records.mu.Unlock()
	}
	s.writeBy, s.writeFor = by, within
	s.limitWrite(by)
}

// limitWrite makes writes fail after by, whoever writes.
func (s *Stream) limitWrite(by time.Time) {
	_ = s.conn.SetWriteDeadline(by)
	if s.stopWrite.Load() {
		_ = s.conn.SetWriteDeadline(past)
	}
}

// renew returns when d from now is, and whether that is worth a new deadline.
func (s *Stream) renew(have time.Time, d time.Duration) (time.Time, bool) {
	now := s.born.Add(time.Since(s.born)) // reads one clock where time.Now reads two
	if left := have.Sub(now); left <= d && left > d-d/8 {
		return have, false
	}
	return now.Add(d), true
}

// ForgetDeadlines makes the next ReadWithin and WriteWithin set theirs whatever
// was set before, and ends an interrupt. It is for moments at which one
// goroutine owns both directions.
func (s *Stream) ForgetDeadlines() {
	s.ForgetRead()
	s.stopWrite.Store(false)
	s.writeBy = time.Time{}
}

// Recover makes a Stream whose reads or writes were interrupted usable again, as ForgetDeadlines does; the deadlines of one
// that was not are left to be renewed, which they need not be if it is soon used again.
func (s *Stream) Recover() {
	if s.stopRead.Load() || s.stopWrite.Load() {
		s.ForgetDeadlines()
	}
}

// ForgetRead is ForgetDeadlines for reads alone, while another goroutine may write.
func (s *Stream) ForgetRead() {
	s.stopRead.Store(false)
	s.readBy = time.Time{}
}

// InterruptRead makes a read that is going on, and later ones, fail with
// os.ErrDeadlineExceeded until ForgetDeadlines. Any goroutine may call it.
func (s *Stream) InterruptRead() {
	s.stopRead.Store(true)
	_ = s.conn.SetReadDeadline(past)
}

// Interrupt is InterruptRead for reads and writes.
func (s *Stream) Interrupt() {
	s.stopWrite.Store(true)
	s.InterruptRead()
	_ = s.conn.SetWriteDeadline(past)
}

// past is a deadline that has always passed.
var past = time.Unix(1, 0)

// CloseWrite tells the peer that nothing more comes.
func (s *Stream) CloseWrite() error {
	h, ok := s.conn.(interface{ CloseWrite() error })
	if !ok {
		return s.conn.Close()
	}
	if s.records != nil {
		s.records.writing.Add(1)
		defer s.records.writing.Add(-1)
	}
	if err := h.CloseWrite(); err != nil || s.records == nil {
		return err
	}
	return s.records.under.CloseWrite()
}

// LingerFor is how long a peer that was told why it has to go may be silent.
const LingerFor = 500 * time.Millisecond

// Linger ends our side, and lets the peer read what was sent to it: what arrives at a closed socket is answered with a
// reset, which takes away what the peer has not read yet. It may go on sending for so long, and so many bytes. Close comes
// next.
func (s *Stream) Linger(within time.Duration, bytes int) {
	if s.CloseWrite() != nil {
		return
	}
	most := time.Now().Add(within)
	for total := 0; total < bytes && time.Now().Before(most); {
		s.ReadWithin(LingerFor)
		b, err := s.Receive()
		if err != nil {
			return
		}
		total += b.W - b.R
		b.Free()
	}
}

// Close closes the connection.
func (s *Stream) Close() error {
	if s.records != nil {
		s.records.writing.Add(1)
		defer s.records.writing.Add(-1)
	}
	return s.conn.Close()
}

// Abort closes the connection so that the peer sees a reset and knows that what
// it got is not all.
func (s *Stream) Abort() {
	if s.records != nil {
		s.records.under.Abort() // without the alert that says that it is the whole
		return
	}
	if s.tcp != nil {
		_ = s.tcp.SetLinger(0)
	}
	_ = s.conn.Close()
}

// RemoteAddr returns the peer's address.
func (s *Stream) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

// LocalAddr returns our address.
func (s *Stream) LocalAddr() net.Addr { return s.conn.LocalAddr() }

// Splice moves up to limit bytes from src to s inside the kernel where it can,
// and returns how many. Fewer than limit without an error means that src has
// ended. wait bounds the silence of src, stall the silence of s.
func (s *Stream) Splice(src *Stream, limit int64, wait, stall time.Duration) (int64, error) {
	now := time.Now()
	src.setRead(now.Add(wait))
	s.setWrite(now.Add(wait+stall), wait+stall)
	if s.tcp == nil || src.tcp == nil {
		return s.copyThrough(src, limit)
	}
	return s.tcp.ReadFrom(&io.LimitedReader{R: src.tcp, N: limit})
}
