package bgp

import "syscall"

// childAttributes keeps Ctrl-C in a terminal from the child (the parent stops it in order) and has the kernel kill it
// with the parent, in case it is too hung to notice its closed pipe.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
