package forward

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// latencyHalf is the time in which a measured latency counts for half.
	latencyHalf = int64(7 * time.Second)
	// latencyUnknown is taken for a backend that has work but never finished any.
	latencyUnknown = float64(time.Second)
)

// A latency is a moving average that follows a rise at once and a fall slowly: peaks
// must show before work has piled up behind them. Races between writers lose a sample at most.
type latency struct {
	value atomic.Uint64 // float64 bits, nanoseconds; 0 = never measured
	when  atomic.Int64  // registry time
}

// observe adds a sample.
func (l *latency) observe(d time.Duration, now int64) {
	sample := float64(max(d, 1))
	if have := l.value.Load(); have != 0 {
		keep := halves(now - l.when.Load())
		if was := math.Float64frombits(have); sample < was {
			// A sample counts for a sixteenth at least, so that a storm of good ones ends a peak.
			keep = min(keep, 15.0/16)
			sample = was*keep + sample*(1-keep)
		}
	}
	l.value.Store(math.Float64bits(sample))
	l.when.Store(now)
}

// at returns the average in nanoseconds, which fades while nothing is measured, so
// that nobody is avoided for ever. busy says that there is work in hand.
func (l *latency) at(now int64, busy bool) float64 {
	have := l.value.Load()
	switch {
	case have != 0:
		return math.Float64frombits(have) * halves(now-l.when.Load())
	case busy:
		return latencyUnknown
	default:
		return 1
	}
}

// halves is 2^(−elapsed/latencyHalf), straight between the powers.
func halves(elapsed int64) float64 {
	if elapsed <= 0 {
		return 1
	}
	whole := elapsed / latencyHalf
	if whole > 50 {
		return 0
	}
	part := float64(elapsed%latencyHalf) / float64(latencyHalf)
	return (1 - part/2) / float64(uint64(1)<<whole)
}
