package forward

import "time"

// A Cold is a backend that has fewer connections than are to be there before they are needed.
type Cold struct {
	Backend *Backend
	// Missing is how many more there should be; 1 for one whose connections are shared.
	Missing int
}

// Cold lists the backends in use that have too few connections for ServicePool.Warm. Those that have just failed are left alone.
func (r *Registry) Cold() []Cold {
	var out []Cold
	for _, b := range r.list() {
		warm := int(b.warm.Load())
		via := b.via.Load()
		if warm == 0 || via.SendProxy > 0 || !b.InUse() || b.penalised() {
			continue
		}
		missing := warm - b.idle.len() - int(b.inFlight.Load())
		if via.Shared() {
			missing = 1 // the Carrier knows
		}
		if missing > 0 {
			out = append(out, Cold{b, missing})
		}
	}
	return out
}

// Keep puts a connection that was opened ahead of need with the idle ones.
func (b *Backend) Keep(via *Via, s *Stream) {
	if !b.InUse() || b.via.Load() != via {
		_ = s.Close()
		return
	}
	b.idle.put(idleConn{stream: s, since: time.Now(), via: via}, uint32(b.connects.Load()))
}

// sweepIdle closes what has been idle for too long, but for those that are kept warm, of which it closes those that
// have died.
func (b *Backend) sweepIdle(before time.Time) {
	via, warm := b.via.Load(), int(b.warm.Load())
	if warm > 0 {
		b.idle.prune(func(s *Stream) bool { return !s.Quiet() })
		if !b.InUse() { // what was looked at meanwhile was put back
			b.idle.closeAll()
		}
	}
	left := b.idle.len()
	b.idle.closeIf(func(c idleConn) bool {
		switch {
		case c.via != via, c.client != nil && c.client.gone.Load():
		case c.since.Before(before) && left > warm:
		default:
			return false
		}
		left--
		return true
	})
}
