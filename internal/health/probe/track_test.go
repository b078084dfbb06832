package probe

import (
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// TestTrack runs results (S success, F failure, I inconclusive) with rise 2 and
// fall 3 through a track. After each the stated status is u(p), d(own),
// ? (unknown); an upper-case letter or ! asks for a recheck soon.
func TestTrack(t *testing.T) {
	for _, tt := range []struct {
		name    string
		initial health.Status
		results string
		want    string
	}{
		{"first success decides", health.StatusNone, "S", "u"},
		{"first failures need fall", health.StatusNone, "FFFF", "!!dd"},
		{"a success among first failures decides", health.StatusNone, "FFS", "!!u"},
		{"up, one odd failure", health.StatusNone, "SFS", "uUu"},
		{"up, failures in a row", health.StatusNone, "SFFF", "uUUd"},
		{"up, failures with a break", health.StatusNone, "SFFSFFS", "uUUuUUu"},
		{"down, one odd success", health.StatusNone, "FFFSF", "!!dDd"},
		{"down, successes in a row", health.StatusNone, "FFFSS", "!!dDu"},
		{"last known up, confirmed", health.StatusUp, "S", "u"},
		{"last known up, contradicted", health.StatusUp, "FFF", "!!d"},
		{"last known up, odd failure", health.StatusUp, "FS", "!u"},
		{"last known down, confirmed", health.StatusDown, "F", "d"},
		{"last known down, contradicted", health.StatusDown, "SS", "!u"},
		{"last known down, odd success", health.StatusDown, "SF", "!d"},
		{"last known unknown is nothing", health.StatusUnknown, "S", "u"},
		{"inconclusive at first", health.StatusNone, "IIS", "??u"},
		{"inconclusive does not count", health.StatusNone, "SFIFIF", "uUuUud"},
		{"blind now and then", health.StatusNone, "SISISIS", "uuuuuuu"},
		{"blind for long", health.StatusNone, "SIIIS", "uuu?u"},
		{"blind, then it argues", health.StatusNone, "SIIIFFF", "uuu?!!d"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTrack(target("10.0.0.1:80"), tt.initial)
			var got strings.Builder
			for i, r := range tt.results {
				result := Result{At: time.Unix(int64(i), 0)}
				switch r {
				case 'F':
					result.Err = "refused"
				case 'I':
					result.Err, result.Inconclusive = "no ports", true
				}
				before := tr.state.Status
				n := tr.observe(result, &Check{Rise: 2, Fall: 3})
				changed, soon := n.status, n.soon
				if changed != (before != tr.state.Status) || changed && tr.state.Since != result.At {
					t.Errorf("result %d: changed %v, %v → %+v", i, changed, before, tr.state)
				}
				letter := map[health.Status]string{health.StatusUp: "u", health.StatusDown: "d", health.StatusUnknown: "?", health.StatusNone: "-"}[tr.state.Status]
				if soon {
					letter = map[string]string{"u": "U", "d": "D", "?": "!"}[letter]
				}
				got.WriteString(letter)
			}
			if got.String() != tt.want {
				t.Errorf("%s gave %s, want %s", tt.results, got.String(), tt.want)
			}
		})
	}
}

func TestTrackStreak(t *testing.T) {
	tr := newTrack(target("10.0.0.1:80"), health.StatusNone)
	for i, want := range []int{-1, -2, 1, 2, 2, -1} {
		r := Result{Err: map[bool]string{true: "refused"}[want < 0], Inconclusive: i == 4}
		tr.observe(r, &Check{Rise: 2, Fall: 3})
		if tr.state.Streak != want {
			t.Errorf("result %d: streak %d, want %d", i, tr.state.Streak, want)
		}
	}
}
