package forward

import (
	"cmp"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/internal/descriptors"
)

// An Intake bounds what all listeners of a node take. It may be changed at any time, and used
// by any number of goroutines.
type Intake struct {
	// Immutable.
	start       time.Time
	descriptors descriptors.Bound // of those that Room lets stay

	most atomic.Int64
	rate atomic.Pointer[Meter]

	short    atomic.Uint64 // descriptors that Room has refused
	sessions atomic.Pointer[Meter]
}

// Set says how many connections there may be at a time, of each engine (0 means DefaultMaxConns), and how
// many new ones a second in all, with a burst of one second (0 = any number). What was used of a rate that stays is not forgotten.
func (i *Intake) Set(connections, rate int) {
	i.most.Store(int64(cmp.Or(connections, DefaultMaxConns)))
	if have := i.rate.Load(); have.Rate() != rate {
		i.rate.Store(NewMeter(rate))
	}
}

// SetSessions says how many new UDP sessions a second there may be in all, with a burst of one second (0 = any number).
func (i *Intake) SetSessions(rate int) {
	if have := i.sessions.Load(); have.Rate() != rate {
		i.sessions.Store(NewMeter(rate))
	}
}

// TakeSession reports whether one more UDP session may begin now.
func (i *Intake) TakeSession() bool {
	m := i.sessions.Load()
	return m == nil || m.Take(int64(time.Since(i.start)))
}

// Connections returns how many there may be.
func (i *Intake) Connections() int64 { return i.most.Load() }

// Take reports whether one more connection may be taken now.
func (i *Intake) Take() bool {
	m := i.rate.Load()
	return m == nil || m.Take(int64(time.Since(i.start)))
}

// Intake returns what bounds both engines of this node.
func (r *Registry) Intake() *Intake { return &r.intake }

// A Meter lets through so many events a second, and a second's worth at once. It
// is the generic cell rate algorithm on one word, for any number of goroutines.
type Meter struct {
	rate     int
	interval int64
	due      atomic.Int64 // the time up to which the allowance is used
}

// NewMeter returns a Meter for a rate; nil, which lets everything through, if that is 0.
func NewMeter(rate int) *Meter {
	if rate <= 0 {
		return nil
	}
	return &Meter{rate: rate, interval: max(int64(time.Second)/int64(rate), 1)}
}

// Rate returns what NewMeter was given.
func (m *Meter) Rate() int {
	if m == nil {
		return 0
	}
	return m.rate
}

// Take reports whether one more event is allowed at a monotonic time in nanoseconds.
func (m *Meter) Take(now int64) bool {
	for {
		due := m.due.Load()
		next := max(due, now) + m.interval
		if next > now+int64(time.Second) && next > now+m.interval {
			return false
		}
		if m.due.CompareAndSwap(due, next) {
			return true
		}
	}
}
