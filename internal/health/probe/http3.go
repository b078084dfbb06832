package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// maxUniStreams is how many streams a target may open: HTTP/3 needs three.
const maxUniStreams = 8

// probeHTTP3 runs an HTTPS check over QUIC once.
func (p *prober) probeHTTP3(ctx context.Context, c *Check) Result {
	udp, err := p.dial(ctx, "udp", c)
	if err != nil {
		return explain(err, connecting, c.Timeout)
	}
	socket := &quicSocket{UDPConn: udp.(*net.UDPConn)}
	// Closed after the transport, which must not read from a socket that is gone.
	defer udp.Close()
	transport := &quic.Transport{Conn: socket}
	defer transport.Close()
	conn, err := transport.Dial(ctx, udp.RemoteAddr(), p.tlsConfig(c, http3.NextProtoH3), &quic.Config{
		HandshakeIdleTimeout: c.Timeout, MaxIdleTimeout: c.Timeout,
		InitialStreamReceiveWindow: maxBodyBytes, MaxStreamReceiveWindow: 2 * maxBodyBytes,
		InitialConnectionReceiveWindow: 2 * maxBodyBytes, MaxConnectionReceiveWindow: 4 * maxBodyBytes,
		MaxIncomingStreams: -1, MaxIncomingUniStreams: maxUniStreams,
		DisablePathMTUDiscovery: true,
	})
	if err != nil {
		return explain(socket.cause(err), quicking, c.Timeout)
	}
	defer conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	if err := c.checkExpiry(conn.ConnectionState().TLS, time.Now()); err != nil {
		return explain(err, quicking, c.Timeout)
	}
	r, err := newRequest(ctx, c, "https")
	if err != nil {
		return explain(err, sending, c.Timeout)
	}
	client := (&http3.Transport{DisableCompression: true, MaxResponseHeaderBytes: maxHeaderBytes}).NewClientConn(conn)
	got, err := client.RoundTrip(r)
	if err != nil {
		if strings.Contains(err.Error(), "frame too large") {
			// The library has no error value for this.
			err = errTooLarge
		}
		return explain(socket.cause(err), waiting, c.Timeout)
	}
	return p.judge(response{code: got.StatusCode, header: got.Header, body: quicBody{ctx, got.Body}}, c)
}

// quicBody is a body that says so when it is cut short because the probe ended.
type quicBody struct {
	ctx  context.Context // of the probe, which owns the body
	body io.Reader
}

// Read reads from the body.
func (b quicBody) Read(to []byte) (int, error) {
	n, err := b.body.Read(to)
	if err != nil && !errors.Is(err, io.EOF) && b.ctx.Err() != nil {
		err = b.ctx.Err()
	}
	return n, err
}

// quicSocket is a connected UDP socket as the QUIC library wants it. Connected,
// the kernel drops what others send, and tells when the port is unreachable.
type quicSocket struct {
	*net.UDPConn
	broken atomic.Pointer[error] // the first error
}

// ReadFrom reads a datagram of the target.
func (s *quicSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := s.Read(b)
	s.note(err)
	return n, s.RemoteAddr(), err
}

// note keeps err, unless it is that of a deadline, by which the library stops reading.
func (s *quicSocket) note(err error) {
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.broken.CompareAndSwap(nil, &err)
	}
}

// WriteTo writes a datagram to the target.
func (s *quicSocket) WriteTo(b []byte, _ net.Addr) (int, error) {
	n, err := s.Write(b)
	s.note(err)
	return n, err
}

// SetReadBuffer and SetWriteBuffer leave the buffers as they are: a probe reads
// little, and megabytes for each would be a waste.
func (s *quicSocket) SetReadBuffer(int) error { return nil }

// SetWriteBuffer is like SetReadBuffer.
func (s *quicSocket) SetWriteBuffer(int) error { return nil }

// SyscallConn, of no use in this shape, hides that of UDPConn, with which the
// library would take the socket for an unconnected one and write to addresses.
func (s *quicSocket) SyscallConn() {}

// cause returns what broke the socket if that is why err came, and else err.
func (s *quicSocket) cause(err error) error {
	if broken := s.broken.Load(); broken != nil {
		err = *broken
	}
	return unreachable(err, "udp")
}
