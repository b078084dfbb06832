package bgp

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// guard has the kernel kill this process with its parent, in case it is too hung to notice
// its closed pipe, for as long as armed says so. The setting belongs to a thread, which is why it has one of its own.
func guard(armed <-chan bool) {
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
		for on := range armed {
			signal := uintptr(0)
			if on {
				signal = uintptr(unix.SIGKILL)
			}
			_ = unix.Prctl(unix.PR_SET_PDEATHSIG, signal, 0, 0, 0)
		}
	}()
}
