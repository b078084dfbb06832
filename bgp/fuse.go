package bgp

import (
	"sync"
	"time"
)

// A fuse calls a function unless it is cut. It burns in two stages: when the whole process was stalled and everything
// in it is late, the second stage still leaves its time to those who would have cut it.
type fuse struct {
	mu    sync.Mutex // guards the rest
	timer *time.Timer
	isCut bool
}

func lightFuse(first, second time.Duration, f func()) *fuse {
	x := &fuse{}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.timer = time.AfterFunc(first, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		if !x.isCut {
			x.timer = time.AfterFunc(second, f)
		}
	})
	return x
}

// cut stops the fuse.
func (x *fuse) cut() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.isCut = true
	x.timer.Stop()
}
