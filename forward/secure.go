package forward

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// recordHeader is the length of a TLS record's header: type, version, length.
const recordHeader = 5

// maxRecord is the most plaintext in one TLS record.
const maxRecord = 16 << 10

// directRead is the rest of a record from which on it is read past the buffer.
const directRead = 8 << 10

// coalesced is how much ciphertext a writer may gather before it is written.
const coalesced = 128 << 10

// plainSize is how much plaintext is moved at a time where splice cannot.
const plainSize = 64 << 10

var (
	plainTexts  = sync.Pool{New: func() any { b := make([]byte, plainSize); return &b }}
	cipherTexts = sync.Pool{New: func() any { b := make([]byte, 0, plainSize+4<<10); return &b }}
)

// Secure returns a Stream that speaks TLS over plain, which it then owns. wrap
// makes the TLS connection of the bytes below, by tls.Server or tls.Client; the
// caller shakes hands on it. While the Stream waits, neither it nor the TLS
// connection holds a buffer of its own.
func Secure(plain *Stream, wrap func(net.Conn) *tls.Conn) (*Stream, *tls.Conn) {
	r := &records{Conn: plain.conn, under: plain}
	conn := wrap(r)
	r.over = &Stream{born: plain.born, conn: conn, records: r}
	return r.over, conn
}

// Secured makes s, which speaks TLS over the stream the connection was accepted
// with, what the connection is from here on.
func (c *Conn[S]) Secured(s *Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Stream = s
	if c.cut {
		s.Abort()
	}
}

// records is what a TLS connection reads from and writes to. It hands out
// ciphertext one record at a time, so that it is known what the TLS connection
// has not seen yet: all of it is here.
type records struct {
	net.Conn // for what is not below
	over     *Stream
	under    *Stream

	// Owned by the reader.
	in   *Buffer // ciphertext not handed out; nil while there is none
	head [recordHeader]byte
	seen int  // bytes of the header handed out
	left int  // bytes of the record behind the header
	rest bool // the TLS connection may hold plaintext

	shaken  atomic.Bool  // the handshake is over: something has been read
	deaf    atomic.Bool  // the peer did not take an answer
	writing atomic.Int32 // calls of ours that write

	mu      sync.Mutex // guards the rest, and the deadline of over
	holding bool
	held    []byte
}

// errDeaf: the peer makes the TLS connection answer and does not take the answers.
var errDeaf = errors.New("the peer does not take what TLS answers")

// answerTime is how long an answer of the TLS connection may take where nothing was said of writes.
const answerTime = 10 * time.Second

// pending reports whether a read may return without anything arriving.
func (r *records) pending() bool { return r.in != nil || r.rest }

// await waits for ciphertext.
func (r *records) await() (err error) {
	r.in, err = r.under.Receive()
	return err
}

// Read hands out the next bytes of the current record.
func (r *records) Read(p []byte) (int, error) {
	if r.deaf.Load() {
		return 0, errDeaf
	}
	if r.in == nil {
		if r.left >= directRead && len(p) >= directRead {
			n, err := r.under.Read(p[:min(len(p), r.left)])
			r.left -= n
			return n, err
		}
		if err := r.await(); err != nil {
			return 0, err
		}
	}
	var n int
	if r.left == 0 {
		n = copy(p, r.in.Unread()[:min(recordHeader-r.seen, r.in.W-r.in.R)])
		copy(r.head[r.seen:], p[:n])
		if r.seen += n; r.seen == recordHeader {
			r.seen, r.left = 0, int(r.head[3])<<8|int(r.head[4])
		}
	} else {
		n = copy(p[:min(len(p), r.left)], r.in.Unread())
		r.left -= n
	}
	if r.in.R += n; r.in.R == r.in.W {
		r.in.Free()
		r.in = nil
	}
	return n, nil
}

// read reads plaintext.
func (r *records) read(p []byte, conn net.Conn) (int, error) {
	if !r.shaken.Load() {
		r.shaken.Store(true)
	}
	n, err := conn.Read(p)
	r.rest = n == len(p) && n > 0
	return n, err
}

