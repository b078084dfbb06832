package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes of buffers in octets.
const (
	maxDatagram  = 65535   // a larger one cannot arrive
	replyBuffer  = 4096    // the largest UDP response that can be configured
	socketBuffer = 4 << 20 // asked of the kernel, which may give less
)

// A Responder answers messages, one at a time: each goroutine has its own.
type Responder interface {
	// Respond appends the response to msg to dst, which is empty, and returns
	// it; an empty slice means no response. msg is valid during the call only.
	Respond(dst, msg []byte, client netip.AddrPort, tcp bool) []byte
	// Lost tells that a response could not be sent.
	Lost()
}

// A UDP is one bound socket.
type UDP struct {
	conn    *net.UDPConn
	local   netip.AddrPort
	pktinfo bool // bound to a wildcard: replies have to name their source
	stopped atomic.Bool
}

// ListenUDP binds sockets sockets to one address with SO_REUSEPORT. With port 0
// all of them get the port that the first was given. On an error none stays
// bound.
func ListenUDP(addr netip.AddrPort, sockets int) ([]*UDP, error) {
	bound := make([]*UDP, 0, sockets)
	for range sockets {
		u, err := listenUDP(addr)
		if err != nil {
			for _, b := range bound {
				b.Close()
			}
			return nil, err
		}
		bound = append(bound, u)
		addr = u.local
	}
	return bound, nil
}

func listenUDP(addr netip.AddrPort) (*UDP, error) {
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6"
	}
	wildcard := addr.Addr().IsUnspecified()
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return control(raw, func(fd int) error { return prepareUDP(fd, addr.Addr().Is6(), wildcard) })
	}}
	conn, err := config.ListenPacket(context.Background(), network, addr.String())
	if err != nil {
		return nil, bindError(err)
	}
	udp := conn.(*net.UDPConn)
	_ = udp.SetReadBuffer(socketBuffer) // the kernel's limit may be lower: its default serves too
	_ = udp.SetWriteBuffer(socketBuffer)
	port := udp.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	return &UDP{conn: udp, local: netip.AddrPortFrom(addr.Addr(), port), pktinfo: wildcard}, nil
}

// Local returns the bound address.
func (u *UDP) Local() netip.AddrPort { return u.local }

// Serve answers until Stop or Close. Errors of single datagrams end nothing.
func (u *UDP) Serve(r Responder) {
	in, out := make([]byte, maxDatagram), make([]byte, 0, replyBuffer)
	oob := make([]byte, controlSpace)
	failures := 0
	for !u.stopped.Load() {
		n, oobn, flags, client, err := u.conn.ReadMsgUDPAddrPort(in, oob)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			failures++
			u.pause(failures)
			continue
		}
		failures = 0
		if flags&unix.MSG_TRUNC != 0 {
			continue // more than 65535 octets: not a datagram
		}
		reply := r.Respond(out[:0], in[:n], client, false)
		if len(reply) == 0 {
			continue
		}
		var source []byte
		if u.pktinfo {
			source = replySource(oob[:oobn])
		}
		if _, _, err := u.conn.WriteMsgUDPAddrPort(reply, source, client); err != nil {
			r.Lost()
		}
	}
}

// pause keeps a socket that fails on every read from taking a whole core.
func (u *UDP) pause(failures int) {
	if failures > 8 && !u.stopped.Load() {
		time.Sleep(10 * time.Millisecond)
	}
}

// Stop makes Serve return after the message in hand. The socket stays bound
// until Close.
func (u *UDP) Stop() {
	u.stopped.Store(true)
	_ = u.conn.SetReadDeadline(time.Unix(1, 0)) // fails only when closed, which stops it as well
}

// Close unbinds the socket and stops Serve.
func (u *UDP) Close() error {
	u.stopped.Store(true)
	return ignoreClosed(u.conn.Close())
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
