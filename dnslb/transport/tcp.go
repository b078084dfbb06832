package transport

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/pharos-lb/pharos/internal/handover"
)

// Limits of a TCP connection beside its idle time.
const (
	readTimeout  = 5 * time.Second // for the rest of a message that has begun
	writeTimeout = 5 * time.Second // for the client to take what was answered
	readBuffer   = 2048
	headSize     = 512
	flushSize    = 16 << 10 // pipelined answers are sent at the latest then
)

// A TCP is one bound listener.
type TCP struct {
	listener *net.TCPListener
	local    netip.AddrPort
}

// ListenTCP binds one address with SO_REUSEPORT.
func ListenTCP(addr netip.AddrPort) (*TCP, error) {
	if l, err := handover.Listener("tcp", addr.String()); err != nil {
		return nil, err
	} else if l != nil {
		return &TCP{listener: l.(*net.TCPListener), local: addr}, nil
	}
	network := "tcp4"
	if addr.Addr().Is6() {
		network = "tcp6"
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return control(raw, prepareTCP)
	}}
	l, err := config.Listen(context.Background(), network, addr.String())
	if err != nil {
		return nil, bindError(err)
	}
	listener := l.(*net.TCPListener)
	port := listener.Addr().(*net.TCPAddr).AddrPort().Port()
	return &TCP{listener: listener, local: netip.AddrPortFrom(addr.Addr(), port)}, nil
}

// Local returns the bound address.
func (t *TCP) Local() netip.AddrPort { return t.local }

// Close unbinds the listener and makes Serve return. Connections live on.
func (t *TCP) Close() error { return ignoreClosed(t.listener.Close()) }

// Serve accepts connections into the pool until Close.
func (t *TCP) Serve(pool *Pool) {
	for {
		conn, err := t.listener.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			pool.counters.AcceptErrors.Add(1)
			time.Sleep(10 * time.Millisecond) // out of descriptors: they come back as clients leave
			continue
		}
		pool.add(conn)
	}
}

// A connection is one client's.
type connection struct {
	conn    *net.TCPConn
	pool    *Pool
	client  netip.AddrPort
	network netip.Prefix

	// head is where a connection without buffers waits for its next messages, rest
	// the part of it that has not been read yet.
	head [headSize]byte
	rest []byte

	// pool.mu guards the rest: the place among the idle ones.
	idle         bool
	newer, older *connection
}

// buffers are what a connection needs while it has a message in hand.
type buffers struct {
	reader       *bufio.Reader
	in, out, one []byte
	responder    Responder
}

// Read reads what has been received already, then from the client.
func (c *connection) Read(p []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	return c.conn.Read(p)
}

// serve answers message after message, in order, until the client leaves, is
// too slow, or the pool closes. A silent connection holds no buffers but its own
// few octets: there may be many.
func (c *connection) serve() {
	defer c.pool.remove(c)
	for c.pool.rest(c) {
		n, err := c.conn.Read(c.head[:])
		if err != nil {
			return
		}
		c.pool.wake(c)
		c.rest = c.head[:n]
		if !c.work() {
			return
		}
	}
}

// work answers what has been received. It reports whether to go on.
func (c *connection) work() bool {
	b := c.pool.borrow()
	defer c.pool.giveBack(b)
	b.reader.Reset(c)
	for len(c.rest) > 0 || b.reader.Buffered() > 0 {
		if !c.batch(b) {
			return false
		}
	}
	return true
}

// batch answers the message that has begun and those already received behind
// it, and sends the answers together. It reports whether to go on.
func (c *connection) batch(b *buffers) bool {
	in := b.reader
	b.out = b.out[:0]
	for {
		_ = c.conn.SetReadDeadline(time.Now().Add(readTimeout)) // an error shows on Read
		if !readMessage(in, b) {
			return false
		}
		b.one = b.responder.Respond(b.one[:0], b.in, c.client, true)
		if n := len(b.one); n > 0 {
			b.out = binary.BigEndian.AppendUint16(b.out, uint16(n))
			b.out = append(b.out, b.one...)
		}
		if len(b.out) >= flushSize || !whole(in) {
			break
		}
	}
	b.responder.Flush()
	if len(b.out) == 0 {
		return true
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := c.conn.Write(b.out); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.pool.counters.Slow.Add(1)
		}
		return false
	}
	return true
}

// readMessage reads one framed message into b.in.
func readMessage(in *bufio.Reader, b *buffers) bool {
	var frame [2]byte
	for i := range frame {
		octet, err := in.ReadByte()
		if err != nil {
			return false
		}
		frame[i] = octet
	}
	size := int(binary.BigEndian.Uint16(frame[:]))
	if size == 0 {
		return false // no message is empty: the framing is lost
	}
	if cap(b.in) < size {
		b.in = make([]byte, size)
	}
	b.in = b.in[:size]
	_, err := io.ReadFull(in, b.in)
	return err == nil
}

// whole reports whether another whole message has already been received.
func whole(in *bufio.Reader) bool {
	if in.Buffered() < 2 {
		return false
	}
	frame, err := in.Peek(2)
	return err == nil && in.Buffered() >= 2+int(binary.BigEndian.Uint16(frame))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
