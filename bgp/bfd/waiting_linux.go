package bfd

import "golang.org/x/sys/unix"

// waiting reports whether the kernel holds datagrams that were not read.
func (x *socket) waiting() bool {
	n := 0
	_ = x.raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n > 0
}
