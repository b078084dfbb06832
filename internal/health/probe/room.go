package probe

import "time"

// The bounds of probes in flight.
const (
	// DefaultInFlight is how many probes run at a time if Options does not say.
	DefaultInFlight = 4096
	// maxFresh is how many of them may have begun within the last freshFor: so many
	// want the processor at a time, be it after a pause of the whole process. Older
	// ones wait for their targets, and a few hundred that hang must not keep the
	// others from being probed.
	maxFresh = 256
	freshFor = 25 * time.Millisecond
)

// flight is one probe on its way. Its result counts only while job.running is it.
type flight struct {
	started time.Time
	cancel  func()
	// Owned by room.
	fresh, ended bool
}

// room counts probes in flight.
type room struct {
	most   int // in flight at a time
	flying int
	fresh  int       // those of them that are fresh
	young  []*flight // all fresh ones, in the order of their start, among some that ended
}

// full reports whether no probe may begin.
func (m *room) full() bool { return m.flying >= m.most || m.fresh >= maxFresh }

// enter takes a probe in that begins.
func (m *room) enter(f *flight) {
	f.fresh = true
	m.flying++
	m.fresh++
	m.young = append(m.young, f)
}

// leave lets a probe out that ended.
func (m *room) leave(f *flight) {
	f.ended = true
	m.flying--
	m.stale(f)
}

// stale has f no longer count as fresh.
func (m *room) stale(f *flight) {
	if f.fresh {
		f.fresh = false
		m.fresh--
	}
}

// age lets probes grow old, and returns how long until the next one does; beatEvery
// if none will before.
func (m *room) age(now time.Time) time.Duration {
	for len(m.young) > 0 {
		f := m.young[0]
		if left := freshFor - now.Sub(f.started); left > 0 && !f.ended {
			return left
		}
		m.stale(f)
		m.young[0] = nil
		m.young = m.young[1:]
	}
	return beatEvery
}
