package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// A lane is one direction between two named places that drops packets.
type lane struct {
	from, to string // as the operator named them
	percent  int    // of the packets, 1 … 100
}

// A filter is what the core does not forward. Safe for concurrent use.
type filter struct {
	core   *namespace
	layout *Layout
	nft    string // path of the program

	mu    sync.Mutex
	lanes []lane
}

func newFilter(core *namespace, l *Layout) (*filter, error) {
	nft, err := findTool("nft")
	if err != nil {
		return nil, err
	}
	return &filter{core: core, layout: l, nft: nft}, nil
}

// findTool finds a program of the system administrator, whose folders are not
// on everybody's PATH.
func findTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("the lab needs the program %s (Debian: apt-get install nftables)", name)
}

// drop loses percent of what goes from one place to another, in both
// directions unless oneWay. It replaces what was set for the same lane.
func (f *filter) drop(from, to string, percent int, oneWay bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := slices.Clone(f.lanes)
	set := func(from, to string) {
		next = slices.DeleteFunc(next, func(l lane) bool { return l.from == from && l.to == to })
		next = append(next, lane{from, to, percent})
	}
	set(from, to)
	if !oneWay {
		set(to, from)
	}
	return f.replace(next)
}

// heal takes back every lane that touches a, or with b too only those between
// the two; "" and "" all. It reports how many.
func (f *filter) heal(a, b string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(f.lanes), func(l lane) bool {
		touches := func(name string) bool { return name == "" || l.from == name || l.to == name }
		return touches(a) && touches(b)
	})
	n := len(f.lanes) - len(next)
	return n, f.replace(next)
}

// replace puts lanes in force, all at once. The caller holds the lock.
func (f *filter) replace(lanes []lane) error {
	text, err := f.rules(lanes)
	if err != nil {
		return err
	}
	err = runNft(f.nft, f.core, text)
	if err == nil {
		f.lanes = lanes
	}
	return err
}

// runNft has nft read a text in a namespace.
func runNft(nft string, in *namespace, text string) error {
	return in.do(func() error {
		cmd := exec.Command(nft, "-f", "-")
		var complaint bytes.Buffer
		cmd.Stdin, cmd.Stderr = strings.NewReader(text), &complaint
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(complaint.String()))
		}
		return nil
	})
}

// rules writes the whole table, which replaces the one before in one step.
func (f *filter) rules(lanes []lane) (string, error) {
	var b strings.Builder
	b.WriteString("table inet lab {}\ndelete table inet lab\ntable inet lab {\n\tchain forward {\n\t\ttype filter hook forward priority 0; policy accept;\n")
	for _, l := range lanes {
		from, err := f.links(l.from)
		if err != nil {
			return "", err
		}
		to, err := f.links(l.to)
		if err != nil {
			return "", err
		}
		loss := ""
		if l.percent < 100 {
			loss = fmt.Sprintf("numgen random mod 100 < %d ", l.percent)
		}
		if l.to == allName || l.from == allName {
			// "all" means all others: a site goes on talking within itself.
			from, to = without(from, to, l.from == allName)
		}
		if len(from) == 0 || len(to) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\t\tiifname { %s } oifname { %s } %sdrop\n", strings.Join(from, ", "), strings.Join(to, ", "), loss)
	}
	b.WriteString("\t}\n}\n")
	return b.String(), nil
}

// without takes from the side that said "all" what the other side names.
func without(from, to []string, fromAll bool) ([]string, []string) {
	if fromAll {
		from, to = to, from
	}
	to = slices.DeleteFunc(to, func(l string) bool { return slices.Contains(from, l) })
	if fromAll {
		return to, from
	}
	return from, to
}

// links are the quoted interfaces of the core that lead to a place.
func (f *filter) links(name string) ([]string, error) {
	members, err := f.layout.Find(name)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(members))
	for i, m := range members {
		out[i] = `"` + f.layout.Members[m].Link + `"`
	}
	return out, nil
}

// passes reports whether anything gets from one member to another.
func (f *filter) passes(from, to int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !slices.ContainsFunc(f.lanes, func(l lane) bool {
		return l.percent == 100 && f.layout.covers(l, from, to)
	})
}

// covers reports whether a lane is on the way from one member to another.
func (l *Layout) covers(way lane, from, to int) bool {
	a, errA := l.Find(way.from)
	b, errB := l.Find(way.to)
	if errors.Join(errA, errB) != nil {
		return false
	}
	if way.to == allName && slices.Contains(a, to) || way.from == allName && slices.Contains(b, from) {
		return false
	}
	return slices.Contains(a, from) && slices.Contains(b, to)
}

// list returns the lanes in force.
func (f *filter) list() []lane {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.lanes)
}

// String writes "fra → iad" or "fra → iad loses 20 %".
func (l lane) String() string {
	text := l.from + " → " + l.to
	if l.percent < 100 {
		text += fmt.Sprintf(" loses %d %%", l.percent)
	}
	return text
}
