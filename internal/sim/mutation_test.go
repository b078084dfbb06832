package sim

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A mutation breaks one rule on purpose.
type mutation struct {
	name string
	// file, from the root of the repository, has each text replaced by the next.
	file  string
	edits []string
	want  string // what TestSeeds must then complain of
}

var mutations = []mutation{
	{
		"silence counts as a vote against", "internal/health/tally.go",
		[]string{"\tif b.fresh == 0 {\n\t\treturn\n", "\tif b.fresh == 0 {\n\t\tq.voting++\n\t\tq.down++\n\t\treturn\n"},
		"invariant 1",
	},
	{
		"nothing comes back when nothing is left", "internal/steer/keep.go",
		[]string{"\tcase !sp.answers(ipv6):\n\t\tj.failOpen(s, sp, ipv6)\n", "\tcase !sp.answers(ipv6):\n", "\tj.minimum(s, sp, ipv6)\n}", "}"},
		"invariant 2",
	},
	{
		"one site is enough to down a VIP", "internal/health/tally.go",
		[]string{"case overShare(q.up, q.voting):", "case q.down == 0 && overShare(q.up, q.voting):", "case 2*q.down > q.voting && ", "case q.down > 0 && "},
		"invariant 3",
	},
	{
		"a site that hears too few others withdraws", "internal/steer/announce.go",
		[]string{"\tif order == health.OrderUp {\n\t\treturn ReasonOrderedUp, \"\"\n\t}\n", "\tif j.minority() {\n\t\treturn ReasonUnreachedHere, \"\"\n\t}\n"},
		"because links are cut",
	},
	{
		"the stronger order wins, not the later", "internal/health/override.go",
		[]string{"\tif c := cmp.Compare(v.Counter, o.Counter); c != 0 {\n\t\treturn c\n\t}\n", ""},
		"invariant 4",
	},
	{
		"acknowledged before it is on disk", "internal/decide/orders.go",
		[]string{"if c.durable == digest {", "if true {", "case r != nil && r.Overrides == digest:", "case r != nil:"},
		"invariant 4",
	},
	{
		"what did not change is not decided again, nor what did", "internal/steer/decide.go",
		[]string{"\ts := &j.t.Services[i]\n\tfor position := range s.Sites {\n\t\tss := &s.Sites[position]\n", "\treturn true\n\ts := &j.t.Services[i]\n\tfor position := range s.Sites {\n\t\tss := &s.Sites[position]\n"},
		"invariant 5",
	},
	{
		"reports grow with what fails", "internal/health/codec.go",
		[]string{"return append(b, r.States...), nil", "for _, s := range r.States {\n\t\tif b = append(b, s); s&(s>>1)&0x55 != 0 {\n\t\t\tb = append(b, 0)\n\t\t}\n\t}\n\treturn b, nil"},
		"invariant 6",
	},
	{
		"any number of sites may go at once", "internal/steer/budget.go",
		[]string{"return max(1, n*budgetPercent/100)", "return n"},
		"invariant 8",
	},
	{
		"a service has no minimum of sites", "internal/steer/keep.go",
		[]string{"\tj.minimum(s, sp, ipv6)\n}", "}"},
		"is answered at 1 sites",
	},
	{
		"orders of others wait for something else to be decided", "internal/decide/orders.go",
		[]string{"\tif changed {\n\t\tc.setOrders()\n\t}\n\treturn changed, refused", "\treturn changed, refused"},
		"invariant 8: a drain of",
	},
	{
		"a site withdraws a prefix below its minimum", "internal/steer/together.go",
		[]string{
			"\tcase j.others(spec, time.Time{}) < spec.config.MinSites:\n\t\twhy", "\tcase j.others(spec, time.Time{}) < 0:\n\t\twhy",
			"\tif j.others(spec, m.clear.Add(wordAfter)) < spec.config.MinSites {", "\tif j.others(spec, m.clear.Add(wordAfter)) < 0 {",
		},
		"invariant 2: withdraws",
	},
}

// touchedMutations break what decides a service anew: what a verdict says but for its status.
var touchedMutations = []mutation{
	{
		"when a target went down is forgotten", "internal/steer/decide.go",
		[]string{"now.Restored == then.Restored && now.Since.Equal(then.Since))", "now.Restored == then.Restored)"},
		"from nothing",
	},
	{
		"what was restored from disk stays so", "internal/steer/decide.go",
		[]string{"now.Restored == then.Restored && now.Since.Equal(then.Since))", "now.Since.Equal(then.Since))"},
		"from nothing",
	},
}

// TestTouchedCanFail: a plan that is kept although a verdict's past changed is found by the test of that.
func TestTouchedCanFail(t *testing.T) {
	for _, m := range touchedMutations {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			m.mustFail(t, "./internal/steer", "-run", "^TestTouched")
		})
	}
}

// TestEveryInvariantCanFail breaks each rule and sees the seeds notice: an
// invariant that no mutation turns red is not checked.
func TestEveryInvariantCanFail(t *testing.T) {
	for _, m := range mutations {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			m.mustFail(t, "./internal/sim", "-run", "^TestSeeds$", "-seeds", "300", "-enough", "1")
		})
	}
}

// mustFail runs tests of a package with the mutation, and wants them to complain of what it breaks.
func (m mutation) mustFail(t *testing.T, pkg string, flags ...string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", append([]string{"test", "-overlay", m.overlay(t, root), pkg}, flags...)...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), m.want) {
		t.Errorf("want a complaint of %s, got %v:\n%.3000s", m.want, err, out)
	}
}

// overlay writes the mutated file, and the map that has the compiler read it.
func (m mutation) overlay(t *testing.T, root string) string {
	t.Helper()
	original := filepath.Join(root, filepath.FromSlash(m.file))
	source, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	text := string(source)
	for i := 0; i < len(m.edits); i += 2 {
		if strings.Count(text, m.edits[i]) != 1 {
			t.Fatalf("%s: %q is there %d times, want once: the rule was rewritten, so rewrite its mutation", m.file, m.edits[i], strings.Count(text, m.edits[i]))
		}
		text = strings.Replace(text, m.edits[i], m.edits[i+1], 1)
	}
	dir := t.TempDir()
	mutated := filepath.Join(dir, "mutated.go")
	if err := os.WriteFile(mutated, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {original: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
