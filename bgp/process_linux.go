package bgp

import "syscall"

// childAttributes keeps Ctrl-C in a terminal from the child: the parent stops it in order. That the
// kernel kills it with the parent is the child's own doing (guard), so that it can be handed to another parent.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
