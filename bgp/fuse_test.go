package bgp

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestFuse(t *testing.T) {
	for _, tc := range []struct {
		name  string
		cutAt time.Duration // 0 = never
		want  time.Duration // 0 = does not go off
	}{
		{"burns down", 0, 5 * time.Second},
		{"cut in the first stage", time.Second, 0},
		{"cut in the second stage", 4 * time.Second, 0},
		{"cut too late", 6 * time.Second, 5 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var at time.Duration
				x := lightFuse(3*time.Second, 2*time.Second, func() { at = time.Since(began) })
				if tc.cutAt > 0 {
					time.Sleep(tc.cutAt)
					x.cut()
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if at != tc.want {
					t.Errorf("went off after %s, want %s", at, tc.want)
				}
			})
		})
	}
}
