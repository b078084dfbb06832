//go:build !linux

package probe

import "syscall"

// controlDial is needed on Linux only.
func controlDial(_, _ string, _ syscall.RawConn) error { return nil }
