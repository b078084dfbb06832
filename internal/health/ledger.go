package health

import (
	"bytes"
	"cmp"
	"slices"
	"time"
)

// FreshFor is how old a report may be and still count. A node sends one every
// second, so that four in a row may be lost before it abstains.
const FreshFor = 5 * time.Second

// MaxLayouts is how many layouts a ledger can read: its own and those before
// the last reloads. It lets nodes that reload one after another keep hearing
// each other.
const MaxLayouts = 4

// maxAge caps the age of a report, so that no number from the wire overflows.
const maxAge = 24 * time.Hour

// Outcome is what became of a merged report.
type Outcome uint8

// The outcomes of Ledger.Merge.
const (
	// OutcomeNew: the report is now the one of its observer and can be read.
	OutcomeNew Outcome = iota + 1
	// OutcomeOld: the same or a newer report was there already.
	OutcomeOld
	// OutcomeConflict: the report has the epoch and seq of the one held but says
	// something else. Its observer abstains until it sends a newer one.
	OutcomeConflict
	// OutcomeUnknownObserver: the observer is not in the fleet; nothing is kept.
	OutcomeUnknownObserver
	// OutcomeOtherLayout: the report is now the one of its observer, but speaks
	// of targets by a layout that is not known here: it counts as a sign of life,
	// and its observer abstains.
	OutcomeOtherLayout
	// OutcomeMalformed: the report contradicts itself (a name too long, states
	// that do not fit its layout); nothing is kept.
	OutcomeMalformed
)

// String returns a short name, fit for a metric's label.
func (o Outcome) String() string {
	switch o {
	case OutcomeNew:
		return "new"
	case OutcomeOld:
		return "old"
	case OutcomeConflict:
		return "conflict"
	case OutcomeUnknownObserver:
		return "unknown_observer"
	case OutcomeOtherLayout:
		return "other_layout"
	case OutcomeMalformed:
		return "malformed"
	default:
		return "none"
	}
}

// Ledger holds the newest report of each observer: one register each, written
// by its observer alone. Merging is associative, commutative and idempotent, so
// reports may arrive twice, in any order and over any path. Its size is bounded
// by the fleet. Not safe for concurrent use: the decider owns it.
type Ledger struct {
	// Immutable.
	fleet   Fleet
	layout  *Layout
	sites   []string       // of the fleet, sorted
	places  []place        // indexed like layout.Targets
	watch   []int32        // the sites that places' ranges name
	readers []reader       // the layouts that can be read, the own one first
	held    []*entry       // one per observer of the fleet, by name
	byName  map[string]int // index into held

	changes   uint64    // how often an observer's statements changed
	contrasts contrasts // made by Judge, kept while nothing changes
	judged    *View     // the last view, for display; nil: none yet
	scratch   scratch
}

// scratch is room that Judge uses again and again; nothing in it outlives a call.
type scratch struct {
	abstains   []Abstention // indexed like held, at the moment that is judged
	benches    []bench
	panels     []panel
	comparable []bool
	siteHeard  []bool
}

// entry is the register of one observer.
type entry struct {
	// Immutable.
	name string
	site int // index into Ledger.sites

	// A report up to here is a replay; set by SetFloor.
	floorEpoch, floorSeq uint64

	// The rest is replaced by Merge.
	report   *Report   // nil: never heard
	born     time.Time // when report was made, on this node's clock
	conflict bool      // another report with the same epoch and seq exists
	states   []byte    // report's states in the ledger's layout; nil: not readable
}

// reader translates states of one layout into the ledger's.
type reader struct {
	from *Layout
	// moves maps positions in from to positions in the ledger's layout, -1 for
	// targets that are gone; nil if the layouts are the same.
	moves []int32
}

// NewLedger returns a ledger in which nobody has been heard. A layout of nil
// has no targets.
func NewLedger(fleet Fleet, layout *Layout) *Ledger {
	if layout == nil {
		layout = NewLayout(nil)
	}
	l := &Ledger{
		fleet:   fleet,
		layout:  layout,
		sites:   fleet.siteNames(),
		readers: []reader{{from: layout}},
		byName:  make(map[string]int, len(fleet.Sites)),
	}
	for i, name := range fleet.observerNames() {
		site, _ := slices.BinarySearch(l.sites, fleet.Sites[name])
		l.held = append(l.held, &entry{name: name, site: site})
		l.byName[name] = i
	}
	l.place()
	return l
}

// Layout returns the layout that the views of this ledger have.
func (l *Ledger) Layout() *Layout { return l.layout }

