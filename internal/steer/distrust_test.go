package steer

import (
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

func TestMassFailure(t *testing.T) {
	const gone, held = "VIP unreachable from the other sites", "held in: at least half of all sites failed at once, so the checks are distrusted"
	type ago = map[string]time.Duration
	sec := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	for _, c := range []struct {
		name    string
		at      ago
		more    map[string]health.Verdict
		orders  []string
		current time.Duration
		want    string
		until   time.Duration
	}{
		{"one of four", ago{"fra": 0}, nil, nil, 0, "fra: " + gone, 0},
		{"half at once", ago{"fra": sec(4), "iad": 0}, nil, nil, 0, "fra: " + held + " | iad: " + held, sec(30)},
		{"half, not at once", ago{"fra": sec(5), "iad": 0}, nil, nil, 0, "fra: " + gone + " | iad: held in by the removal budget", 0},
		{"until it is over", ago{"fra": sec(30), "iad": sec(30)}, nil, nil, 0, "fra: " + gone + " | iad: held in by the removal budget", 0},
		{"just before", ago{"fra": sec(33), "iad": sec(29.9)}, nil, nil, 0, "fra: " + held + " | iad: " + held, sec(0.1)},
		{"the budget begins after it", ago{"fra": sec(89), "iad": sec(89)}, nil, nil, 0, "fra: " + gone + " | iad: held in by the removal budget", 0},
		{"the budget ends after it", ago{"fra": sec(90), "iad": sec(90)}, nil, nil, 0, "fra: " + gone + " | iad: " + gone, 0},
		{"one of them says so itself", ago{"fra": 0, "iad": 0}, poolDown("iad"), nil, 0, "fra: " + gone + " | iad: all backends down", 0},
		{"one of them is drained", ago{"ams": 0, "fra": 0}, nil, []string{"drain site/ams"}, 0, "ams: drained by order | fra: " + gone, 0},
		{"what is drained does not count as a site", ago{"fra": 0, "iad": 0}, nil, []string{"drain site/ams"}, 0, "ams: drained by order | fra: " + held + " | iad: " + held, sec(30)},
		{"found when this node became current", ago{"fra": sec(4), "iad": 0}, nil, nil, sec(2), "fra: " + gone + " | iad: " + gone, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			topology := compile(t, fleet(everywhere(steps(config.PolicyGeo)...)), "")
			facts := Facts{Now: now, Overrides: ordered(t, c.orders...)}
			if c.current != 0 {
				facts.Current = now.Add(-c.current)
			}
			p := Decide(topology, view(t, topology, merge(vipsDown(c.at), c.more)), facts, nil)
			if got := states(p); got != c.want {
				t.Errorf("sites:\n got %s\nwant %s", got, c.want)
			}
			var until time.Duration
			if !p.Distrust.IsZero() {
				until = p.Distrust.Sub(now)
				if p.Recheck.After(p.Distrust) || p.Recheck.IsZero() {
					t.Errorf("recheck %s, want at most %s", p.Recheck, p.Distrust)
				}
			}
			if until != c.until {
				t.Errorf("distrusted for %s, want %s", until, c.until)
			}
		})
	}
}

// A site fails as a whole or not at all, and in a fleet of two nobody can tell.
func TestMassFailureNeedsWholeSitesAndThree(t *testing.T) {
	other := everywhere(steps(config.PolicyGeo)...)
	other.Name = "zzz"
	verdicts := vipsDown(map[string]time.Duration{"fra": 0, "iad": 0})
	for name, c := range map[string]struct {
		cfg  *config.Config
		more map[string]health.Verdict
		want bool
	}{
		"another service is reached":                {fleet(everywhere(steps(config.PolicyGeo)...), other), nil, false},
		"the other service is down by its own word": {fleet(everywhere(steps(config.PolicyGeo)...), other), otherDown("fra", "iad"), true},
		"two sites with VIPs":                       {fleet(service(steps(config.PolicyGeo), "fra", "iad")), nil, false},
		"three":                                     {fleet(service(steps(config.PolicyGeo), "fra", "iad", "sin")), nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			topology := compile(t, c.cfg, "")
			p := Decide(topology, view(t, topology, merge(verdicts, c.more)), Facts{Now: now}, nil)
			if got := !p.Distrust.IsZero(); got != c.want {
				t.Errorf("distrusted %v, want %v: %s", got, c.want, states(p))
			}
		})
	}
}

func otherDown(at ...string) map[string]health.Verdict {
	m := make(map[string]health.Verdict)
	for name, v := range poolDown(at...) {
		m["zzz"+strings.TrimPrefix(name, "web")] = v
	}
	return m
}
