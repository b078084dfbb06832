package transport

import "golang.org/x/sys/unix"

// slice is the time that a thread of ours asks to have at once, in nanoseconds: the
// least that the kernel gives.
const slice = 100_000

// hurry has the kernel run this thread soon after something has come for it: one
// that asks for short slices goes before those that want long ones, a compiler or a
// garbage collector (sched_setattr(2); Linux before 6.12 does not heed it). Its
// share of the processor is no larger, so that a flood of queries takes nothing from
// the other tiers. The result undoes it.
func hurry() (undo func()) {
	was, err := unix.SchedGetAttr(0, 0)
	if err != nil || was.Policy != unix.SCHED_NORMAL && was.Policy != unix.SCHED_BATCH {
		return func() {} // somebody has said otherwise
	}
	set := func(runtime uint64) {
		attr := *was
		attr.Runtime = runtime
		_ = unix.SchedSetAttr(0, &attr, 0) // it is slower without
	}
	set(slice)
	return func() { set(0) }
}
