//go:build !linux

package bfd

// waiting is only known on Linux.
func (x *socket) waiting() bool { return false }
