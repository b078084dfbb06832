package forward

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestLineThatStays: a burst may wait; once somebody has waited for all of the time without a break, who comes then may not
// wait long, and is served if its turn comes soon.
func TestLineThatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, _ := balanced(t, Policy{Limit: Limit{PerBackend: 1, Queue: 10, Wait: time.Second}}, 1, one)
		e := r.Load()
		busy, err := e.Pick("web", Terms{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		type end struct {
			backend *Backend
			err     error
			after   time.Duration
		}
		ask := func(at time.Duration) <-chan end {
			ended := make(chan end, 1)
			go func() {
				time.Sleep(at)
				began := time.Now()
				b, err := e.Await(t.Context(), "web", Terms{})
				ended <- end{b, err, time.Since(began)}
			}()
			return ended
		}
		first, second, third, fresh := ask(0), ask(600*time.Millisecond), ask(1100*time.Millisecond), ask(3*time.Second)
		for _, tt := range []struct {
			name  string
			ended <-chan end
			want  error
			after time.Duration
		}{
			{"the first", first, ErrLineWaits, time.Second},
			{"the second, in a line of less than its wait", second, ErrLineWaits, time.Second},
			{"the third, in a line that stays", third, ErrLineStays, time.Second / hurry},
			{"one after the line was empty", fresh, ErrLineWaits, time.Second},
		} {
			if got := <-tt.ended; !errors.Is(got.err, tt.want) || got.after != tt.after {
				t.Errorf("%s: %v after %s, want %v after %s", tt.name, got.err, got.after, tt.want, tt.after)
			}
		}
		// What the line is for goes on: whose turn comes soon is served.
		ask(0)
		ask(500 * time.Millisecond)
		served := ask(1200 * time.Millisecond)
		time.Sleep(1250 * time.Millisecond)
		busy.Done() // the one in front, who hands it on
		synctest.Wait()
		r.Load()
		busy.Done()
		if got := <-served; got.err != nil || got.after != 50*time.Millisecond {
			t.Errorf("whose turn came soon: %v after %s", got.err, got.after)
		}
		if q := r.Queues()[0]; q.Late != 4 || q.Shed != 1 || q.Waiting != 0 {
			t.Errorf("queue is %+v", q)
		}
	})
}
