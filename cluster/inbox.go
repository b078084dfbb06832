package cluster

import (
	"sync"
	"time"
)

// Limits of what waits for the pump. Both are reached only if the pump is held
// up or a member misbehaves; the oldest frames then go first, since a newer
// report replaces them anyway.
const (
	maxInboxFrames = 4096
	maxInboxBytes  = 32 << 20
)

// letter is one received frame.
type letter struct {
	frame   []byte
	arrived time.Time
	// exchange marks a table that came by push/pull, even if it cannot be read.
	exchange bool
}

// inbox is the queue between memberlist's goroutines and the pump. Putting
// never blocks.
type inbox struct {
	// Immutable.
	maxFrames, maxBytes int
	ready               chan struct{} // capacity 1

	mu    sync.Mutex // guards the rest
	queue []letter
	bytes int
}

func newInbox(maxFrames, maxBytes int) *inbox {
	return &inbox{maxFrames: maxFrames, maxBytes: maxBytes, ready: make(chan struct{}, 1)}
}

// put appends l, which must not exceed maxBytes, and returns how many older
// letters had to go.
func (in *inbox) put(l letter) (dropped int) {
	in.mu.Lock()
	for len(in.queue) > 0 && (len(in.queue) >= in.maxFrames || in.bytes+len(l.frame) > in.maxBytes) {
		in.bytes -= len(in.queue[0].frame)
		in.queue[0] = letter{}
		in.queue = in.queue[1:]
		dropped++
	}
	in.queue = append(in.queue, l)
	in.bytes += len(l.frame)
	in.mu.Unlock()
	select {
	case in.ready <- struct{}{}:
	default:
	}
	return dropped
}

// take removes and returns all that waits, oldest first.
func (in *inbox) take() []letter {
	in.mu.Lock()
	defer in.mu.Unlock()
	all := in.queue
	in.queue, in.bytes = nil, 0
	return all
}
