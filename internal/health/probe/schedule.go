package probe

import (
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// The schedule's constants.
const (
	// startSpread is the longest time over which first probes are spread.
	startSpread = 500 * time.Millisecond
	// recheckJitter is the share by which Recheck varies.
	recheckJitter = 0.1
	// lateAfter is how late a probe may start before it is counted as late.
	lateAfter = 100 * time.Millisecond
	// weightEvery is how often new weights of one target are signalled at most.
	weightEvery = time.Second
)

// job is one check with its place in the schedule. Runner.mu guards all of it.
type job struct {
	check  *Check // never changed, only replaced
	track  track
	random *rand.Rand
	due    time.Time
	// heapAt is its index in the queue, -1 while it is not waiting.
	heapAt int
	// running is its probe in flight, nil if there is none.
	running *flight
	// probed is when its newest probe began; asked: the next one shall not wait
	// longer than Recheck.
	probed time.Time
	asked  bool
	// outcomes hears of its traffic; trial: traffic has yet to confirm that it is up.
	outcomes *Outcomes
	trial    bool
	// told is when a change of its weight was, or will be, signalled.
	told time.Time
}

// newJob returns a job whose random numbers depend on the seed and the target
// alone, so that one check more or less does not shift the others.
func newJob(c Check, initial health.Status, seed uint64) *job {
	h := fnv.New64a()
	h.Write([]byte(c.Target.String()))
	return &job{
		check:  &c,
		track:  newTrack(c.Target, initial),
		random: rand.New(rand.NewPCG(seed, h.Sum64())),
		heapAt: -1,
	}
}

// first returns how long to wait with the first probe.
func (j *job) first() time.Duration {
	return time.Duration(j.random.Float64() * float64(min(j.check.Every, startSpread)))
}

// active reports whether j is probed at all.
func (j *job) active() bool { return j.check.Kind != Passive }

// interval returns the time from the start of one probe to the start of the next.
func (j *job) interval(soon bool) time.Duration {
	d, share := j.check.Every, j.check.Jitter
	if soon {
		d, share = j.check.Recheck, recheckJitter
	}
	return time.Duration(float64(d) * (1 + share*(2*j.random.Float64()-1)))
}

// queue is a heap of waiting jobs, the next one due first. It holds each job at
// most once, so it cannot grow however late the work is.
type queue []*job

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].heapAt, q[j].heapAt = i, j
}

// Push appends x, a *job.
func (q *queue) Push(x any) {
	j := x.(*job)
	j.heapAt = len(*q)
	*q = append(*q, j)
}

// Pop removes the last job.
func (q *queue) Pop() any {
	last := len(*q) - 1
	j := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	j.heapAt = -1
	return j
}
