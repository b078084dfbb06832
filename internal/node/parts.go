package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// parts are the running components. Every long-lived goroutine of a node
// begins in start.
type parts struct {
	log *slog.Logger
	// failed receives the first error of a component that ended by itself.
	failed chan error

	mu      sync.Mutex // guards running
	running []*part
}

type part struct {
	name   string
	cancel context.CancelCauseFunc
	done   chan struct{}
}

func newParts(log *slog.Logger) *parts { return &parts{log: log, failed: make(chan error, 1)} }

// start runs a component until it is stopped.
func (p *parts) start(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := &part{name: name, cancel: cancel, done: make(chan struct{})}
	p.mu.Lock()
	p.running = append(p.running, c)
	p.mu.Unlock()
	go func() {
		defer close(c.done)
		err := run(ctx)
		switch {
		case ctx.Err() != nil && err != nil:
			p.log.Warn("component stopped with an error", "component", name, "error", err)
		case ctx.Err() == nil:
			if err == nil {
				err = errors.New("ended by itself")
			}
			select {
			case p.failed <- fmt.Errorf("%s: %w", name, err):
			default: // the first failure already stops the node
			}
		}
	}()
}

// stop ends the components of these names, all at once, and waits for them, at
// most limit.
func (p *parts) stop(limit time.Duration, names ...string) {
	p.mu.Lock()
	var ending, rest []*part
	for _, c := range p.running {
		if slices.Contains(names, c.name) {
			ending = append(ending, c)
		} else {
			rest = append(rest, c)
		}
	}
	p.running = rest
	p.mu.Unlock()
	p.end(ending, limit)
}

// stopAll ends everything that still runs, newest first.
func (p *parts) stopAll(limit time.Duration) {
	p.mu.Lock()
	ending := p.running
	p.running = nil
	p.mu.Unlock()
	for i := len(ending) - 1; i >= 0; i-- {
		p.end(ending[i:i+1], limit)
	}
}

func (p *parts) end(ending []*part, limit time.Duration) {
	for _, c := range ending {
		c.cancel(nil)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for _, c := range ending {
		select {
		case <-c.done:
		case <-timer.C:
			p.log.Warn("component did not stop in time", "component", c.name, "limit", limit.String())
			return
		}
	}
}
