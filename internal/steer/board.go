package steer

import (
	"sync"
	"sync/atomic"
)

// A Board is where the newest Plan hangs. One goroutine publishes; any number
// load. Load is one atomic read and never blocks. The zero Board is ready and
// holds no plan.
type Board struct {
	plan atomic.Pointer[Plan]

	mu       sync.Mutex // guards watchers
	watchers map[chan struct{}]struct{}
}

// Load returns the newest plan, nil before the first Publish. A caller loads
// once per unit of work and keeps that plan to the end.
func (b *Board) Load() *Plan { return b.plan.Load() }

// Publish replaces the plan and wakes every watcher. Only the decider calls it.
func (b *Board) Publish(p *Plan) {
	b.plan.Store(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	for ch := range b.watchers {
		select {
		case ch <- struct{}{}:
		default: // already woken; it will load the newest
		}
	}
}

// Watch returns a channel of capacity 1 that receives after every Publish
// (several may coalesce), and a function that ends the watch.
func (b *Board) Watch() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.watchers == nil {
		b.watchers = make(map[chan struct{}]struct{})
	}
	b.watchers[ch] = struct{}{}
	return ch, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.watchers, ch)
	}
}
