package lab

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/steer"
)

// still is a lab in which nothing runs.
func still(t testing.TB, file string) *Lab {
	t.Helper()
	l := &Lab{layout: layoutOf(t, file), index: map[string]int{}}
	for i, name := range l.layout.Nodes() {
		l.nodes = append(l.nodes, &process{name: name})
		l.index[name] = i
	}
	l.filter = &filter{layout: l.layout}
	return l
}

// says is a node's status with its own view of its site's web.
func says(site string, eligible, open bool) *admin.Status {
	why := steer.ReasonNone
	if !eligible {
		why = steer.ReasonBackendsDown
	}
	return &admin.Status{Site: site, Services: []admin.ServiceStatus{
		{Name: "web", FailOpen: open, Sites: []admin.SiteStatus{{Site: site, Eligible: eligible, Why: why}}},
	}}
}

func TestStale(t *testing.T) {
	t0 := time.Unix(1000, 0)
	all := [][]bool{{true, true, true}, {true, true, true}, {true, true, true}}
	cut := [][]bool{{true, false, false}, {false, true, true}, {false, true, true}}
	type look struct {
		after time.Duration
		fra   *admin.Status
		reach [][]bool
	}
	up, down := says("fra", true, false), says("fra", false, false)
	ordered := says("fra", false, false)
	ordered.Services[0].Sites[0].Why = steer.ReasonDrained
	unreached := says("fra", false, false)
	unreached.Services[0].Sites[0].Why = steer.ReasonVIPDown
	for _, tt := range []struct {
		name  string
		looks []look
		asked time.Duration
		want  string
	}{
		{"up", []look{{0, up, all}, {5 * time.Second, up, all}}, 5 * time.Second, ""},
		{"down for long", []look{{0, down, all}, {5 * time.Second, down, all}}, 5 * time.Second, "fra"},
		{"down just now", []look{{0, up, all}, {4 * time.Second, down, all}}, 5 * time.Second, ""},
		{"down, up, down", []look{{0, down, all}, {3 * time.Second, up, all}, {4 * time.Second, down, all}}, 5 * time.Second, ""},
		{"cut off, so it cannot tell", []look{{0, down, cut}, {5 * time.Second, down, cut}}, 5 * time.Second, ""},
		{"just connected again", []look{{0, down, cut}, {4 * time.Second, down, all}}, 5 * time.Second, ""},
		{"connected again for long", []look{{0, down, cut}, {1 * time.Second, down, all}}, 5 * time.Second, "fra"},
		{"fail-open", []look{{0, says("fra", false, true), all}}, 5 * time.Second, ""},
		{"ordered", []look{{0, ordered, all}}, 5 * time.Second, ""},
		{"the others do not reach it", []look{{0, unreached, all}}, 5 * time.Second, ""},
		{"dead", []look{{0, down, all}, {time.Second, nil, all}}, 5 * time.Second, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWatch(still(t, "three.yaml"))
			for _, k := range tt.looks {
				w.see([]*admin.Status{k.fra, says("iad", true, false), says("sin", true, false)}, k.reach, t0.Add(k.after))
			}
			w.answered(1, "web", []string{"iad", "fra"}, t0.Add(tt.asked))
			last := tt.looks[len(tt.looks)-1]
			w.see([]*admin.Status{last.fra, says("iad", true, false), says("sin", true, false)}, last.reach, t0.Add(tt.asked+watchEvery))
			want := 0
			if tt.want != "" {
				want = 1
			}
			if got := w.result(); got.Stale != want || len(got.Notes) != want {
				t.Errorf("got %d %q, want %d", got.Stale, got.Notes, want)
			}
		})
	}
}

// A site that had come back when it was named is no stale answer, though the
// look before did not know it yet.
func TestStaleNotWhenBack(t *testing.T) {
	all := [][]bool{{true, true, true}, {true, true, true}, {true, true, true}}
	t0 := time.Unix(1000, 0)
	w := newWatch(still(t, "three.yaml"))
	look := func(up bool, after time.Duration) {
		w.see([]*admin.Status{says("fra", up, false), nil, nil}, all, t0.Add(after))
	}
	look(false, 0)
	w.answered(1, "web", []string{"fra"}, t0.Add(5*time.Second))
	look(true, 5*time.Second+watchEvery)
	look(false, 6*time.Second)
	if got := w.result(); got.Stale != 0 {
		t.Errorf("%d stale: %q", got.Stale, got.Notes)
	}
}

// A site is down only if all of its nodes that live say so.
func TestStaleNeedsAll(t *testing.T) {
	l := still(t, "nine.yaml")
	all := make([][]bool, len(l.nodes))
	for i := range all {
		for range all {
			all[i] = append(all[i], true)
		}
	}
	t0 := time.Unix(1000, 0)
	for _, second := range []bool{true, false} {
		w := newWatch(l)
		statuses := make([]*admin.Status, len(l.nodes)) // fra3 and the other sites are silent
		statuses[0], statuses[1] = says("fra", false, false), says("fra", second, false)
		w.see(statuses, all, t0)
		w.answered(5, "web", []string{"fra"}, t0.Add(5*time.Second))
		w.see(statuses, all, t0.Add(5*time.Second))
		if got := w.result().Stale; (got == 1) == second {
			t.Errorf("fra2 says up %t: %d stale", second, got)
		}
	}
}

