package bgp

import (
	"io"
	"sync"
	"time"
)

// Limits of the child's log.
const (
	maxQueuedLines = 256                    // further ones are dropped until there is room
	flushWait      = 100 * time.Millisecond // for the last lines before the process ends
)

// A lineQueue writes lines from a goroutine of its own. The child logs to a pipe: when a hung parent lets it fill up, a
// blocking write would keep the child from withdrawing.
type lineQueue struct {
	lines chan []byte
	once  sync.Once
	done  chan struct{}
}

func newLineQueue(w io.Writer) *lineQueue {
	q := &lineQueue{lines: make(chan []byte, maxQueuedLines), done: make(chan struct{})}
	go func() {
		defer close(q.done)
		for line := range q.lines {
			if line == nil {
				return
			}
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	}()
	return q
}

// Write queues one line, or drops it. It never fails.
func (q *lineQueue) Write(line []byte) (int, error) {
	select {
	case q.lines <- append([]byte{}, line...):
	default:
	}
	return len(line), nil
}

// flush waits a short while for the queued lines and ends the goroutine.
func (q *lineQueue) flush() {
	q.once.Do(func() {
		timer := time.NewTimer(flushWait)
		defer timer.Stop()
		select {
		case q.lines <- nil:
		case <-timer.C:
			return
		}
		select {
		case <-q.done:
		case <-timer.C:
		}
	})
}
