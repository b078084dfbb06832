package probe

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// TestHangingTargets: a thousand targets that swallow everything neither delay the
// probes of the others nor make the node doubt itself.
func TestHangingTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cs := checks(1001, Check{Every: 2 * time.Second, Timeout: 2 * time.Second, Recheck: 250 * time.Millisecond, Fall: 3})
		victim := cs[500].Target
		var dead atomic.Bool
		r, stop := start(t, Options{Checks: cs, Probe: func(ctx context.Context, c Check) Result {
			if c.Target != victim {
				<-ctx.Done()
				return Result{Err: "timeout"}
			}
			if dead.Load() {
				return Result{Err: "connect refused"}
			}
			return Result{}
		}})
		defer stop()
		time.Sleep(10 * time.Second)
		if r.Overloaded() || r.Lag() > freshFor {
			t.Errorf("doubts itself: overloaded %v, lag %v", r.Overloaded(), r.Lag())
		}
		if s := statusOf(r, victim); s != health.StatusUp {
			t.Fatalf("the one that answers is %v", s)
		}
		dead.Store(true)
		time.Sleep(3 * time.Second)
		if s := statusOf(r, victim); s != health.StatusDown {
			t.Errorf("three seconds after it died it is %v", s)
		}
	})
}

// TestBurst: what is due at the same time does not all begin at the same time, and
// nothing gets lost.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.took = time.Second
		cs := checks(3*maxFresh, Check{Every: time.Minute, Timeout: 2 * time.Second})
		r, stop := start(t, Options{Checks: cs, Probe: w.probe})
		defer stop()
		synctest.Wait()
		r.mu.Lock()
		for _, j := range r.order {
			r.schedule(j, time.Now())
		}
		r.mu.Unlock()
		signal(r.wake)
		for _, want := range []int{1, 2, 3, 3} {
			synctest.Wait()
			r.mu.Lock()
			if got := r.room.flying; got != want*maxFresh {
				t.Errorf("%d in flight, want %d", got, want*maxFresh)
			}
			r.mu.Unlock()
			time.Sleep(freshFor)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.room.age(time.Now())
		if m := r.room; m.flying != 0 || m.fresh != 0 || len(m.young) != 0 {
			t.Errorf("after the end of all: %+v", m)
		}
	})
}
