package transport

import (
	"net"
	"net/netip"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// TestHoldSleeps: a socket that keeps its processor sleeps while nothing comes, and is stopped all the same.
func TestHoldSleeps(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1) // the socket's
	u := serveUDP(t, "127.0.0.1:0", echo{})
	u.Hold(true)
	spent := func() time.Duration {
		var use unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
			t.Fatal(err)
		}
		return time.Duration(use.Utime.Nano() + use.Stime.Nano())
	}
	const watched = 300 * time.Millisecond
	before := spent()
	time.Sleep(watched)
	if took := spent() - before; took > watched/3 {
		t.Errorf("it took %v of the processor within %v in which nothing came", took, watched)
	}
}

// TestHoldIsHeededAtOnce: what sleeps already keeps its processor, or gives it up, without anything coming for it, over TCP too.
func TestHoldIsHeededAtOnce(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 3) // the sockets'
	before := told()
	u := serveUDP(t, "127.0.0.1:0", echo{})
	pool, _, _ := serve(t, Limits{Connections: 1, Idle: time.Minute}, echo{}) // two streams
	is := func(what string, want int) {
		t.Helper()
		for by := time.Now().Add(10 * time.Second); told() != before+want; runtime.Gosched() {
			if time.Now().After(by) {
				t.Fatalf("%s: the scheduler knows of %d sleeps, want %d", what, told()-before, want)
			}
		}
	}
	is("nobody holds", 3)
	u.Hold(true)
	is("UDP holds", 2)
	pool.Hold(true)
	is("both hold", 0)
	u.Hold(false)
	is("TCP holds", 1)
	pool.Hold(false)
	is("nobody holds any more", 3)
	wake := []unix.PollFd{{Fd: int32(u.wake), Events: unix.POLLIN}}
	for by := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		if n, err := unix.Poll(wake, 0); n == 0 && err == nil {
			break
		}
		if time.Now().After(by) {
			t.Fatal("what woke the socket wakes it for ever")
		}
	}
}

// told returns how many goroutines are in system calls that the scheduler was told of.
func told() int {
	s := []metrics.Sample{{Name: "/sched/goroutines/not-in-go:goroutines"}}
	metrics.Read(s)
	return int(s[0].Value.Uint64())
}

// TestHurry: a thread that may not go before all others asks for short slices while it mostly sleeps, not
// under load, and in between it keeps to what it did; it gives that up in the end.
func TestHurry(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadAttr(t)
	h := &hurry{ask: askKernel, first: new(atomic.Bool), was: before, barred: true}
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
		h.answered = 100 * step.answered
		h.choose(0.5, 100)
		if got := threadAttr(t).Runtime; (got == slice) != step.short {
			t.Errorf("%d queries a sleep: a slice of %d ns", step.answered, got)
		}
	}
	h.end()
	if after := threadAttr(t); *after != *before {
		t.Errorf("%+v before, %+v after", before, after)
	}
}

// A kernel notes what it was asked for; it may refuse real-time priority.
type kernel struct {
	refuses bool
	asked   unix.SchedAttr
}

func (k *kernel) ask(attr *unix.SchedAttr) error {
	if k.refuses && attr.Policy == unix.SCHED_RR {
		return unix.EPERM
	}
	k.asked = *attr
	return nil
}

// TestHurryFirst: a thread goes before all others only while it takes little of its core and finds its socket empty.
func TestHurryFirst(t *testing.T) {
	first, k, was := new(atomic.Bool), new(kernel), unix.SchedAttr{Nice: 3}
	h := &hurry{ask: k.ask, was: &was, first: first}
	for i, step := range []struct {
		share    float64 // of a core; 0 = more than flood queries without a sleep
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
		if h.answered = 100 * step.answered; step.share > 0 {
			h.choose(step.share, 100)
		} else {
			h.busy(step.answered)
		}
		real := k.asked.Policy == unix.SCHED_RR && k.asked.Priority == realTime
		if h.now != step.want || real != (step.want == urgent) || first.Load() != real {
			t.Errorf("step %d: class %d, want %d; real time %v, said %v", i, h.now, step.want, real, first.Load())
		}
	}
	if h.end(); k.asked != was || first.Load() {
		t.Errorf("%+v before, %+v after; real time %v", was, k.asked, first.Load())
	}
}

