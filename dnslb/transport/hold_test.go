package transport

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHold: a socket that keeps its processor answers, does not hold up the garbage collector, which
// has to stop it, and can be stopped.
func TestHold(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1) // the socket's
	u := serveUDP(t, "127.0.0.1:0", echo{})
	conn := asker(t, u.Local())
	asks := func() {
		t.Helper()
		in := make([]byte, 8)
		if _, err := conn.Write([]byte("ok")); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(in); err != nil || string(in[:n]) != "ok" {
			t.Fatalf("%q, %v", in[:n], err)
		}
	}
	asks()
	u.Hold(true)
	begun := time.Now()
	const rounds = 50
	for range rounds {
		asks() // and it sleeps again
		runtime.GC()
	}
	if each := time.Since(begun) / rounds; each > 2*holdWait { // it is stopped several times in each
		t.Errorf("a collection took %v: it waited for the socket", each)
	}
	u.Hold(false)
	asks()
	u.Hold(true) // and ends so
	asks()
}

// TestHurry: a thread that may not go before all others asks for short slices while it mostly sleeps, not
// under load, and in between it keeps to what it did; it gives that up in the end.
func TestHurry(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadAttr(t)
	h := &hurry{first: new(atomic.Bool), was: before, barred: true}
	h.set(short)
	if during := threadAttr(t).Runtime; during == before.Runtime {
		t.Skip("this kernel has no slices to ask for: Linux 6.12 has")
	} else if during != slice {
		t.Errorf("a slice of %d ns, want %d", during, slice)
	}
	for _, step := range []struct {
		answered int
		short    bool
	}{{1, true}, {18, true}, {100, false}, {18, false}, {1, true}, {100, false}, {1, true}} {
		for range sleepsLooked {
			h.sleeping(step.answered)
		}
		if got := threadAttr(t).Runtime; (got == slice) != step.short {
			t.Errorf("%d queries a sleep: a slice of %d ns", step.answered, got)
		}
	}
	h.end()
	if after := threadAttr(t); *after != *before {
		t.Errorf("%+v before, %+v after", before, after)
	}
}

// TestHurryFirst: a thread goes before all others only while it takes little of its core and finds its socket empty.
func TestHurryFirst(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadAttr(t)
	first := new(atomic.Bool)
	h := newHurry(first)
	if h.barred {
		t.Skip("real-time priority is not allowed here")
	}
	for i, step := range []struct {
		share    float64 // of a core; 0 = floods queries without a sleep
		answered int     // between two sleeps
		want     class
	}{
		{0.01, 1, urgent},
		{calmShare + 0.01, 20, urgent}, // not yet
		{hogShare + 0.01, 20, usual},
		{calmShare + 0.01, 20, usual}, // not again yet
		{calmShare + 0.01, 1, short},
		{calmShare - 0.01, 20, urgent},
		{hogShare + 0.01, 1, short}, // much work for few queries
		{0.10, 1, urgent},
		{0, floods - 1, urgent},
		{0, floods, usual},
		{0, floods, usual},
		{0.10, 1, urgent},
	} {
		if h.answered = step.answered * sleepsLooked; step.share > 0 {
			h.choose(step.share)
		} else {
			h.busy(step.answered)
		}
		attr := threadAttr(t)
		real := attr.Policy == unix.SCHED_RR && attr.Priority == realTime
		if h.now != step.want || real != (step.want == urgent) || first.Load() != real {
			t.Errorf("step %d: class %d, want %d; real time %v, said %v", i, h.now, step.want, real, first.Load())
		}
	}
	h.end()
	if after := threadAttr(t); *after != *before {
		t.Errorf("%+v before, %+v after", before, after)
	}
}

// TestFloodIsNotFirst: a socket that is never empty is served by a usual thread, and by one that goes first again once it is.
func TestFloodIsNotFirst(t *testing.T) {
	u := serveUDP(t, "127.0.0.1:0", echo{})
	conn := asker(t, u.Local())
	ask := func() {
		in := make([]byte, 8)
		if _, err := conn.Write([]byte("ok")); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(in); err != nil {
			t.Fatal(err)
		}
	}
	if ask(); !u.RealTime() {
		t.Skip("real-time priority is not allowed here")
	}
	until := time.Now().Add(30 * time.Second)
	for u.RealTime() { // it is answered less than it is asked: it is this and the kernel's other side of the way
		for range 4 * floods {
			_, _ = conn.Write([]byte("ok"))
		}
		if time.Now().After(until) {
			t.Fatal("the thread still goes first under a flood")
		}
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond)) // what came is thrown away
	for buf := make([]byte, 8); ; {
		if _, err := conn.Read(buf); err != nil {
			break
		}
	}
	_ = conn.SetReadDeadline(time.Time{})
	for range 100 * sleepsLooked {
		if ask(); u.RealTime() {
			return
		}
	}
	t.Error("after the flood the thread does not go first again")
}

func threadAttr(t *testing.T) *unix.SchedAttr {
	t.Helper()
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Skip(err)
	}
	return attr
}
