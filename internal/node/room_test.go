package node

import (
	"runtime"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/internal/admin"
)

// TestRoom: what several nodes of a process add is there until each has taken its own away.
func TestRoom(t *testing.T) { // not parallel: it looks at what belongs to the process
	usual := runtime.GOMAXPROCS(0)
	for _, step := range []struct{ add, want int }{{3, 3}, {2, 5}, {-3, 2}, {-2, 0}, {1, 1}, {-1, 0}} {
		addProcessors(step.add)
		if got := runtime.GOMAXPROCS(0) - usual; got != step.want {
			t.Errorf("%+d: %d more than usual, want %d", step.add, got, step.want)
		}
	}
}

// TestReloadMakesRoom: a reload leaves no more processors behind than there were.
func TestReloadMakesRoom(t *testing.T) { // not parallel either
	usual := runtime.GOMAXPROCS(0)
	base := at("127.9.67.", oneSite)
	r := startServing(t, strings.ReplaceAll(base, "WAIT", "300ms"))
	write(t, r.file, strings.ReplaceAll(base, "WAIT", "400ms"))
	if _, err := r.Reload(t.Context(), admin.Allowed{}); err != nil {
		t.Fatal(err)
	}
	if got := runtime.GOMAXPROCS(0); got != usual {
		t.Errorf("%d processors after a reload, %d before", got, usual)
	}
}

// A held counts what holds.
type held int

func (h *held) hold() (release func()) {
	*h++
	return func() { *h-- }
}

// TestRoomForQueries: DNS threads keep their processors while many queries come, and for a while after, if they have real-time priority.
func TestRoomForQueries(t *testing.T) {
	var holds held
	k := newRoomKeeper(holds.hold)
	queries := 100
	look := func(more int, first bool, want held) {
		t.Helper()
		queries += more
		if k.look(roomCounts{queries: uint64(queries)}, first); holds != want {
			t.Errorf("%d more, real time %v: %d hold, want %d", more, first, holds, want)
		}
	}
	look(roomRate-101, true, 0) // with the hundred before
	look(roomRate, false, 0)
	look(roomRate, true, 1)
	look(roomRate, false, 1) // a flood
	look(-1, true, 1)        // a listener is gone
	for range roomLinger/roomLooked - 2 {
		look(0, true, 1)
	}
	look(roomRate, true, 1)
	for range roomLinger/roomLooked - 1 {
		look(0, true, 1)
	}
	look(0, true, 0)
	look(roomRate, true, 1)
	if k.end(); holds != 0 {
		t.Errorf("%d hold at the end", holds)
	}
	k.end()
}

// TestRoomForRequests: they keep them while many requests come too, and for a while after, unless L4 is busy, whose loops
// would keep a processor of the usual ones each time they wait: then no longer, and not before it has been idle for as long.
func TestRoomForRequests(t *testing.T) {
	const loops = 3
	var holds held
	k := newRoomKeeper(holds.hold)
	now := roomCounts{loops: loops}
	look := func(requests, waits int, want held) {
		t.Helper()
		now.requests += uint64(requests)
		now.waits += uint64(waits)
		if k.look(now, false); holds != want {
			t.Errorf("%d requests, %d waits: %d hold, want %d", requests, waits, holds, want)
		}
	}
	const idle, busy = loops * roomWaits, loops*roomWaits + 1
	look(roomRequests-1, 0, 0)
	look(roomRequests, idle, 1)
	for range roomLinger/roomLooked - 1 {
		look(0, idle, 1)
	}
	look(0, idle, 0)
	look(roomRequests, 0, 1)
	look(roomRequests, busy, 0)
	for range roomLinger/roomLooked - 1 {
		look(roomRequests, idle, 0)
	}
	look(roomRequests, idle, 1)
	now.queries += roomRate
	if k.look(now, true); holds != 2 {
		t.Errorf("with many queries too: %d hold, want 2", holds)
	}
	now.queries += roomRate
	look(roomRequests, busy, 1) // the queries' sake is not the requests'
	if k.end(); holds != 0 {
		t.Errorf("%d hold at the end", holds)
	}
}
