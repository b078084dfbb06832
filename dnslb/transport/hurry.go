package transport

import "golang.org/x/sys/unix"

// slice is the time that a thread of ours asks to have at once, in nanoseconds: the
// least that the kernel gives.
const slice = 100_000

// When a thread asks for short slices: while it answers less than quietBelow queries
// between two sleeps, on average of sleepsLooked of them, and no longer when it
// answers more than busyAbove, which takes about a slice.
const (
	sleepsLooked = 64
	quietBelow   = 12
	busyAbove    = 24
)

// A hurry has the kernel run this thread soon after something has come for it: one
// that asks for short slices goes before those that want long ones, a compiler or a
// garbage collector (sched_setattr(2); Linux before 6.12 does not heed it). Its
// share of the processor is no larger, so that a flood of queries takes nothing from
// the other tiers.
//
// Under load that turns round: what is ready to run takes the processor from a
// thread whose short slice is over, and keeps it until the kernel's next tick, up to 4 ms.
// Then the usual slice is better, with which a thread has mostly gone to sleep before it ends.
type hurry struct {
	usual            *unix.SchedAttr // nil: somebody has said otherwise
	short            bool
	sleeps, answered int
}

// newHurry belongs to the calling thread, which asks for short slices from now on.
func newHurry() *hurry {
	h := new(hurry)
	if was, err := unix.SchedGetAttr(0, 0); err == nil && (was.Policy == unix.SCHED_NORMAL || was.Policy == unix.SCHED_BATCH) {
		h.usual = was
	}
	h.set(true)
	return h
}

// sleeping is told of every sleep, and how many queries were answered since the last.
func (h *hurry) sleeping(answered int) {
	h.answered += answered
	if h.sleeps++; h.sleeps < sleepsLooked {
		return
	}
	switch {
	case h.answered < quietBelow*sleepsLooked:
		h.set(true)
	case h.answered > busyAbove*sleepsLooked:
		h.set(false)
	}
	h.sleeps, h.answered = 0, 0
}

// end gives the thread back as it was.
func (h *hurry) end() { h.set(false) }

func (h *hurry) set(short bool) {
	if h.usual == nil || h.short == short {
		return
	}
	h.short = short
	attr := *h.usual
	if attr.Runtime = 0; short {
		attr.Runtime = slice
	}
	_ = unix.SchedSetAttr(0, &attr, 0) // it is slower without
}
