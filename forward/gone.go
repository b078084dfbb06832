package forward

import "time"

// depart notes whether the newest plan has a place for a backend, and since when it has none. drained: that is an order, not a
// finding. registry.mu is held.
func (b *Backend) depart(gone, drained bool, now int64) {
	b.drained.Store(gone && drained)
	switch {
	case !gone:
		b.goneAt.Store(0)
	case b.goneAt.Load() == 0:
		b.goneAt.Store(now)
	}
}

// Gone reports whether it is down, drained or no longer configured: who is connected to it may have to leave. One that is up and asks
// for no new work is not gone, though it is not InUse.
func (b *Backend) Gone() bool { return b.goneAt.Load() != 0 }

// GoneFor is for how long it has been gone, as far as plans have told; 0 = it is not.
func (b *Backend) GoneFor() time.Duration {
	at := b.goneAt.Load()
	if at == 0 {
		return 0
	}
	return max(time.Duration(b.registry.now()-at), 1)
}

// Drained reports whether it is gone by an order that lets it finish what it has.
func (b *Backend) Drained() bool { return b.drained.Load() }
