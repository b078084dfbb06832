package steer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// TestPanic: below the threshold everybody who is down works, above it nobody; those out by
// order never do, and a pool of which none is up is out as ever.
func TestPanic(t *testing.T) {
	for _, c := range []struct {
		threshold float64
		down      int // of 10, from the first on
		drained   int // of those that are up
		want      string
	}{
		{0, 9, 0, "---------+"},
		{0.5, 5, 0, "-----+++++"},
		{0.5, 6, 0, "!!!!!!++++"},
		{0.5, 6, 4, "----------"}, // nobody is up
		{0.5, 6, 3, "!!!!!!---+"}, // one of seven
		{0.5, 10, 0, "----------"},
		{1, 1, 0, "!+++++++++"},
		{0.3, 7, 0, "-------+++"},
		{0.3, 7, 1, "!!!!!!!-++"}, // two of nine
	} {
		t.Run(fmt.Sprint(c.threshold, c.down, c.drained), func(t *testing.T) {
			svc := service(steps(config.PolicyGeo), "fra", "iad")
			svc.Panic = c.threshold
			svc.Pools[0].Backends = nil
			verdicts := make(map[string]health.Verdict)
			var orders []health.Override
			for i := range 10 {
				a := backend("fra", byte(i+1))
				svc.Pools[0].Backends = append(svc.Pools[0].Backends, config.Backend{Address: a, Weight: 1})
				if i < c.down {
					verdicts["web/fra/backend/"+a.String()] = down(0)
				} else if i < c.down+c.drained {
					orders = append(orders, health.Override{Scope: health.Scope{Kind: health.ScopeBackend, Service: "web", Site: "fra", Backend: a}, Order: health.OrderDrain})
				}
			}
			topology := compile(t, fleet(svc), "")
			p := Decide(topology, view(t, topology, verdicts), Facts{Now: now, Overrides: orders}, nil)
			var got strings.Builder
			for _, b := range p.Services[0].Sites[0].Backends {
				switch {
				case b.Active && b.Why == ReasonPanic:
					got.WriteByte('!')
				case b.Active:
					got.WriteByte('+')
				default:
					got.WriteByte('-')
				}
			}
			if got.String() != c.want {
				t.Errorf("got %s, want %s", got.String(), c.want)
			}
			if site := &p.Services[0].Sites[0]; site.Eligible != strings.ContainsRune(c.want, '+') || site.Panics() != strings.ContainsRune(c.want, '!') {
				t.Errorf("eligible %v, panics %v for %s", site.Eligible, site.Panics(), c.want)
			}
		})
	}
}

// TestOverflow: to whom, in which order.
func TestOverflow(t *testing.T) {
	for _, c := range []struct {
		name     string
		overflow config.Overflow
		self     string
		verdicts map[string]health.Verdict
		want     string
	}{
		{"off", config.Overflow{}, "fra1", nil, ""},
		{"without a node", config.Overflow{On: true}, "", nil, ""},
		{"the nearest first", config.Overflow{On: true}, "fra1", nil, "ams 198.51.100.1, iad 198.51.100.3, sin 198.51.100.4"},
		{"from elsewhere", config.Overflow{On: true}, "sin1", nil, "fra 198.51.100.2, ams 198.51.100.1, iad 198.51.100.3"},
		{"as named", config.Overflow{On: true, To: []string{"sin", "fra", "ams"}}, "fra1", nil, "sin 198.51.100.4, ams 198.51.100.1"},
		{"not to who is down", config.Overflow{On: true}, "fra1", poolDown("ams"), "iad 198.51.100.3, sin 198.51.100.4"},
		{
			"not to who cannot be reached",
			config.Overflow{On: true},
			"fra1",
			map[string]health.Verdict{"web/iad/vip/198.51.100.3:8080": down(0)},
			"ams 198.51.100.1, sin 198.51.100.4",
		},
		{"not to who answers for want of others", config.Overflow{On: true}, "fra1", poolDown("ams", "fra", "iad", "sin"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			svc := everywhere(steps(config.PolicyGeo)...)
			svc.Overflow = c.overflow
			topology := compile(t, fleet(svc), c.self)
			p := Decide(topology, view(t, topology, c.verdicts), Facts{Now: now}, nil)
			var got []string
			for _, site := range p.Overflow(0) {
				got = append(got, fmt.Sprintf("%s %s", site.Site, joined(site.Addresses)))
			}
			if text := strings.Join(got, ", "); text != c.want {
				t.Errorf("got %q, want %q", text, c.want)
			}
		})
	}
}
