package forward

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// reserve is how many descriptors forwarding leaves to the rest of the node, or a quarter of all if those are fewer: checks, gossip, BGP, DNS, the
// admin socket and files go on while clients take whatever there is.
const reserve = 1024

// descriptorLimit is the first number of a descriptor that forwarding does not keep; 0 = the kernel does not say.
func descriptorLimit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	all := int(min(limit.Cur, 1<<30))
	return all - min(reserve, all/4)
}

// Room reports whether a descriptor that was opened for forwarding a moment ago may stay, and counts it if not: its caller closes it. A process
// is given the lowest number that is free, so a number says how many descriptors are open, without a system call.
func (i *Intake) Room(fd int) bool {
	if i.descriptors == 0 || fd < i.descriptors {
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
