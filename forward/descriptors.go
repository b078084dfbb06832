package forward

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Room reports whether a descriptor that was opened for forwarding a moment ago may stay, and counts it if not: its caller closes it.
func (i *Intake) Room(fd int) bool {
	if i.descriptors.Room(fd) {
		return true
	}
	i.short.Add(1)
	return false
}

// leaveRoom keeps package net from connecting where Room says no. It is a Dialer's Control.
func (r *Registry) leaveRoom(_, _ string, c syscall.RawConn) error {
	room := true
	if err := c.Control(func(fd uintptr) { room = r.intake.Room(int(fd)) }); err != nil {
		return err
	}
	if !room {
		return os.NewSyscallError("socket", unix.EMFILE)
	}
	return nil
}
