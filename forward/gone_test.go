package forward

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestDepart: since when a backend is gone outlasts why it is; a return begins anew.
func TestDepart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := New(Options{Pools: &fakePools{}})
		if err != nil {
			t.Fatal(err)
		}
		b := &Backend{registry: r}
		for _, step := range []struct {
			name          string
			gone, drained bool
			want          time.Duration // a second after the plan
		}{
			{"in use", false, false, 0},
			{"drained", true, true, time.Second},
			{"drained still", true, true, 2 * time.Second},
			{"down or removed then", true, false, 3 * time.Second},
			{"and drained", true, true, 4 * time.Second},
			{"back", false, true, 0},
			{"down", true, false, time.Second},
		} {
			b.depart(step.gone, step.drained, r.now())
			time.Sleep(time.Second)
			since, drained := b.GoneFor()
			if since != step.want || drained != (step.gone && step.drained) || b.Gone() != step.gone {
				t.Errorf("%s: gone for %s, drained %v, gone %v", step.name, since, drained, b.Gone())
			}
		}
	})
}

// TestDrainNeverLooksDown: whoever looks while a drain begins or ends sees a backend that is in use or drained.
func TestDrainNeverLooksDown(t *testing.T) {
	r, err := New(Options{Pools: &fakePools{}})
	if err != nil {
		t.Fatal(err)
	}
	b := &Backend{registry: r}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := range 200_000 {
			b.depart(i%2 == 0, i%2 == 0, r.now())
		}
	})
	for range 200_000 {
		if since, drained := b.GoneFor(); since > 0 && !drained {
			t.Error("it looks as if it were down")
			return
		}
	}
}
