package rig

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Figures are what the rounds of one measurement gave.
type Figures struct{ values []float64 }

// Add adds a round's figure.
func (f *Figures) Add(v float64) { f.values = append(f.values, v) }

// Len returns the number of rounds.
func (f *Figures) Len() int { return len(f.values) }

// Last returns the figure that was added last.
func (f *Figures) Last() float64 { return f.values[len(f.values)-1] }

// Median returns the middle figure, the mean of the two in the middle if their
// number is even, 0 without any.
func (f *Figures) Median() float64 {
	v := slices.Sorted(slices.Values(f.values))
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// Spread formats the median with the least and the largest figure, each by format.
func (f *Figures) Spread(format string) string {
	if len(f.values) == 0 {
		return "–"
	}
	return fmt.Sprintf(format+" ("+format+"–"+format+")", f.Median(), slices.Min(f.values), slices.Max(f.values))
}

// A Table is printed as Markdown.
type Table struct {
	Columns []string
	rows    [][]string
}

// Row adds a row; cells that are missing stay empty.
func (t *Table) Row(cells ...string) { t.rows = append(t.rows, cells) }

// String returns the table, a line feed at the end.
func (t *Table) String() string {
	var b strings.Builder
	line := func(cells []string) {
		for i := range t.Columns {
			cell := ""
			if i < len(cells) {
				cell = cells[i]
			}
			b.WriteString("| " + cell + " ")
		}
		b.WriteString("|\n")
	}
	line(t.Columns)
	b.WriteString(strings.Repeat("|---", len(t.Columns)) + "|\n")
	for _, row := range t.rows {
		line(row)
	}
	return b.String()
}

// Machine says when, on what and how a table was made, as the sentence above it.
func Machine() string { return Host() + ": server on one core, load on another, over loopback." }

// Host says when and on what a table was made, without a full stop.
func Host() string {
	model := runtime.GOARCH
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel := "?"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel, _, _ = strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	}
	return fmt.Sprintf("Measured %s on %d cores of %s, Linux %s, %s",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), model, kernel, runtime.Version())
}

// Keep replaces what a Markdown file has between the lines "<!-- NAME -->" and
// "<!-- /NAME -->". Without those lines it is an error, and nothing is written.
func Keep(file, name, text string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	open, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->"
	before, rest, ok := bytes.Cut(data, []byte(open))
	_, after, closed := bytes.Cut(rest, []byte(end))
	if !ok || !closed {
		return fmt.Errorf("%s: no lines %q and %q to put the table between", file, strings.TrimSpace(open), end)
	}
	out := bytes.Join([][]byte{before, []byte(open), []byte(strings.TrimSpace(text) + "\n"), []byte(end), after}, nil)
	return os.WriteFile(file, out, 0o644)
}
