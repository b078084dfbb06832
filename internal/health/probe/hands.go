package probe

import "sync"

// maxHands is how many goroutines wait for the next probe; more end with theirs.
const maxHands = 64

// hands are goroutines that run probes, one after the other: the stack of one that
// has run a probe is large enough for the next, and to grow it is a good part of
// what a probe costs. Runner.mu guards it, but in its own goroutines.
type hands struct {
	once  sync.Once
	tasks chan func()   // unbuffered: received by one that waits
	idle  chan struct{} // a place to wait in
}

// do runs task in a goroutine, which probes counts.
func (h *hands) do(probes *sync.WaitGroup, task func()) {
	h.once.Do(func() { h.tasks, h.idle = make(chan func()), make(chan struct{}, maxHands) })
	select {
	case h.tasks <- task:
		return
	default:
	}
	probes.Go(func() {
		for task != nil {
			task()
			task = h.next()
		}
	})
}

// next waits for another task; nil if there is no place to wait, or no more will
// come.
func (h *hands) next() func() {
	select {
	case h.idle <- struct{}{}:
	default:
		return nil
	}
	task := <-h.tasks
	<-h.idle
	return task
}

// rest ends the goroutines that wait. No task may come after it.
func (h *hands) rest() {
	h.once.Do(func() { h.tasks, h.idle = make(chan func()), make(chan struct{}, maxHands) })
	close(h.tasks)
}
