package steer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// tickTime is how finely a troupe's time passes, latency how long a statement takes.
const (
	tickTime = 50 * time.Millisecond
	latency  = 150 * time.Millisecond
)

// anycastPrefix is the one prefix of a troupe.
var anycastPrefix = netip.MustParsePrefix("192.0.2.0/24")

// A troupe is a node at each of the sites that announce one prefix together: each
// decides for itself, and hears what the others state of themselves a little later.
type troupe struct {
	t       testing.TB
	members []*member
	now     time.Time
	letters []letter
	log     []string
	cut     func(from, to int) bool // nil = no link is cut
	watch   func()                  // called after every moment in which something happened; nil = nobody
}

// A member is one site's node.
type member struct {
	site     string
	topology *Topology
	view     *health.View
	heard    []time.Time // by member: when its statement came last
	plan     *Plan
	facts    Facts
	dead     bool // its backends
}

// A letter is a statement on its way.
type letter struct {
	at       time.Time
	from, to int
	says     map[int]health.Status
}

// newTroupe begins with everything up and announced.
func newTroupe(t testing.TB, sites []string, change func(*config.Prefix)) *troupe {
	t.Helper()
	cfg := fleet(service(steps(config.PolicyGeo), sites...))
	cfg.Drain = config.Drain{Depreference: 20 * time.Second}
	cfg.BGP.ASN = 64500
	p := config.Prefix{Prefix: anycastPrefix, Requires: []string{"web"}, Sites: sites, Need: 1}
	change(&p)
	cfg.BGP.Prefixes = []config.Prefix{p}
	for _, site := range sites {
		cfg.BGP.Peers = append(cfg.BGP.Peers, config.Peer{Site: site})
	}
	tr := &troupe{t: t, now: now}
	for _, site := range sites {
		m := &member{site: site, topology: compile(t, cfg, site+"1"), heard: make([]time.Time, len(sites))}
		m.view = view(t, m.topology, nil)
		m.view.Verdicts = slices.Clone(m.view.Verdicts)
		for i, target := range m.topology.Layout.Targets {
			if target.Kind.Stated() {
				m.view.Verdicts[i] = health.Verdict{Status: health.StatusUnknown}
			}
		}
		m.facts = Facts{Ready: true, Current: now}
		tr.members = append(tr.members, m)
	}
	tr.pass(90 * time.Second)
	tr.log = nil
	return tr
}

// pass lets time go by: from one thing that happens to the next.
func (tr *troupe) pass(d time.Duration) {
	for end := tr.now.Add(d); tr.now.Before(end); {
		next := tr.now.Truncate(time.Second).Add(time.Second) // everybody says something every second
		for _, l := range tr.letters {
			next = earlier(next, l.at)
		}
		for _, m := range tr.members {
			if m.plan != nil {
				next = earlier(next, m.plan.Recheck)
			}
		}
		tr.now = earlier(end, latest(next, tr.now.Add(tickTime)))
		tr.letters = slices.DeleteFunc(tr.letters, func(l letter) bool {
			if l.at.After(tr.now) {
				return false
			}
			if tr.cut == nil || !tr.cut(l.from, l.to) {
				tr.deliver(l)
			}
			return true
		})
		for i := range tr.members {
			tr.step(i)
		}
		if tr.watch != nil {
			tr.watch()
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (tr *troupe) deliver(l letter) {
	m := tr.members[l.to]
	m.heard[l.from] = tr.now
	for target, s := range l.says {
		v := &m.view.Verdicts[target]
		if s != health.StatusUp && s != health.StatusDown {
			v.Why = health.WhyHeld
			continue
		}
		if v.Status != s {
			v.Since = tr.now
		}
		v.Status, v.Why = s, health.WhyProbes
	}
}

// step has one member look at what it knows, decide, and tell the others.
func (tr *troupe) step(i int) {
	m := tr.members[i]
	heard := 1
	for from := range tr.members {
		switch {
		case from == i:
		case tr.now.Sub(m.heard[from]) <= health.FreshFor:
			heard++
		default:
			for k, target := range m.topology.Layout.Targets {
				if target.Kind.Stated() && target.Site == tr.members[from].site {
					m.view.Verdicts[k].Why = health.WhyStale
				}
			}
		}
	}
	v := *m.view
	v.Verdicts = slices.Clone(m.view.Verdicts)
	v.Minority = 2*heard < len(tr.members)
	for k, target := range m.topology.Layout.Targets {
		if target.Kind == health.KindBackend && target.Site == m.site && m.dead {
			v.Verdicts[k] = down(0)
		}
	}
	m.facts.Now = tr.now
	m.facts.Heard = make([]time.Time, len(m.topology.Config.Sites))
	for from, at := range m.heard {
		m.facts.Heard[m.topology.sites[tr.members[from].site]] = at
	}
	was := m.plan
	m.plan = Decide(m.topology, &v, m.facts, m.plan)
	if text := routeLine(&m.plan.Routes[0]); was == nil || routeLine(&was.Routes[0]) != text {
		tr.log = append(tr.log, fmt.Sprintf("%6.2fs %s %s", tr.now.Sub(now).Seconds()-90, m.site, text))
	}
	says := map[int]health.Status{}
	m.plan.Statements(func(target int, s health.Status) { says[target] = s })
	news := was == nil || tr.now.Equal(tr.now.Truncate(time.Second))
	if was != nil {
		was.Statements(func(target int, s health.Status) { news = news || says[target] != s })
	}
	if !news {
		return
	}
	tr.deliver(letter{to: i, from: i, says: says})
	for to := range tr.members {
		if to != i {
			tr.letters = append(tr.letters, letter{at: tr.now.Add(latency), from: i, to: to, says: says})
		}
	}
}

// routeLine is a route as these tests show it.
func routeLine(r *Route) string {
	text := "withdrawn"
	if r.Announce {
		text = r.Level.String()
	}
	text += ": " + r.Why.String()
	if r.Cause != ReasonNone {
		text += " [" + r.Cause.String() + "]"
	}
	return text
}

// at returns the member of a site.
func (tr *troupe) at(site string) *member {
	for _, m := range tr.members {
		if m.site == site {
			return m
		}
	}
	tr.t.Fatalf("no member at %s", site)
	return nil
}

// order gives orders that all members hear of at once.
func (tr *troupe) order(texts ...string) {
	for _, m := range tr.members {
		m.facts.Overrides = ordered(tr.t, texts...)
	}
}

// announced returns the sites that announce.
func (tr *troupe) announced() (sites []string) {
	for _, m := range tr.members {
		if m.plan.Routes[0].Announce {
			sites = append(sites, m.site)
		}
	}
	return sites
}

// story is what happened, a line each.
func (tr *troupe) story() string { return strings.Join(tr.log, "\n") + "\n" }