// Merge takes r, which was age old when it arrived at now, and says what became
// of it. The ledger keeps r, which must not be changed afterwards.
//
// A report never gets younger by being heard again: of two ages for the same
// report the one that makes it older is believed, since every path can only
// underestimate. So an echo cannot keep a dead observer's statements alive.
func (l *Ledger) Merge(r *Report, age time.Duration, now time.Time) Outcome {
	if r == nil || r.check() != nil {
		return OutcomeMalformed
	}
	i, known := l.byName[r.Observer]
	if !known {
		return OutcomeUnknownObserver
	}
	states, readable, ok := l.read(r)
	if !ok {
		return OutcomeMalformed
	}
	e, born := l.held[i], now.Add(-min(max(age, 0), maxAge))
	if !e.aboveFloor(r) {
		return OutcomeOld
	}
	if r.Newer(e.report) {
		l.restate(e, states)
		e.report, e.born, e.conflict = r, born, false
		if !readable {
			return OutcomeOtherLayout
		}
		return OutcomeNew
	}
	if e.report.Newer(r) {
		return OutcomeOld
	}
	if born.Before(e.born) {
		e.born = born
	}
	order, same := compareContent(r, e.report)
	if order < 0 { // keep the same one whatever the order of arrival
		l.restate(e, states)
		e.report = r
	}
	if same {
		return OutcomeOld
	}
	e.conflict = true
	return OutcomeConflict
}

// restate replaces what e states.
func (l *Ledger) restate(e *entry, states []byte) {
	if (e.states == nil) != (states == nil) || !bytes.Equal(e.states, states) {
		l.changes++
	}
	e.states = states
}

// compareContent orders reports of one observer, epoch and seq, and reports
// whether they say the same. A report that came over a node of the version before
// lost its Overrides: it says the same as the whole one, which comes first.
func compareContent(a, b *Report) (order int, same bool) {
	order = cmp.Or(
		cmp.Compare(a.Layout, b.Layout),
		cmp.Compare(a.Config, b.Config),
		cmp.Compare(a.Flags, b.Flags),
		bytes.Compare(a.States, b.States),
	)
	if order != 0 {
		return order, false
	}
	// 0 less 1 is the largest number: what was lost comes last.
	return cmp.Compare(a.Overrides-1, b.Overrides-1), a.Overrides == b.Overrides || a.Overrides == 0 || b.Overrides == 0
}

// read returns r's states in the ledger's layout. They are not readable if r
// has a layout that is not known here, and not ok if they do not fit a layout
// that is.
func (l *Ledger) read(r *Report) (states []byte, readable, ok bool) {
	for _, reader := range l.readers {
		if reader.from.Hash != r.Layout {
			continue
		}
		n := len(reader.from.Targets)
		if len(r.States) != statesLen(n) {
			return nil, false, false
		}
		for i := n; i < 4*len(r.States); i++ {
			if statusAt(r.States, i) != StatusNone {
				return nil, false, false
			}
		}
		return reader.translate(r.States, len(l.layout.Targets)), true, true
	}
	return nil, false, true
}

// translate returns states as the ledger's layout, of n targets, has them.
func (r reader) translate(states []byte, n int) []byte {
	if r.moves == nil {
		return states
	}
	out := make([]byte, statesLen(n))
	for from, to := range r.moves {
		if to >= 0 {
			setStatus(out, int(to), statusAt(states, from))
		}
	}
	return out
}

// newReader returns the translation from one layout to another.
func newReader(from, to *Layout) reader {
	moves := make([]int32, len(from.Targets))
	for i, t := range from.Targets {
		moves[i] = -1
		if j, ok := to.Index(t); ok {
			moves[i] = int32(j)
		}
	}
	return reader{from: from, moves: moves}
}

// Rebase returns a ledger for a new fleet and layout (a reload). What is known
// of observers and targets in both is kept, and the previous layouts (up to
// MaxLayouts in all) stay readable, since the other nodes reload at other
// moments. l is not changed.
func (l *Ledger) Rebase(fleet Fleet, layout *Layout) *Ledger {
	next := NewLedger(fleet, layout)
	for _, r := range l.readers {
		if len(next.readers) == MaxLayouts {
			break
		}
		if r.from.Hash != next.layout.Hash {
			next.readers = append(next.readers, newReader(r.from, next.layout))
		}
	}
	next.judged = l.judged
	for _, e := range next.held {
		i, known := l.byName[e.name]
		if !known {
			continue
		}
		old := l.held[i]
		e.floorEpoch, e.floorSeq = old.floorEpoch, old.floorSeq
		if old.report == nil {
			continue
		}
		states, _, ok := next.read(old.report)
		if !ok { // it fitted no layout known before, and does not fit this one
			continue
		}
		e.report, e.born, e.conflict, e.states = old.report, old.born, old.conflict, states
	}
	return next
}

// ageAt returns how old e's report is at now, 0 if there is none.
func (e *entry) ageAt(now time.Time) time.Duration {
	if e.report == nil {
		return 0
	}
	return max(now.Sub(e.born), 0)
}

// freshAt reports whether e's report is young enough to count at now.
func (e *entry) freshAt(now time.Time) bool {
	return e.report != nil && e.ageAt(now) <= FreshFor
}

// abstains returns why e has no vote at now, AbstainNot if it has.
func (e *entry) abstains(now time.Time) Abstention {
	switch {
	case e.report == nil:
		return AbstainNeverHeard
	case !e.freshAt(now):
		return AbstainStale
	case e.conflict:
		return AbstainConflict
	case e.report.Flags&FlagLeaving != 0:
		return AbstainLeaving
	case e.report.Flags != 0: // doubt, or a reserve that we cannot read
		return AbstainDoubt
	case e.states == nil:
		return AbstainOtherLayout
	default:
		return AbstainNot
	}
}
