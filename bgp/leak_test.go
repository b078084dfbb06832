package bgp

import (
	"os"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// TestNothingIsLeft: after Run no goroutine, file or process of any of its children is left in the parent.
func TestNothingIsLeft(t *testing.T) {
	before := goleak.IgnoreCurrent()
	files := openFiles(t)
	l := newSerialLab(t)
	g := l.speaker(Options{Peers: []Peer{l.peer(2)}}, Route{Prefix: anycast})
	for n := range 3 {
		s := g.await("a running child", func(s Status) bool { return s.Child.State == "running" && s.Child.Restarts == n })
		if err := syscall.Kill(s.Child.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	last := g.await("the last child", func(s Status) bool { return s.Child.State == "running" && s.Child.Restarts == 3 })
	g.stop()
	goleak.VerifyNone(t, before)
	if after := openFiles(t); after > files {
		t.Errorf("%d files are open, %d were", after, files)
	}
	if syscall.Kill(last.Child.PID, 0) == nil {
		t.Error("the child still runs")
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
