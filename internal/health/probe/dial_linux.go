package probe

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// controlDial lets the kernel choose the local port only when it connects: a
// socket bound to a source address could otherwise use each port for one target
// alone, and many probes from one address would run out of them.
func controlDial(_, _ string, c syscall.RawConn) error {
	// An old kernel that does not know the option still connects.
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
}