func TestFingerprint(t *testing.T) {
	a, b := says("fra", true, false), says("fra", true, false)
	b.Node, b.Generation, b.Degraded = "other", 7, []string{"x"}
	b.Services[0].Sites[0].VIPs = nil
	if fingerprint(a) != fingerprint(b) {
		t.Errorf("a node's own matters are in the fingerprint:\n%s\n%s", fingerprint(a), fingerprint(b))
	}
	for _, other := range []*admin.Status{says("fra", false, false), says("fra", true, true), says("iad", true, false)} {
		if fingerprint(a) == fingerprint(other) {
			t.Errorf("a difference is not in the fingerprint:\n%s", fingerprint(other))
		}
	}
}

// The rules that are loaded and the lab's own idea of who reaches whom come from one table.
func TestFilter(t *testing.T) {
	l := layoutOf(t, "three.yaml") // n0 fra1, n1 iad1, n2 sin1, n3 … n5 backends, n6 client
	f := &filter{layout: l}
	f.lanes = []lane{{"fra", "iad", 100}, {"sin1", "client", 20}, {allName, "sin", 100}, {"fra1", allName, 100}}
	text, err := f.rules(f.lanes)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, "iifname") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := []string{
		`iifname { "n0", "n3" } oifname { "n1", "n4" } drop`,
		`iifname { "n2" } oifname { "n6" } numgen random mod 100 < 20 drop`,
		`iifname { "n0", "n1", "n3", "n4" } oifname { "n2", "n5" } drop`,
		`iifname { "n0" } oifname { "n1", "n2", "n3", "n4", "n5" } drop`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, tt := range []struct {
		from, to int
		want     bool
	}{
		{0, 1, false}, {1, 0, true}, {2, 6, true}, {1, 2, false}, {2, 1, true}, {2, 5, true}, {0, 3, false}, {3, 0, true},
	} {
		if got := f.passes(tt.from, tt.to); got != tt.want {
			t.Errorf("%d → %d: passes %t, want %t", tt.from, tt.to, got, tt.want)
		}
	}
	if _, err := f.rules([]lane{{"fra", "mars", 100}}); err == nil {
		t.Error("a place that does not exist is filtered")
	}
}

func TestFigures(t *testing.T) {
	f := Figures{Nodes: map[string]*NodeFigures{"fra1": {}}}
	name := steeredName{fqdn: "www.lab.test.", service: "web"}
	ok := Answer{Node: "fra1", RCode: "Success", Addresses: clientAddrs[:1], Latency: time.Millisecond}
	f.book(ok, name)
	f.book(ok, name)
	f.Stale = 1
	f.book(Answer{Node: "fra1", RCode: "Success"}, name)
	f.book(Answer{Node: "fra1", RCode: "ServerFailure", Addresses: clientAddrs[:1]}, name)
	f.book(Answer{Node: "fra1", Error: "timeout"}, name)
	f.Resolved, f.Unresolved = 10_000, 1
	v := Verdict{Figures: f}
	v.judge([]Always{AlwaysAnswered, NeverEmpty, NeverStale})
	want := []string{"never empty: 2 answers were", "never stale: 1 answers named a site that its own nodes knew to be down"}
	if diff := cmp.Diff(want, v.Failed); diff != "" {
		t.Error(diff)
	}
	if n := f.Nodes["fra1"]; n.Asked != 5 || n.Answered != 4 {
		t.Errorf("%+v", n)
	}
	v = Verdict{Figures: Figures{Resolved: 10_000, Unresolved: 2}}
	if v.judge([]Always{AlwaysAnswered}); v.OK() {
		t.Error("99.98 % is taken for 99.99 %")
	}
	if v = (Verdict{}); v.Figures.Answered() != 0 {
		t.Error("nothing asked is taken for all answered")
	}
	sum := f.clone()
	sum.add(f)
	if sum.Empty != 4 || f.Empty != 2 || sum.Nodes["fra1"].Asked != 10 || f.Nodes["fra1"].Asked != 5 {
		t.Errorf("sum %+v of %+v", sum, f)
	}
}

func TestUnhealthy(t *testing.T) {
	l := still(t, "three.yaml")
	all := func(status string) []*admin.Status {
		var out []*admin.Status
		for range l.nodes {
			st := says("fra", true, false)
			st.Services[0].Sites[0].VIPs = []admin.TargetStatus{{Status: status}}
			out = append(out, st)
		}
		return out
	}
	if got := l.unhealthy(all("up")); got != "" {
		t.Errorf("all is up, and %s", got)
	}
	if got := l.unhealthy(all("down")); !strings.Contains(got, "fra1 finds") {
		t.Errorf("a VIP is down: %q", got)
	}
	if got := l.unhealthy([]*admin.Status{nil, nil, nil}); got == "" {
		t.Error("silence is healthy")
	}
	for i := range l.layout.Backends {
		l.layout.Backends[i].Missing = "anything"
	}
	if got := l.unhealthy(all("down")); got != "" {
		t.Errorf("what no lab can satisfy is waited for: %s", got)
	}
}
