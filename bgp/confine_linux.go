package bgp

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// emptyRoot is a folder of every process in which there is nothing but its own descriptors' numbers.
const emptyRoot = "/proc/self/fdinfo"

// confine takes from this process for good what BGP does not need once the listeners are bound: files, capabilities,
// privileges by exec, core dumps. A peer that gets code to run in it has sockets and the parent's pipes, no more. What
// a kernel or a container does not offer is left out, and the log says what is in force. In a binary with cgo files stay:
// there, what is for all threads finds them in /proc.
func confine(log *slog.Logger) {
	_ = time.Now().Local().Format(time.RFC3339) // reads the time zone while there are files
	var failed []error
	try := func(what string, err error) {
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", what, err))
		}
	}
	for _, limit := range []int{unix.RLIMIT_CORE, unix.RLIMIT_FSIZE} {
		try("limit", unix.Setrlimit(limit, &unix.Rlimit{}))
	}
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		try("no new privileges", errno)
	}
	// As root. Landlock below is for everybody else, where the kernel has it.
	if os.Geteuid() == 0 {
		if !withCgo {
			try("empty root", errors.Join(syscall.Chroot(emptyRoot), syscall.Chdir("/")))
		}
		for c := range cap.MaxBits() {
			if on, err := cap.GetBound(c); err == nil && on {
				try("bounding set", cap.DropBound(c))
			}
		}
	}
	if !withCgo {
		try("landlock", landlock.V5.BestEffort().RestrictPaths())
	}
	try("capabilities", cap.NewSet().SetProc())
	_, err := os.Stat("/etc")
	log.Info("the BGP child gave its privileges up", "sees_files", err == nil, "not_in_force", errors.Join(failed...))
}