// TestHurryLooks: what a thread took is looked at over a while, however often it pauses, and by how often it slept, not paused.
func TestHurryLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used use
		h := &hurry{ask: new(kernel).ask, use: func() use { return used }, was: new(unix.SchedAttr), first: new(atomic.Bool), looked: time.Now()}
		h.set(urgent)
		for i, step := range []struct {
			after  time.Duration
			share  float64
			sleeps int64
			want   class
		}{
			{time.Millisecond, 1, 0, urgent}, // too soon to say
			{lookedFor, 0.1, 10, urgent},     // with the millisecond before
			{lookedFor, 1, 100, usual},       // 64 queries in each sleep
			{lookedFor - 1, 0.1, 1000, usual},
			{1, 0.1, 0, urgent},
			{lookedFor, 1, 6400, short}, // one in each
		} {
			time.Sleep(step.after)
			used.time += time.Duration(step.share * float64(step.after))
			used.sleeps += step.sleeps
			for range pausesLooked {
				h.paused(100)
			}
			if h.now != step.want {
				t.Errorf("step %d: class %d, want %d", i, h.now, step.want)
			}
		}
	})
}

// TestHurryDear: a few queries that take long are a flood too, counted from when the socket was empty.
func TestHurryDear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hurry{ask: new(kernel).ask, was: new(unix.SchedAttr), first: new(atomic.Bool)}
		h.set(urgent)
		const some = BatchWidth
		for i, step := range []struct {
			after    time.Duration
			answered int
			want     class
		}{
			{0, some, urgent},
			{time.Hour, 2 * some, urgent}, // the first batch itself does not count
			{floodTime, 3 * some, urgent},
			{time.Hour, some, urgent}, // empty in between
			{0, 2 * some, urgent},
			{floodTime - 1, 3 * some, urgent},
			{2, 4 * some, usual},
		} {
			time.Sleep(step.after)
			if h.busy(step.answered); h.now != step.want {
				t.Errorf("step %d: class %d, want %d", i, h.now, step.want)
			}
		}
	})
}

// TestHurryBarred: a thread that may not go before all others asks once, and for short slices instead; the kernel of this
// machine, whatever it allows, leaves none as it was not.
func TestHurryBarred(t *testing.T) {
	k := &kernel{refuses: true}
	h := &hurry{ask: k.ask, was: new(unix.SchedAttr), first: new(atomic.Bool)}
	h.answered = 100
	if h.choose(0.01, 100); h.now != short || !h.barred || h.first.Load() || k.asked.Runtime != slice {
		t.Errorf("class %d, barred %v, asked for %+v", h.now, h.barred, k.asked)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadAttr(t)
	newHurry(new(atomic.Bool)).end()
	if after := threadAttr(t); *after != *before {
		t.Errorf("%+v before, %+v after", before, after)
	}
}

// A refill sends the next query before it answers one, so that the socket it serves is not empty until it has sent all.
type refill struct {
	echo
	conn *net.UDPConn
	left int
}

func (r *refill) Respond(_, msg []byte, _ netip.AddrPort, _ bool) []byte {
	if r.left--; r.left > 0 {
		_, _ = r.conn.Write(msg)
	}
	return nil
}

// TestFloodIsNotFirst: a thread whose socket is never empty loses its priority, and one that finds it empty before that does not.
func TestFloodIsNotFirst(t *testing.T) {
	u, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer u[0].Close()
	for queries, want := range map[int]class{floods - 1: urgent, floods: usual} {
		h := &hurry{ask: new(kernel).ask, was: new(unix.SchedAttr), first: new(atomic.Bool)}
		until := time.Now().Add(20 * time.Second)
		for answered := 0; answered != queries; { // the kernel may be late with one, so that the socket is empty all the same
			if time.Now().After(until) {
				t.Fatalf("%d in a row: last %d", queries, answered)
			}
			h.set(urgent)
			r := &refill{conn: asker(t, u[0].Local()), left: queries}
			if _, err := r.conn.Write([]byte("ok")); err != nil {
				t.Fatal(err)
			}
			answered, _ = u[0].drain(newBatch(false), r, h)
		}
		if h.now != want {
			t.Errorf("%d answered without a sleep: class %d, want %d", queries, h.now, want)
		}
	}
}

func threadAttr(t *testing.T) *unix.SchedAttr {
	t.Helper()
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Skip(err)
	}
	return attr
}