// write writes plaintext.
func (r *records) write(p []byte, conn net.Conn) (int, error) {
	r.writing.Add(1)
	defer r.writing.Add(-1)
	if len(p) > maxRecord {
		return r.hold(func() (int, error) { return conn.Write(p) })
	}
	return conn.Write(p)
}

// Write writes ciphertext, or keeps it for a moment if more is coming. The TLS connection calls it for what we write, and for
// what it says by itself as it reads; never for two things at once.
func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	if r.holding {
		r.held = append(r.held, p...)
		r.mu.Unlock()
		return len(p), nil
	}
	if r.writing.Load() > 0 || !r.shaken.Load() {
		r.mu.Unlock()
		return r.Conn.Write(p)
	}
	// It is the answer to a KeyUpdate, or an alert. The deadline there is may be that of a write long ago.
	r.over.limitWrite(time.Now().Add(cmp.Or(r.over.writeFor, answerTime)))
	r.mu.Unlock()
	n, err := r.Conn.Write(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over.limitWrite(r.over.writeBy) // which the writer, who waits for us, may have renewed
	if errors.Is(err, os.ErrDeadlineExceeded) && !r.over.stopWrite.Load() {
		r.deaf.Store(true) // crypto/tls would go on reading, and answering
	}
	return n, err
}

// hold makes Write gather what write writes, and writes it as one.
func (r *records) hold(write func() (int, error)) (int, error) {
	buf := cipherTexts.Get().(*[]byte)
	r.mu.Lock()
	r.holding, r.held = true, (*buf)[:0]
	r.mu.Unlock()
	n, err := write()
	r.mu.Lock() // an answer waits until it can follow
	defer r.mu.Unlock()
	r.holding = false
	if err == nil && len(r.held) > 0 {
		_, err = r.Conn.Write(r.held)
	}
	if cap(r.held) <= 2*coalesced {
		*buf = r.held[:0]
		cipherTexts.Put(buf)
	}
	r.held = nil
	return n, err
}

// gone reports whether the peer has finished sending or is broken. What it sent
// before, a close_notify mostly, may still be unread, so looking at the next byte
// does not tell.
func (r *records) gone() bool {
	hungUp := false
	err := r.under.raw.Control(func(fd uintptr) {
		p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p[:], 0)
		hungUp = err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return err != nil || hungUp
}

// quietTLS is Quiet. A peer that has said something may have sent session tickets, which are
// read in the moment that this takes.
func (s *Stream) quietTLS() bool {
	r := s.records
	if r.rest {
		return false
	}
	if r.in == nil {
		switch r.under.look() {
		case peekedQuiet:
			return true
		case peekedGone:
			return false
		}
	}
	s.setRead(time.Now().Add(ticketTime))
	n, err := r.read(make([]byte, 1), s.conn)
	s.setRead(time.Time{})
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && r.in == nil && r.left == 0 && r.seen == 0
}

// ticketTime is how long is waited for the end of messages of the TLS connection itself.
const ticketTime = time.Millisecond

// IsTLS reports whether s speaks TLS.
func (s *Stream) IsTLS() bool { return s.records != nil }

// TLS returns the state of the TLS connection; false if there is none.
func (s *Stream) TLS() (tls.ConnectionState, bool) {
	if c, ok := s.conn.(*tls.Conn); ok {
		return c.ConnectionState(), true
	}
	return tls.ConnectionState{}, false
}

// copyThrough moves up to limit bytes from src to s through a large buffer: it is
// Splice where the kernel cannot help.
func (s *Stream) copyThrough(src *Stream, limit int64) (moved int64, err error) {
	buf := plainTexts.Get().(*[]byte)
	defer plainTexts.Put(buf)
	for moved < limit {
		n, err := src.readFull((*buf)[:min(int64(len(*buf)), limit-moved)])
		if n > 0 {
			w, werr := s.Write((*buf)[:n])
			moved += int64(w)
			if werr != nil {
				return moved, werr
			}
		}
		if err != nil {
			return moved, err
		}
	}
	return moved, nil
}

// readFull reads what has arrived, up to all of p: a TLS connection gives one
// record at a time.
func (s *Stream) readFull(p []byte) (total int, err error) {
	for {
		n, err := s.Read(p[total:])
		total += n
		if err != nil || total == len(p) || s.records == nil || s.records.in == nil {
			return total, err
		}
	}
}
