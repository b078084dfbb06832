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
