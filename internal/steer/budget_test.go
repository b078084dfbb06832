package steer

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// vipsDown is VIPs of web that went down so long ago.
func vipsDown(ago map[string]time.Duration) map[string]health.Verdict {
	m := make(map[string]health.Verdict)
	for site, d := range ago {
		m[fmt.Sprintf("web/%s/vip/%s:8080", site, vip4(site))] = down(d)
	}
	return m
}

// states writes the sites of web that are not in use: "fra: held in by the removal budget".
func states(p *Plan) string {
	var parts []string
	for i := range p.Services[0].Sites {
		if s := &p.Services[0].Sites[i]; s.Why != ReasonNone {
			parts = append(parts, fmt.Sprintf("%s: %s", p.Topology.SiteName(0, i), s.Why))
		}
		if s := &p.Services[0].Sites[i]; s.Why.Keeps() != s.Eligible {
			parts = append(parts, fmt.Sprintf("BUT Eligible=%v", s.Eligible))
		}
	}
	return strings.Join(parts, " | ")
}

func TestBudget(t *testing.T) {
	const gone, held, dead = "VIP unreachable from the other sites", "held in by the removal budget", "all backends down"
	type ago = map[string]time.Duration
	sec := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	for _, c := range []struct {
		name    string
		at      ago
		more    map[string]health.Verdict
		current time.Duration // ago; 0 = long ago
		orders  []string
		want    string
		recheck time.Duration // from now; 0 = never
	}{
		{"one", ago{"fra": 0}, nil, 0, nil, "fra: " + gone, 0},
		{"two at once: by name", ago{"iad": sec(10), "fra": sec(6)}, nil, 0, nil, "fra: " + gone + " | iad: " + held, sec(50)},
		{"two, apart: by time", ago{"iad": sec(10), "fra": sec(5)}, nil, 0, nil, "fra: " + held + " | iad: " + gone, sec(50)},
		{"the second a minute after the first was", ago{"iad": sec(60), "fra": sec(30)}, nil, 0, nil, "fra: " + gone + " | iad: " + gone, 0},
		{"just before that", ago{"iad": sec(59.9), "fra": sec(30)}, nil, 0, nil, "fra: " + held + " | iad: " + gone, sec(0.1)},
		{"long apart", ago{"iad": time.Hour, "fra": 0}, nil, 0, nil, "fra: " + gone + " | iad: " + gone, 0},
		{"three: one a minute", ago{"ams": sec(61), "fra": sec(61), "iad": sec(61)}, nil, 0, nil, "ams: " + gone + " | fra: " + gone + " | iad: " + held, sec(59)},
		{"three: all", ago{"ams": sec(120), "fra": sec(120), "iad": sec(120)}, nil, 0, nil, "ams: " + gone + " | fra: " + gone + " | iad: " + gone, 0},
		{"the site's own word is not held and spends nothing", ago{"fra": 0}, poolDown("ams", "iad"), 0, nil, "ams: " + dead + " | fra: " + gone + " | iad: " + dead, 0},
		{"found when this node became current", ago{"fra": sec(2), "iad": sec(10)}, nil, sec(6), nil, "fra: " + gone + " | iad: " + gone, 0},
		{"after that", ago{"fra": 0, "iad": sec(1)}, nil, sec(6.5), nil, "fra: " + gone + " | iad: " + held, sec(59)},
		{"before that", ago{"fra": sec(20), "iad": sec(21)}, nil, sec(6), nil, "fra: " + gone + " | iad: " + held, sec(39)},
		{"a clock that was set back", ago{"fra": -time.Hour, "iad": -time.Hour}, nil, 0, nil, "fra: " + gone + " | iad: " + gone, time.Hour},
		{"an order removes at once", ago{"fra": 0, "iad": 0}, nil, 0, []string{"drain site/iad"}, "fra: " + gone + " | iad: drained by order", 0},
		{"none fit: fail-open at once", ago{"fra": 0, "iad": 0}, poolDown("ams", "sin"), 0, nil, strings.Join([]string{
			"ams: " + ReasonFailOpen.String(), "fra: " + ReasonFailOpen.String(), "iad: " + ReasonFailOpen.String(), "sin: " + ReasonFailOpen.String(),
		}, " | "), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A second service keeps the sites from failing as a whole.
			other := everywhere(steps(config.PolicyGeo)...)
			other.Name = "zzz"
			topology := compile(t, fleet(everywhere(steps(config.PolicyGeo)...), other), "")
			facts := Facts{Now: now, Overrides: ordered(t, c.orders...)}
			if c.current != 0 {
				facts.Current = now.Add(-c.current)
			}
			p := Decide(topology, view(t, topology, merge(vipsDown(c.at), c.more)), facts, nil)
			if got := states(p); got != c.want {
				t.Errorf("sites:\n got %s\nwant %s", got, c.want)
			}
			var recheck time.Duration
			if !p.Recheck.IsZero() {
				recheck = p.Recheck.Sub(now)
			}
			if recheck != c.recheck {
				t.Errorf("recheck in %s, want %s", recheck, c.recheck)
			}
			if want := strings.Contains(c.want, "held") || strings.Contains(c.want, gone) || strings.Contains(c.want, "fail-open"); p.Services[0].Degraded != want {
				t.Errorf("Degraded %v, want %v", p.Services[0].Degraded, want)
			}
		})
	}
}

