package node

import (
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/config"
)

// The time of a stop is shared out so that connections have the larger part of it.
func TestStopSteps(t *testing.T) {
	for _, c := range []struct {
		drain config.Drain
		leads time.Duration
		want  stopSteps
	}{
		{config.Drain{Stop: 15 * time.Second, Depreference: 30 * time.Second}, 30 * time.Second, stopSteps{15 * time.Second, 5 * time.Second, 3 * time.Second}},
		{config.Drain{Stop: 90 * time.Second, Depreference: 10 * time.Second}, 30 * time.Second, stopSteps{90 * time.Second, 30 * time.Second, 10 * time.Second}},
		{config.Drain{Stop: 90 * time.Second, Depreference: 10 * time.Second}, 0, stopSteps{90 * time.Second, 0, 10 * time.Second}},
		{config.Drain{Stop: time.Second}, time.Hour, stopSteps{time.Second, time.Second / 3, 0}},
	} {
		if got := stepsOf(c.drain, c.leads); got != c.want {
			t.Errorf("%+v, answers of %s: %+v, want %+v", c.drain, c.leads, got, c.want)
		}
	}
}
