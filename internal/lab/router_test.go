package lab

import (
	"os"
	"testing"
	"time"
)

// TestDaemonThatNeverStarted: what could not be started is not kept, and to stop is not to wait for its end.
func TestDaemonThatNeverStarted(t *testing.T) {
	needRouters(t)
	nowhere, err := os.Open(os.DevNull) // no namespace
	if err != nil {
		t.Fatal(err)
	}
	space := &namespace{name: "nowhere", file: nowhere}
	defer space.close()
	r := &router{space: space, dir: t.TempDir()}
	if err := r.start(); err == nil || len(r.daemons) > 0 {
		t.Errorf("it was started: %v, %d", err, len(r.daemons))
	}
	d, err := startDaemon(space, r.dir, "bird", "bird2", "-v")
	if err == nil || d != nil {
		t.Fatalf("got %v, %v", d, err)
	}
	// As the resolver keeps it.
	unbound := &resolver{space: space, dir: r.dir}
	unbound.daemon, _ = startDaemon(space, r.dir, "bird", "bird2", "-v")
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		unbound.stop()
	}()
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Fatal("to stop waits for ever")
	}
}
