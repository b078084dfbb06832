package forward

import "time"

// depart notes whether the newest plan has a place for a backend, and since when it has none. drained: that is an order, not a
// finding. registry.mu is held.
func (b *Backend) depart(gone, drained bool, now int64) {
	since := b.gone.Load()
	switch {
	case !gone:
		b.gone.Store(0)
		return
	case since == 0:
		since = now
	case since < 0:
		since = -since
	}
	if drained {
		since = -since
	}
	b.gone.Store(since)
}

// Gone reports whether it is down, drained or no longer configured: who is connected to it may have to leave. One that is up and asks
// for no new work is not gone, though it is not InUse.
func (b *Backend) Gone() bool { return b.gone.Load() != 0 }

// GoneFor is for how long it has been gone, as far as plans have told, 0 = it is not; and whether by an order that lets it finish
// what it has. Both are of one moment: one that comes back from a drain never looks as if it were down.
func (b *Backend) GoneFor() (since time.Duration, drained bool) {
	at := b.gone.Load()
	switch {
	case at == 0:
		return 0, false
	case at < 0:
		at, drained = -at, true
	}
	return max(time.Duration(b.registry.now()-at), 1), drained
}
