package transport

import (
	"runtime"
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

// TestHurry: a thread that mostly sleeps asks for short slices, one under load does
// not, and in between it keeps to what it did; it gives that up in the end.
func TestHurry(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadSlice(t)
	h := newHurry()
	during := threadSlice(t)
	if during == before {
		t.Skip("this kernel has no slices to ask for: Linux 6.12 has")
	}
	if during != slice {
		t.Errorf("a slice of %d ns, want %d", during, slice)
	}
	for _, step := range []struct {
		answered int
		short    bool
	}{{1, true}, {18, true}, {100, false}, {18, false}, {1, true}, {100, false}, {1, true}} {
		for range sleepsLooked {
			h.sleeping(step.answered)
		}
		if got := threadSlice(t); (got == slice) != step.short {
			t.Errorf("%d queries a sleep: a slice of %d ns", step.answered, got)
		}
	}
	h.end()
	if after := threadSlice(t); after != before {
		t.Errorf("a slice of %d ns before, %d after", before, after)
	}
}

func threadSlice(t *testing.T) uint64 {
	t.Helper()
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Skip(err)
	}
	return attr.Runtime
}
