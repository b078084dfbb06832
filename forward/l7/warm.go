package l7

import (
	"context"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/forward"
)

const (
	// warmEvery is how often it is looked whether connections are missing.
	warmEvery = time.Second
	// warmAtOnce is how many are opened at a time.
	warmAtOnce = 16
)

// warm opens connections to backends ahead of need until ctx ends.
func (s *Server) warm(ctx context.Context) {
	ticker := time.NewTicker(warmEvery)
	defer ticker.Stop()
	for {
		s.warmOnce(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// warmOnce opens what is missing now.
func (s *Server) warmOnce(ctx context.Context) {
	terms := forward.Terms{Connect: s.opts.Connect, Carrier: s.carrier}
	slots := make(chan struct{}, warmAtOnce)
	var wg sync.WaitGroup
	s.registry.Load() // there may have been no request since the last plan
	for _, cold := range s.registry.Cold() {
		for range cold.Missing {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				s.carrier.warm(ctx, cold.Backend, terms)
			})
		}
	}
	wg.Wait()
}

// warm opens one connection, if none is there that is shared.
func (c *carrier) warm(ctx context.Context, b *forward.Backend, terms forward.Terms) {
	via := b.Via()
	if !via.Shared() {
		if stream, err := b.Open(ctx, via, nil, terms); err == nil {
			b.Keep(via, stream)
		}
		return
	}
	if joined, _, err := c.Join(ctx, b, via, nil, terms); err == nil {
		joined.(*peer).release()
	}
}
