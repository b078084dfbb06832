package forward

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestAdmit: a service takes so much new work a second, with a burst of one second; a plan that leaves its rate alone forgets nothing, one
// without a rate limits nothing, and other services are not concerned.
func TestAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pools := &fakePools{}
		publish := func(rate, perBackend int) {
			limited := ServicePool{Service: "db", Policy: Policy{Limit: Limit{Rate: rate, PerBackend: int64(perBackend)}}}
			pools.publish(limited, ServicePool{Service: "other"})
		}
		publish(5, 0)
		r, err := New(Options{Pools: pools})
		if err != nil {
			t.Fatal(err)
		}
		taken := func(service string, asked int) int {
			n := 0
			for range asked {
				if r.Load().Admit(service) {
					n++
				}
			}
			return n
		}
		for _, step := range []struct {
			name  string
			do    func()
			asked int
			want  int
		}{
			{"at once", nil, 8, 5},
			{"another plan with the same rate", func() { publish(5, 7) }, 3, 0},
			{"a fifth of a second later", func() { time.Sleep(time.Second / 5) }, 3, 1},
			{"a long time later", func() { time.Sleep(time.Hour) }, 9, 5},
			{"another rate", func() { publish(2, 0) }, 4, 2},
			{"no rate", func() { publish(0, 0) }, 1000, 1000},
			{"a rate again", func() { publish(2, 0) }, 4, 2},
		} {
			if step.do != nil {
				step.do()
			}
			if got := taken("db", step.asked); got != step.want {
				t.Errorf("%s: took %d of %d, want %d", step.name, got, step.asked, step.want)
			}
			if got := taken("other", 100) + taken("unknown", 100); got != 200 {
				t.Errorf("%s: other services: took %d of 200", step.name, got)
			}
		}
		for _, q := range r.Queues() {
			if want := map[string]uint64{"db": 3 + 3 + 2 + 4 + 2 + 2}[q.Service]; q.OverRate != want {
				t.Errorf("%s: counted %d, want %d", q.Service, q.OverRate, want)
			}
		}
	})
}
