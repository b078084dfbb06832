package lab

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseFault(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Fault // Kind "" = an error
		err  string
	}{
		{"cut fra iad", Fault{Kind: FaultCut, A: "fra", B: "iad"}, ""},
		{"cut fra iad one-way", Fault{Kind: FaultCut, A: "fra", B: "iad", OneWay: true}, ""},
		{"drop fra iad1 20%", Fault{Kind: FaultDrop, A: "fra", B: "iad1", Percent: 20}, ""},
		{"drop fra iad1 7 one-way", Fault{Kind: FaultDrop, A: "fra", B: "iad1", Percent: 7, OneWay: true}, ""},
		{"heal", Fault{Kind: FaultHeal}, ""},
		{"heal fra", Fault{Kind: FaultHeal, A: "fra"}, ""},
		{"heal fra iad", Fault{Kind: FaultHeal, A: "fra", B: "iad"}, ""},
		{"clock fra1 +1h", Fault{Kind: FaultClock, A: "fra1", Offset: time.Hour}, ""},
		{"clock fra1 -1y", Fault{Kind: FaultClock, A: "fra1", Offset: -365 * 24 * time.Hour}, ""},
		{"clock fra1 30d", Fault{Kind: FaultClock, A: "fra1", Offset: 30 * 24 * time.Hour}, ""},
		{"clock fra1 0s", Fault{Kind: FaultClock, A: "fra1"}, ""},
		{"backend web@fra down", Fault{Kind: FaultBackend, A: "web@fra"}, ""},
		{"backend 10.0.0.1:80 up", Fault{Kind: FaultBackend, A: "10.0.0.1:80", Up: true}, ""},
		{"", Fault{}, "say what to do"},
		{"explode fra1", Fault{}, "nothing that the lab does"},
		{"kill", Fault{}, "kill NODE"},
		{"kill fra1 fra2", Fault{}, "want fewer"},
		{"cut fra", Fault{}, "want more"},
		{"cut fra fra", Fault{}, "the same"},
		{"drop fra iad 0%", Fault{}, "1% … 100%"},
		{"drop fra iad 101%", Fault{}, "1% … 100%"},
		{"clock fra1 500ms", Fault{}, "whole seconds"},
		{"clock fra1 200y", Fault{}, "whole seconds"},
		{"clock fra1 -9223372036y", Fault{}, "whole seconds"},
		{"backend fra sideways", Fault{}, "down or up"},
		{"kill fra1 one-way", Fault{}, "want fewer"},
	} {
		t.Run(tt.text, func(t *testing.T) {
			got, err := ParseFault(strings.Fields(tt.text))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want %q", err, tt.err)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
				t.Fatalf("%v\n%s", err, diff)
			}
			if again, err := ParseFault(strings.Fields(got.String())); err != nil || again != got {
				t.Errorf("%q is read as %v, %v", got, again, err)
			}
		})
	}
}

// Every kind has its usage, or its error would say nothing.
func TestFaultUsage(t *testing.T) {
	for _, u := range faultUsage {
		_, err := ParseFault([]string{string(u.kind), "a", "b", "c", "d", "e"})
		if err == nil || !strings.Contains(err.Error(), string(u.kind)+" "+u.args) {
			t.Errorf("%s: %v", u.kind, err)
		}
	}
}

const script = `# a line of its own
at 2s cut fra iad one-way   # and one behind
expect within 5s name WWW.lab.test. from client is iad,sin
at 2s freeze fra1

expect within 1m30s name www.lab.test from 46.4.0.1 at iad1 is iad
expect within 30s same plan
until 20s
expect always answered
expect never empty
expect never stale
`

func TestParseScenario(t *testing.T) {
	s, err := ParseScenario(strings.NewReader(script))
	if err != nil {
		t.Fatal(err)
	}
	want := `at 2s cut fra iad one-way
expect within 5s name www.lab.test is iad,sin
at 2s freeze fra1
expect within 1m30s name www.lab.test from 46.4.0.1 at iad1 is iad
expect within 30s same plan
until 20s
expect always answered
expect never empty
expect never stale
`
	if diff := cmp.Diff(want, s.String()); diff != "" {
		t.Error(diff)
	}
	if err := s.Check(layoutOf(t, "three.yaml")); err != nil {
		t.Error(err)
	}
	if got := []int{s.Steps[0].Line, s.Steps[1].Line, s.Steps[2].Line}; !slices.Equal(got, []int{2, 3, 4}) {
		t.Errorf("lines %v", got)
	}
}

func TestParseScenarioErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"at 5s heal\nat 2s heal", "line 2: at 2s comes after at 5s"},
		{"at 5s", "line 1: want: at TIME FAULT"},
		{"at soon heal", `line 1: "soon"`},
		{"at -1s heal", `line 1: "-1s"`},
		{"at 25h heal", `line 1: "25h"`},
		{"\n\nwait 5s", `line 3: "wait"`},
		{"expect nothing", "line 1: want: expect within"},
		{"expect within 5s name a.test", "line 1: name and is are needed"},
		{"expect within 5s name a.test is", `line 1: "is" stands alone`},
		{"expect within 5s name a.test is fra, at x", `line 1: "fra," has an empty site`},
		{"expect within 5s name a.test is fra is iad", "line 1: is is given twice"},
		{"expect within 5s name a..test is fra", "line 1: name"},
		{"expect within 5s name a.test from nowhere is fra", `line 1: client address "nowhere"`},
		{"expect within 5s colour a.test is fra", `line 1: "colour"`},
		{"until", "line 1: want: until TIME"},
		{"# " + strings.Repeat("x", maxScenarioLine), "line 1: longer than"},
		{"expect within 5s name a.test from nowhere is fra", "want an IP address; want: expect within"}, // a line each
		{"at 1s heal\nboom\nboom", "line 2: \"boom\": a line begins with at, expect or until\nline 3:"},
	} {
		_, err := ParseScenario(strings.NewReader(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %q", tt.text, err, tt.want)
		}
	}
}

