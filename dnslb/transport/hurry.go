package transport

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// slice is the time that a thread of ours asks to have at once, in nanoseconds: the
// least that the kernel gives.
const slice = 100_000

// When a thread asks for short slices: while it answers less than quietBelow queries
// between two sleeps, and no longer when it
// answers more than busyAbove, which takes about a slice. It looks at every pausesLooked-th pause, in which its socket was empty,
// and no more often than every lookedFor: in a millisecond many a thread does not sleep that has a tenth of its time left.
const (
	pausesLooked = 64
	lookedFor    = 50 * time.Millisecond
	quietBelow   = 12
	busyAbove    = 24
)

// When a thread goes before all usual ones: while it sleeps at times, and takes less than
// calmShare of a core (at 70 % of what it can answer it takes some 0.9, in small batches), and no longer when it takes more than hogShare, or answers
// floods queries, some 10 ms of work, or dear ones for floodTime, without finding its socket empty.
const (
	realTime  = 1 // the least of real-time priorities
	calmShare = 0.93
	hogShare  = 0.97
	floods    = 2048
	floodTime = 50 * time.Millisecond
)

// A class is how the kernel is asked to treat a thread.
type class uint8

const (
	usual  class = iota
	short        // short slices: soon run, and soon interrupted
	urgent       // before all usual threads (SCHED_RR)
)

// A hurry has the kernel run this thread soon after something has come for it.
//
// Where it is allowed (CAP_SYS_NICE, or a limit RTPRIO) it has real-time priority: whatever else wakes, the
// kernel's own helpers too, does not take the processor from it in the midst of a batch. A flood must not starve the
// other tiers with it, so a thread that hardly sleeps gives that up at once, and competes as everybody does.
//
// Elsewhere it asks for short slices, which go before threads that want long ones, a compiler or a
// garbage collector (sched_setattr(2); Linux before 6.12 does not heed it). Its
// share of the processor is no larger. Under load that turns round: what is ready to run takes the processor from a
// thread whose short slice is over, and keeps it until the kernel's next tick, up to 4 ms.
// Then the usual slice is better, with which a thread has mostly gone to sleep before it ends.
type hurry struct {
	ask              func(*unix.SchedAttr) error // the kernel, for this thread
	use              func() use                  // what the thread has used
	was              *unix.SchedAttr             // nil: somebody has said otherwise
	barred           bool                        // from real-time priority
	now              class
	first            *atomic.Bool // told whether it is urgent
	pauses, answered int
	began            time.Time // after the first batch since the socket was empty, if there was a second
	looked           time.Time
	used             use // when looked
}

// A use is what a thread has had of its processor.
type use struct {
	time   time.Duration // for how long it has run
	sleeps int64         // how often it gave the processor up by itself
}

// newHurry belongs to the calling thread. first is told whether the thread goes before all usual ones.
func newHurry(first *atomic.Bool) *hurry {
	h := &hurry{ask: askKernel, use: threadUse, first: first, looked: time.Now(), used: threadUse()}
	if was, err := unix.SchedGetAttr(0, 0); err == nil && (was.Policy == unix.SCHED_NORMAL || was.Policy == unix.SCHED_BATCH) {
		h.was = was
	}
	if h.set(urgent); h.now != urgent {
		h.set(short)
	}
	return h
}

// paused is told whenever the socket was empty, and how many queries were answered since the last time. Whether the thread slept
// then the kernel knows.
func (h *hurry) paused(answered int) {
	h.answered += answered
	if h.pauses++; h.pauses < pausesLooked {
		return
	}
	h.pauses = 0
	now := time.Now()
	took := now.Sub(h.looked)
	if took < lookedFor {
		return
	}
	used := h.use()
	h.choose(float64(used.time-h.used.time)/float64(took), int(used.sleeps-h.used.sleeps))
	h.looked, h.used, h.answered = now, used, 0
}

// choose goes by the share of a core that the thread took lately, and how often it slept.
func (h *hurry) choose(share float64, sleeps int) {
	if !h.barred && share < calmShare {
		h.set(urgent)
	}
	if h.now == urgent && share <= hogShare {
		return
	}
	switch {
	case h.answered < quietBelow*sleeps:
		h.set(short)
	case h.answered > busyAbove*sleeps || h.now == urgent:
		h.set(usual)
	}
}

// busy is told when the socket is not empty, and how many queries were answered since it was.
func (h *hurry) busy(answered int) {
	switch {
	case h.now != urgent || answered <= BatchWidth:
		h.began = time.Time{}
	case answered >= floods || !h.began.IsZero() && time.Since(h.began) > floodTime:
		h.set(usual)
	case h.began.IsZero():
		h.began = time.Now()
	}
}

// end gives the thread back as it was.
func (h *hurry) end() { h.set(usual) }

// set asks the kernel for a class. What it does not give, the thread does without.
func (h *hurry) set(c class) {
	if h.was == nil || h.now == c || c == urgent && h.barred {
		return
	}
	attr := *h.was
	switch attr.Runtime = 0; c {
	case short:
		attr.Runtime = slice
	case urgent:
		attr.Policy, attr.Priority, attr.Nice = unix.SCHED_RR, realTime, 0
	}
	if h.ask(&attr) != nil { // then it stays as it is, and may be asked again
		h.barred = h.barred || c == urgent
		return
	}
	h.now = c
	h.first.Store(c == urgent)
}

func askKernel(attr *unix.SchedAttr) error { return unix.SchedSetAttr(0, attr, 0) }

// threadUse is the calling thread's.
func threadUse() use {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return use{}
	}
	return use{time: time.Duration(u.Utime.Nano() + u.Stime.Nano()), sleeps: int64(u.Nvcsw)}
}
