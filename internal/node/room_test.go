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

// TestRoomForQueries: DNS threads keep their processors while many queries come, and for a while after, if they have real-time priority.
func TestRoomForQueries(t *testing.T) {
	holds := 0
	k := roomKeeper{hold: func() func() {
		holds++
		return func() { holds-- }
	}}
	queries := uint64(100)
	look := func(more int, first bool, want int) {
		t.Helper()
		queries += uint64(more)
		if k.look(queries, first); holds != want {
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