func TestScenarioCheck(t *testing.T) {
	l := layoutOf(t, "three.yaml")
	for _, tt := range []struct{ text, want string }{
		{"at 1s cut fra all", ""},
		{"at 1s cut client fra", ""},
		{"at 1s backend web@fra down", ""},
		{"at 1s backend 10.91.1.11:8080 down", ""},
		{"at 1s kill fra", `no node "fra"`},
		{"at 1s cut fra mars", `no "mars"`},
		{"at 1s backend web@mars down", `no backend "web@mars"`},
		{"at 1s heal\nexpect within 1s name www.lab.test is mars", `line 2: the lab has no site "mars"`},
		{"expect within 1s name mail.lab.test is fra", "no steered name"},
		{"expect within 1s name www.lab.test at fra9 is fra", `no node "fra9"`},
	} {
		s, err := ParseScenario(strings.NewReader(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		if err = s.Check(l); tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%q: got %v, want %q", tt.text, err, tt.want)
		}
	}
}

// FuzzScenario: what is read can be written and read again, and time never goes back.
func FuzzScenario(f *testing.F) {
	f.Add(script)
	f.Add("at 1s drop a b 5% one-way\nat 1s clock n -3y\nat 2s backend x@y up\nheal")
	f.Add("expect within 1s name \\000.test is a")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseScenario(strings.NewReader(text))
		if err != nil {
			if s != nil || err.Error() == "" {
				t.Fatalf("a scenario with an error: %v", err)
			}
			return
		}
		now := time.Duration(0)
		for _, step := range s.Steps {
			if step.At < now || step.Line < 1 || (step.Fault == nil) == (step.Expect == nil) {
				t.Fatalf("bad step %+v", step)
			}
			now = step.At
		}
		again, err := ParseScenario(strings.NewReader(s.String()))
		if err != nil {
			t.Fatalf("%q is written as %q: %v", text, s, err)
		}
		if again.String() != s.String() || len(again.Steps) != len(s.Steps) {
			t.Fatalf("%q became %q", s, again)
		}
	})
}

func TestRandomSchedule(t *testing.T) {
	for _, file := range []string{"three.yaml", "nine.yaml"} {
		l := layoutOf(t, file)
		rapid.Check(t, func(rt *rapid.T) {
			seed := rapid.Uint64().Draw(rt, "seed")
			s := RandomSchedule(seed, l)
			if again := RandomSchedule(seed, l); again.String() != s.String() {
				rt.Fatalf("seed %d gives\n%s\nand then\n%s", seed, s, again)
			}
			replay, err := ParseScenario(strings.NewReader(s.String()))
			if err != nil || replay.String() != s.String() {
				rt.Fatalf("seed %d does not replay: %v\n%s\n%s", seed, err, s, replay)
			}
			if err := s.Check(l); err != nil {
				rt.Fatal(err)
			}
			checkSchedule(rt, s, l)
		})
	}
}

// checkSchedule holds a schedule against what RandomSchedule promises.
func checkSchedule(t *rapid.T, s *Scenario, l *Layout) {
	dead, backends := map[string]bool{}, 0
	for i, step := range s.Steps {
		if step.Fault == nil {
			continue
		}
		f := step.Fault
		last := i == len(s.Steps)-2
		if (*f == Fault{Kind: FaultHeal}) != last {
			t.Fatalf("%s as step %d of %d", f, i, len(s.Steps))
		}
		switch f.Kind {
		case FaultKill, FaultFreeze, FaultWipe:
			dead[f.A] = true
		case FaultBackend:
			backends++
		case FaultCut, FaultDrop:
			if f.A == clientName || f.B == clientName {
				t.Fatalf("%s cuts the client off", f)
			}
		}
	}
	if len(dead) > mostDead(l) || backends > 1 {
		t.Fatalf("%d nodes dead, the backends of %d sites down:\n%s", len(dead), backends, s)
	}
}

// Over many seeds every kind of fault occurs, or chaos would prove less than it says.
func TestRandomScheduleReach(t *testing.T) {
	l := layoutOf(t, "nine.yaml")
	seen := map[FaultKind]int{}
	oneWay := 0
	for seed := range uint64(200) {
		for _, step := range RandomSchedule(seed, l).Steps {
			if step.Fault != nil {
				seen[step.Fault.Kind]++
				if step.Fault.OneWay {
					oneWay++
				}
			}
		}
	}
	for _, kind := range []FaultKind{
		FaultKill, FaultFreeze, FaultCut, FaultDrop, FaultFillDisk, FaultClock, FaultWipe, FaultBackend, FaultHeal,
	} {
		if seen[kind] < 20 {
			t.Errorf("%s occurs %d times in 200 schedules", kind, seen[kind])
		}
	}
	if oneWay < 20 {
		t.Errorf("%d one-way cuts in 200 schedules", oneWay)
	}
}
