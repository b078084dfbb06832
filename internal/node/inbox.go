package node

import (
	"sync"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// inbox holds the newest report of each observer until the decider takes
// them. It is bounded by what the cluster tier lets in (one per observer).
type inbox struct {
	wake chan struct{} // capacity 1

	mu      sync.Mutex // guards waiting
	waiting map[string][]arrival
}

// maxArrivals of one observer wait: two reports with the same epoch and
// sequence number that differ are a conflict, which the ledger must see.
const maxArrivals = 2

// An arrival is a report and what is known of its age.
type arrival struct {
	report *health.Report
	age    time.Duration // when it arrived
	at     time.Time
}

func newInbox() *inbox {
	return &inbox{wake: make(chan struct{}, 1), waiting: map[string][]arrival{}}
}

// deliver never blocks; a newer report of the same observer replaces an older one.
func (b *inbox) deliver(r *health.Report, age time.Duration) {
	b.mu.Lock()
	have, a := b.waiting[r.Observer], arrival{r, age, time.Now()}
	switch {
	case len(have) == 0 || r.Newer(have[0].report):
		b.waiting[r.Observer] = []arrival{a}
	case !have[0].report.Newer(r) && len(have) < maxArrivals:
		b.waiting[r.Observer] = append(have, a)
	}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take empties the inbox.
func (b *inbox) take() map[string][]arrival {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.waiting
	b.waiting = make(map[string][]arrival, len(out))
	return out
}
