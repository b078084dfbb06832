//go:build !linux

package probe

import (
	"context"
	"net"
	"net/netip"
)

// connectBound connects to an address, from the given one if it is valid. The
// connection ends with ctx until undo is called. Closing it resets it.
func connectBound(ctx context.Context, from netip.Addr, to netip.AddrPort) (conn net.Conn, undo func(), err error) {
	d := net.Dialer{KeepAlive: -1}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	conn, err = d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	return conn, bound(ctx, conn), nil
}
