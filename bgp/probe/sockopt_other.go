//go:build !linux

package probe

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// errKey is a kernel that takes no TCP MD5 key.
var errKey = errors.New("only Linux has what it takes")

func arrives(net.Conn) bool { return true }

func control(netip.Addr, trial) func(string, string, syscall.RawConn) error {
	return func(string, string, syscall.RawConn) error { return errKey }
}