// What was read from disk was decided in another life.
func TestRestoredSpendsNoBudget(t *testing.T) {
	topology := compile(t, fleet(everywhere(steps(config.PolicyGeo)...)), "")
	verdicts := vipsDown(map[string]time.Duration{"ams": 0, "fra": 0, "iad": 0})
	for name, v := range verdicts {
		v.Restored = true
		verdicts[name] = v
	}
	p := Decide(topology, view(t, topology, verdicts), Facts{Now: now}, nil)
	const gone = "VIP unreachable from the other sites"
	if got, want := states(p), "ams: "+gone+" | fra: "+gone+" | iad: "+gone; got != want || !p.Recheck.IsZero() {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A site that is not measured does not come in by being held, and is no removal.
func TestBudgetAndUnmeasured(t *testing.T) {
	other := everywhere(steps(config.PolicyGeo)...)
	other.Name = "zzz"
	topology := compile(t, fleet(everywhere(steps(config.PolicyGeo)...), other), "")
	verdicts := vipsDown(map[string]time.Duration{"ams": 0, "fra": 0, "iad": 0})
	for _, n := range []byte{1, 2} {
		verdicts[fmt.Sprintf("web/ams/backend/%s", backend("ams", n))] = health.Verdict{}
	}
	p := Decide(topology, view(t, topology, verdicts), Facts{Now: now}, nil)
	if got, want := states(p), "ams: VIP unreachable from the other sites | fra: VIP unreachable from the other sites | iad: held in by the removal budget"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// 15 % of the sites, rounded down, at least one.
func TestBudgetSize(t *testing.T) {
	for n, want := range map[int]int{1: 1, 3: 1, 13: 1, 14: 2, 20: 3, 100: 15, 200: 30} {
		if got := budget(n); got != want {
			t.Errorf("budget(%d) = %d, want %d", n, got, want)
		}
	}
}

// However VIPs fall, no minute sees more removals than the budget, each site goes
// in the end, none before its verdict, and the first of a quiet minute at once.
func TestPropertyBudget(t *testing.T) {
	cfg := large(40, 2, 40, 1)
	cfg.Services[0].Name = "web"
	cfg.Zones = nil
	topology := compile(t, cfg, "")
	const most = 6 // 15 % of 40
	rapid.Check(t, func(t *rapid.T) {
		v := topology.allUp()
		fell := make(map[int]time.Time)
		for _, position := range rapid.SliceOfNDistinct(rapid.IntRange(0, 39), 1, 25, rapid.ID).Draw(t, "down") {
			at := now.Add(time.Duration(rapid.IntRange(0, 200_000).Draw(t, "fell")) * time.Millisecond)
			fell[position] = at
			v.Verdicts[topology.Services[1].Sites[position].VIPs[0]] = health.Verdict{Status: health.StatusDown, Since: at}
		}
		out := make(map[int]time.Time)
		at := now.Add(200 * time.Second)
		for {
			p := Decide(topology, v, Facts{Now: at}, nil)
			for position := range fell {
				s := &p.Services[1].Sites[position]
				if _, known := out[position]; s.Why == ReasonVIPDown && !known {
					out[position] = at
				}
			}
			if p.Recheck.IsZero() {
				break
			}
			if !p.Recheck.After(at) {
				t.Fatalf("recheck at %s, which is not after %s", p.Recheck, at)
			}
			at = p.Recheck
		}
		if len(out) != len(fell) {
			t.Fatalf("%d of %d were removed in the end", len(out), len(fell))
		}
		for position, from := range out {
			if from.Before(fell[position]) {
				t.Fatalf("site %d out at %s, down at %s", position, from, fell[position])
			}
			n := 0
			for _, other := range out {
				if d := other.Sub(from); d >= 0 && d < time.Minute {
					n++
				}
			}
			if from.After(now.Add(200*time.Second)) && n > most {
				t.Fatalf("%d removals in the minute from %s, at most %d may be", n, from.Sub(now), most)
			}
		}
	})
}

// The schedule itself, also for what lies in the past.
func TestPropertySchedule(t *testing.T) {
	topology := compile(t, fleet(everywhere(steps(config.PolicyGeo)...)), "")
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 4).Draw(t, "budget")
		var removals []removal
		for i := range rapid.IntRange(1, 20).Draw(t, "removals") {
			r := removal{position: i % 4}
			if rapid.IntRange(0, 4).Draw(t, "old") > 0 {
				r.since = now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "since")) * time.Second)
			}
			removals = append(removals, r)
		}
		j := newJudgement(topology, nil, Facts{})
		j.schedule(&topology.Services[0], removals, most)
		for _, r := range removals {
			if r.since.IsZero() {
				if !r.out.IsZero() {
					t.Fatalf("an old one waits: %+v", r)
				}
				continue
			}
			if r.out.Before(r.since.Add(-sameMoment)) {
				t.Fatalf("out %s before it was down", r.since.Sub(r.out))
			}
			n, before := 0, 0
			for _, o := range removals {
				if o.since.IsZero() {
					continue
				}
				if d := o.out.Sub(r.out); d >= 0 && d < budgetWindow {
					n++
				}
				if d := r.out.Sub(o.out); d >= 0 && d <= budgetWindow {
					before++
				}
			}
			if n > most {
				t.Fatalf("%d in the minute from %s", n, r.out.Sub(now))
			}
			if r.out.After(r.since) && before <= most {
				t.Fatalf("waits until %s although only %d were removed in the minute before", r.out.Sub(now), before-1)
			}
		}
	})
}
