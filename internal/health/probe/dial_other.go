//go:build !linux

package probe

import (
	"net"
	"net/netip"
	"syscall"
)

// controlDial is needed on Linux only.
func controlDial(_, _ string, _ syscall.RawConn) error { return nil }

// pingSocket exists on Linux only; elsewhere a raw socket must do.
func pingSocket(_, _ netip.Addr) (net.Conn, error) { return nil, syscall.EPERM }
