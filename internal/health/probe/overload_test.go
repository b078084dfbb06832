package probe

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestOverloaded: more work than there is room for is doubted while it lasts and
// ten seconds more; a slow target alone is not.
func TestOverloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.took = time.Second
		cs := checks(20, Check{Every: time.Second, Timeout: 2 * time.Second})
		r, err := New(Options{Checks: cs, Probe: w.probe, InFlight: 4})
		if err != nil {
			t.Fatal(err)
		}
		if r.Overloaded() {
			t.Error("before Run")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(900 * time.Millisecond)
		if r.Overloaded() {
			t.Error("before it could know")
		}
		time.Sleep(20 * time.Second)
		if !r.Overloaded() {
			t.Error("five times too much work goes unnoticed")
		}
		if err := r.SetChecks(cs[:2]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8 * time.Second)
		if !r.Overloaded() {
			t.Error("forgotten at once")
		}
		time.Sleep(5 * time.Second)
		if r.Overloaded() {
			t.Error("never forgotten")
		}
		cancel()
		<-done
		if r.Overloaded() {
			t.Error("after Run")
		}
	})
}

// TestStall: the loop comes late, as it does in a process that was stopped.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r, stop := start(t, Options{Checks: checks(1, Check{Every: time.Hour}), Probe: w.probe})
		defer stop()
		time.Sleep(time.Minute)
		if r.Overloaded() {
			t.Fatal("an idle runner doubts itself")
		}
		// The clock of a bubble waits for everybody, so it is not the loop that is
		// late here: it was to run earlier.
		expect := func(ago time.Duration) {
			synctest.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			r.pulse.expect(time.Now().Add(-ago))
		}
		expect(400 * time.Millisecond)
		time.Sleep(beatEvery)
		synctest.Wait()
		if r.Overloaded() {
			t.Error("late by less than a second")
		}
		expect(3 * time.Second)
		if !r.Overloaded() {
			t.Error("a loop that stands still goes unnoticed")
		}
		time.Sleep(beatEvery)
		synctest.Wait()
		if !r.Overloaded() {
			t.Error("a loop that stood still goes unnoticed")
		}
		time.Sleep(9 * time.Second)
		if !r.Overloaded() {
			t.Error("forgotten at once")
		}
		time.Sleep(2 * time.Second)
		if r.Overloaded() {
			t.Error("never forgotten")
		}
	})
}
