package lab

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Figures are what the prober outside counted.
type Figures struct {
	// Resolved counts the queries of the model resolvers, each of which asks up to
	// three nameservers; Unresolved those that none of them answered.
	Resolved   int `json:"resolved"`
	Unresolved int `json:"unresolved"`
	// Empty counts answers, from any node, without an address or with an error code.
	Empty int `json:"empty"`
	// Stale counts answers that name a site of which all living nodes had known
	// for more than [StaleAfter] that no backend of the service is up there, while
	// they could reach the node that answered.
	Stale int                     `json:"stale"`
	Nodes map[string]*NodeFigures `json:"nodes"`
	// Notes are the first of what went wrong.
	Notes []string `json:"notes,omitempty"`
}

// NodeFigures are one node's. A killed or frozen node does not answer, so that
// unanswered ones are no failure by themselves.
type NodeFigures struct {
	Asked    int           `json:"asked"`
	Answered int           `json:"answered"`
	Slowest  time.Duration `json:"slowest"`
}

// maxNotes bounds Figures.Notes.
const maxNotes = 20

func (f *Figures) note(text string) {
	if len(f.Notes) < maxNotes {
		f.Notes = append(f.Notes, text)
	}
}

// book counts one answer.
func (f *Figures) book(a Answer, name steeredName) {
	n := f.Nodes[a.Node]
	n.Asked++
	if a.RCode == "" {
		return
	}
	n.Answered++
	n.Slowest = max(n.Slowest, a.Latency)
	at := time.Now().Format("15:04:05.000")
	if a.RCode != "Success" || len(a.Addresses) == 0 {
		f.Empty++
		f.note(fmt.Sprintf("%s: %s answered %s with %s and %d addresses", at, a.Node, name.fqdn, a.RCode, len(a.Addresses)))
	}
}

// Answered is the share of the resolvers' queries that were answered, 0 … 1.
func (f *Figures) Answered() float64 {
	if f.Resolved == 0 {
		return 0
	}
	return float64(f.Resolved-f.Unresolved) / float64(f.Resolved)
}

func (f *Figures) clone() Figures {
	out := *f
	out.Notes = slices.Clone(f.Notes)
	out.Nodes = map[string]*NodeFigures{}
	for name, n := range f.Nodes {
		c := *n
		out.Nodes[name] = &c
	}
	return out
}

// add sums up.
func (f *Figures) add(g Figures) {
	f.Resolved += g.Resolved
	f.Unresolved += g.Unresolved
	f.Empty += g.Empty
	f.Stale += g.Stale
	for _, text := range g.Notes {
		f.note(text)
	}
	if f.Nodes == nil {
		f.Nodes = map[string]*NodeFigures{}
	}
	for name, n := range g.Nodes {
		have := f.Nodes[name]
		if have == nil {
			have = &NodeFigures{}
			f.Nodes[name] = have
		}
		have.Asked += n.Asked
		have.Answered += n.Answered
		have.Slowest = max(have.Slowest, n.Slowest)
	}
}

// Text is the figures for people.
func (f *Figures) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d queries answered (%.4f %%), %d empty answers, %d naming a site that was known to be down\n",
		f.Resolved-f.Unresolved, f.Resolved, 100*f.Answered(), f.Empty, f.Stale)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tASKED\tANSWERED\tSLOWEST")
	for _, name := range slices.Sorted(maps.Keys(f.Nodes)) {
		n := f.Nodes[name]
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\n", name, n.Asked, n.Answered, n.Slowest.Round(10*time.Microsecond))
	}
	w.Flush()
	for _, text := range f.Notes {
		b.WriteString("! " + text + "\n")
	}
	return b.String()
}
