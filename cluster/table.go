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
	// fillerAge is the age above which a report is not worth being told again.
	fillerAge = 5 * time.Second
)

// verdict is what became of a report that was offered to the table.
type verdict uint8

const (
	tookNewer    verdict = iota + 1 // it replaces what was held
	tookConflict                    // same epoch and seq, other content
	tookVersion                     // the same in a newer wire version
	refusedOld                      // the same or a newer one is held
	refusedStale                    // older than forgetAfter
	refusedFull                     // maxObservers are held, all of them alive
)

// held is the newest report of one observer.
type held struct {
	report *health.Report
	raw    []byte    // report encoded, as it came; never changed
	seal   []byte    // the observer's signature of raw; empty for none
	signed bool      // seal was found valid
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

// entry returns h as it is sent to nodes of our version.
func (h *held) entry(now time.Time) entry {
	return entry{age: h.ageAt(now), report: h.raw, seal: h.seal}
}

// firstEntry returns h as it is sent to nodes of the first wire version.
func (h *held) firstEntry(now time.Time) (e entry, ok bool) {
	e = entry{age: h.ageAt(now), report: h.raw}
	if reportWire(h.raw) == wireFirst {
		return e, true
	}
	var err error
	e.report, err = encodeReport(h.report, wireFirst)
	return e, err == nil
}

// entryFor returns h as it is sent to nodes of that version.
func (h *held) entryFor(wire uint8, now time.Time) (e entry, ok bool) {
	if wire < wireNow {
		return h.firstEntry(now)
	}
	return h.entry(now), true
}

// settled reports whether e, which is r, can change nothing: a newer one is
// held or the very same, or the same in a newer version. Whether it is genuine
// is then of no interest.
func (t *table) settled(r *health.Report, raw []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.held[r.Observer]
	if h == nil || r.Newer(h.report) {
		return false
	}
	return h.report.Newer(r) || bytes.Equal(raw, h.raw) ||
		reportWire(raw) < reportWire(h.raw) && saysSame(r, h.report)
}

// offer takes r, encoded as o.raw, which was made at o.born. It keeps r and
// copies of o.raw and o.seal. A report does not get younger by being heard again. One in the
// first version that is newer takes over the digest that the one before had,
// which its version cannot say.
func (t *table) offer(o held, now time.Time) verdict {
	if now.Sub(o.born) > forgetAfter {
		return refusedStale
	}
	r := o.report
	o.raw, o.seal = bytes.Clone(o.raw), bytes.Clone(o.seal)
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.held[r.Observer]
	if h == nil {
		if len(t.held) >= maxObservers && t.forget(now) == 0 {
			return refusedFull
		}
		t.held[r.Observer] = &o
		return tookNewer
	}
	if r.Newer(h.report) {
		if reportWire(o.raw) == wireFirst && r.Epoch == h.report.Epoch {
			r.Overrides = h.report.Overrides
		}
		o.changed = saysOther(h.report, r)
		*h = o
		return tookNewer
	}
	if h.report.Newer(r) {
		return refusedOld
	}
	if o.born.Before(h.born) {
		h.born = o.born
	}
	if reportWire(o.raw) != reportWire(h.raw) && saysSame(r, h.report) {
		if reportWire(o.raw) < reportWire(h.raw) {
			return refusedOld
		}
		h.report, h.raw, h.seal, h.signed = r, o.raw, o.seal, o.signed
		return tookVersion
	}
	order := bytes.Compare(o.raw, h.raw)
	if order == 0 {
		return refusedOld
	}
	if order < 0 { // the same one everywhere, whatever the order of arrival
		h.report, h.raw, h.seal, h.signed = r, o.raw, o.seal, o.signed
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
// passed on, and returns what is held of it: it is the newest of its observer,
// and news to us or to whoever passed it on to us. So a change that its observer
// could tell to a single node only still reaches all.
func (t *table) passOn(r *health.Report, kind frameKind) (held, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.held[r.Observer]
	if h == nil || h.passedOn || h.report.Newer(r) || r.Newer(h.report) {
		return held{}, false
	}
	h.passedOn = kind == kindNews || kind == kindReport && h.changed
	return *h, h.passedOn
}

// fill returns the report of the observer that comes after another by name, and
// after the last the first again, as a frame that is hearsay: nobody passes it on
// because of it. own is this node's. Reports that nobody counts any more are left
// out; ok is false when there is none, or it is larger than room.
func (t *table) fill(own *held, after string, wire uint8, room int, now time.Time) (observer string, frame []byte, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var next, first *held
	consider := func(h *held) {
		if h.ageAt(now) > fillerAge {
			return
		}
		name := h.report.Observer
		if first == nil || name < first.report.Observer {
			first = h
		}
		if name > after && (next == nil || name < next.report.Observer) {
			next = h
		}
	}
	if own != nil {
		consider(own)
	}
	for _, h := range t.held {
		consider(h)
	}
	if next == nil {
		next = first
	}
	if next == nil {
		return "", nil, false
	}
	e, ok := next.entryFor(wire, now)
	if !ok || frameHeaderLen+e.size(wire) > room {
		return "", nil, false
	}
	return next.report.Observer, appendEntryFrame(nil, wire, kindReport, e), true
}
