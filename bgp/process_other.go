//go:build unix && !linux

package bgp

import "syscall"

// childAttributes keeps Ctrl-C in a terminal from the child: the parent stops it in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// guard does nothing where there is no such thing: the child sees its pipe close.
func guard(<-chan bool) {}
