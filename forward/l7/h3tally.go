package l7

import (
	"sync"
	"time"
)

const (
	// A client may break off this many requests of HTTP/3 more than it lets end within calm3, as of HTTP/2.
	spareResets3 = 100
	calm3        = 10 * time.Second
)

// A tally3 counts the requests of a connection that came to nothing: each has cost us, and a backend, far more than the
// client. The zero value has counted none.
type tally3 struct {
	mu     sync.Mutex // guards the rest
	vain   int        // less those that ended
	calmed time.Time  // when they were last let off
	over   bool
}

// add counts a request, and reports, once, that there have been too many that came to nothing.
func (t *tally3) add(vain bool, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !vain {
		t.vain = max(t.vain-1, 0)
		return false
	}
	if t.calmed.IsZero() {
		t.calmed = now
	}
	if t.vain++; t.vain <= spareResets3 || t.over {
		return false
	}
	if now.Sub(t.calmed) > calm3 {
		t.calmed, t.vain = now, 0
		return false
	}
	t.over = true
	return true
}
