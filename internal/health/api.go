package health

import "time"

// SKETCH of the package's API: replaced by the real files (fleet.go, ledger.go, judge.go, codec.go).

// Fleet says which site each observer belongs to. Reports of others are refused.
type Fleet struct {
	// Sites maps observer (node) names to site names.
	Sites map[string]string
}

// Outcome is what became of a merged report.
type Outcome uint8

// Ledger holds the newest report of each observer. Not safe for concurrent use: the decider owns it.
type Ledger struct{}

// NewLedger ...
func NewLedger(fleet Fleet, layout *Layout) *Ledger { return &Ledger{} }

// Merge takes r, which was age old when it arrived at now.
func (l *Ledger) Merge(r *Report, age time.Duration, now time.Time) Outcome { return 0 }

// Rebase returns a ledger for a new fleet and layout (reload); what is known of targets in both is kept.
func (l *Ledger) Rebase(fleet Fleet, layout *Layout) *Ledger { return &Ledger{} }

// Judge makes the view at now from the reports and the previous view (whose layout may differ after a reload).
func (l *Ledger) Judge(prev *View, now time.Time) *View { return nil }

// AppendBinary, ParseReport: the wire form.
func (r *Report) AppendBinary(b []byte) ([]byte, error) { return b, nil }

// ParseReport ...
func ParseReport(b []byte) (*Report, error) { return nil, nil }

// Newer reports whether r replaces o in the single-writer register (larger (epoch, seq)).
func (r *Report) Newer(o *Report) bool { return false }

// Get and Set read and write the two bits of target i.
func (r *Report) Get(i int) Status { return 0 }

// Set ...
func (r *Report) Set(i int, s Status) {}
