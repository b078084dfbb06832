package cluster

import (
	"bytes"
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

const (
	// maxObservers is how many observers' reports a node holds.
	maxObservers = 1024
	// forgetAfter is the age at which a report is dropped, and not taken in any
	// more: an hour after a node was removed nobody speaks of it.
	forgetAfter = time.Hour
)

// verdict is what became of a report that was offered to the table.
type verdict uint8

const (
	tookNewer    verdict = iota + 1 // it replaces what was held
	tookConflict                    // same epoch and seq, other content
	refusedOld                      // the same or a newer one is held
	refusedStale                    // older than forgetAfter
	refusedFull                     // maxObservers are held, all of them alive
)

// held is the newest report of one observer.
type held struct {
	report *health.Report
	raw    []byte    // report encoded; never changed
	born   time.Time // when it was made, on this node's monotonic clock
	// conflict says that another report with the same epoch and seq was seen.
	conflict bool
	// changed says that it says something else than the one before.
	changed bool
	// passedOn says that it was queued to be passed on by gossip.
	passedOn bool
}

// ageAt returns how old the report is at now, never negative.
func (h *held) ageAt(now time.Time) time.Duration { return max(now.Sub(h.born), 0) }

// table holds the newest report of each other observer: one register each.
type table struct {
	mu   sync.Mutex // guards byName and what it points to
	held map[string]*held
}

func newTable() *table { return &table{held: make(map[string]*held)} }

// offer takes r, encoded as raw, which was made at born. It keeps r and a copy
// of raw. A report does not get younger by being heard again.
func (t *table) offer(r *health.Report, raw []byte, born, now time.Time) verdict {
	if now.Sub(born) > forgetAfter {
		return refusedStale
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.held[r.Observer]
	if h == nil {
		if len(t.held) >= maxObservers && t.forget(now) == 0 {
			return refusedFull
		}
		t.held[r.Observer] = &held{report: r, raw: bytes.Clone(raw), born: born}
		return tookNewer
	}
	if r.Newer(h.report) {
		*h = held{report: r, raw: bytes.Clone(raw), born: born, changed: saysOther(h.report, r)}
		return tookNewer
	}
	if h.report.Newer(r) {
		return refusedOld
	}
	if born.Before(h.born) {
		h.born = born
	}
	order := bytes.Compare(raw, h.raw)
	if order == 0 {
		return refusedOld
	}
	if order < 0 { // the same one everywhere, whatever the order of arrival
		h.report, h.raw = r, bytes.Clone(raw)
	} else if h.conflict {
		return refusedOld
	}
	h.conflict = true
	return tookConflict
}

// forget drops what is older than forgetAfter and returns how many it dropped.
// mu must be held.
func (t *table) forget(now time.Time) int {
	n := 0
	for name, h := range t.held {
		if h.ageAt(now) > forgetAfter {
			delete(t.held, name)
			n++
		}
	}
	return n
}

// get returns a copy of what is held of one observer.
func (t *table) get(observer string) (held, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h, ok := t.held[observer]
	if !ok {
		return held{}, false
	}
	return *h, true
}

// all returns copies of what is held and not to be forgotten, the youngest
// first, so that what a size limit cuts off is what matters least.
func (t *table) all(now time.Time) []held {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(now)
	all := make([]held, 0, len(t.held))
	for _, h := range t.held {
		all = append(all, *h)
	}
	slices.SortFunc(all, func(a, b held) int {
		return cmp.Or(b.born.Compare(a.born), cmp.Compare(a.report.Observer, b.report.Observer))
	})
	return all
}

// passOn reports, once for each report, whether r, which came as kind, is to be
// passed on: it is the newest of its observer, and news to us or to whoever
// passed it on to us. So a change that its observer could tell to a single node
// only still reaches all.
func (t *table) passOn(r *health.Report, kind frameKind) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.held[r.Observer]
	if h == nil || h.passedOn || h.report.Newer(r) || r.Newer(h.report) {
		return false
	}
	h.passedOn = kind == kindNews || kind == kindReport && h.changed
	return h.passedOn
}
