package node

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// inbox holds the newest report of each observer until the decider takes
// them. It is bounded by what the cluster tier lets in (one per observer).
type inbox struct {
	wake chan struct{} // capacity 1

	mu      sync.Mutex // guards the rest
	waiting map[string][]arrival
	orders  map[health.Scope]health.Override // the newest of each scope
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
	return &inbox{wake: make(chan struct{}, 1), waiting: map[string][]arrival{}, orders: map[health.Scope]health.Override{}}
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

// deliverOrders never blocks. Of each scope the strongest register waits, as
// many as there may be in all.
func (b *inbox) deliverOrders(all []health.Override) {
	b.mu.Lock()
	for _, v := range all {
		have, known := b.orders[v.Scope]
		if known && v.Compare(have) <= 0 || !known && len(b.orders) >= health.MaxOverrides {
			continue
		}
		b.orders[v.Scope] = v
	}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take empties the inbox.
func (b *inbox) take() (reports map[string][]arrival, orders []health.Override) {
	b.mu.Lock()
	defer b.mu.Unlock()
	reports = b.waiting
	b.waiting = make(map[string][]arrival, len(reports))
	if len(b.orders) > 0 {
		orders = slices.Collect(maps.Values(b.orders))
		b.orders = map[health.Scope]health.Override{}
	}
	return reports, orders
}
