package transport

import (
	"net"
	"net/netip"
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

// A refill sends the next query before it answers one, so that the socket it serves is never empty.
type refill struct {
	echo
	conn  *net.UDPConn
	left  int
	first func() bool
	had   atomic.Bool // real-time priority, at the last but one
}

func (r *refill) Respond(dst, msg []byte, _ netip.AddrPort, _ bool) []byte {
	if r.left--; r.left > 0 {
		_, _ = r.conn.Write(msg)
		r.had.Store(r.first())
		return nil
	}
	return append(dst, msg...)
}

// TestFloodIsNotFirst: a thread whose socket is never empty loses its priority, and has it again once it sleeps.
func TestFloodIsNotFirst(t *testing.T) {
	sockets, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	u := sockets[0]
	defer u.Close()
	r := &refill{conn: asker(t, u.Local()), left: floods + 2*batchWidth, first: u.RealTime}
	done := make(chan struct{})
	go func() { defer close(done); u.Serve(r) }()
	defer func() { u.Stop(); <-done }()
	ask := func() {
		t.Helper()
		in := make([]byte, 8)
		if _, err := r.conn.Write([]byte("ok")); err != nil {
			t.Fatal(err)
		}
		if _, err := r.conn.Read(in); err != nil {
			t.Fatal(err)
		}
	}
	if ask(); barred() {
		t.Skip("real-time priority is not allowed here")
	}
	if r.had.Load() {
		t.Error("the thread went first in a flood")
	}
	for range 100 * sleepsLooked {
		if ask(); u.RealTime() {
			return
		}
	}
	t.Error("after the flood the thread does not go first again")
}

// barred reports whether a thread of ours may not have real-time priority.
func barred() bool {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	h := newHurry(new(atomic.Bool))
	defer h.end()
	return h.barred
}

func threadAttr(t *testing.T) *unix.SchedAttr {
	t.Helper()
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Skip(err)
	}
	return attr
}
