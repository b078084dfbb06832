package doctor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/node"
)

// A Level is how bad a finding is.
type Level uint8

// The levels.
const (
	Fine    Level = iota // as it should be
	Note                 // worth knowing
	Problem              // something does not work, or soon will not
)

// String returns "ok", "note" or "problem".
func (l Level) String() string { return [...]string{"ok", "note", "problem"}[l] }

// MarshalText implements encoding.TextMarshaler.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Level) UnmarshalText(text []byte) error {
	for _, k := range []Level{Fine, Note, Problem} {
		if k.String() == string(text) {
			*l = k
			return nil
		}
	}
	return fmt.Errorf("level %q is not known", text)
}

// A Finding is one thing that a check found.
type Finding struct {
	Check   string `json:"check"`
	Subject string `json:"subject"` // what it is about: "peer 10.9.1.2"
	Level   Level  `json:"level"`
	Found   string `json:"found"`
	// Why and Do are never empty for a Problem.
	Why string `json:"why,omitempty"`
	Do  string `json:"do,omitempty"`
}

// A Report is the findings of all checks, those of a check together.
type Report struct {
	Node     string    `json:"node"`
	Site     string    `json:"site"`
	Running  bool      `json:"running"`
	Findings []Finding `json:"findings"`
}

// Worst is the worst level.
func (r Report) Worst() (worst Level) {
	for _, f := range r.Findings {
		worst = max(worst, f.Level)
	}
	return worst
}

// A Case is what is looked at.
type Case struct {
	Setup   *node.Setup   // of the configuration on disk, with Self
	Status  *admin.Status // of the node that runs here by that name; nil = none
	Trouble error         // why the node that seems to run here does not answer; nil = nothing
	Machine Machine
	Only    []string      // names of checks; empty = all
	Open    bool          // speak with routers that there is no session with
	Timeout time.Duration // of each connection; 0 = a default
}

// A check is one part of the examination.
type check struct {
	name string
	run  func(context.Context, *Case) []Finding
}

// checks are all of them, in the order of the report.
var checks = []check{
	{"config", checkConfig},
	{"node", checkNode},
	{"cluster", checkCluster},
	{"bgp", checkBGP},
}

// Names are the names of the checks.
func Names() (out []string) {
	for _, c := range checks {
		out = append(out, c.name)
	}
	return out
}

// Run makes the checks one after the other.
func Run(ctx context.Context, c Case) Report {
	r := Report{Node: c.Setup.Self.Node.Name, Site: c.Setup.Self.Site.Name, Running: c.Status != nil, Findings: []Finding{}}
	for _, k := range checks {
		if len(c.Only) > 0 && !slices.Contains(c.Only, k.name) {
			continue
		}
		for _, f := range k.run(ctx, &c) {
			f.Check = k.name
			r.Findings = append(r.Findings, f)
		}
	}
	return r
}

func fine(subject, format string, args ...any) Finding {
	return Finding{Subject: subject, Level: Fine, Found: fmt.Sprintf(format, args...)}
}

func note(subject, found, why, do string) Finding {
	return Finding{Subject: subject, Level: Note, Found: found, Why: why, Do: do}
}

func problem(subject, found, why, do string) Finding {
	return Finding{Subject: subject, Level: Problem, Found: found, Why: why, Do: do}
}
