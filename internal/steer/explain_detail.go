package steer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// maxDetails is how many targets of a site an explanation names.
const maxDetails = 4

// explainSteps runs the chain of a profile for a place, step by step.
func (t *Topology) explainSteps(prof *profile, place geo.Place) []ExplainedStep {
	v := newVantage(t.Config.Sites, place)
	final := prof.orderFor(v, new(scratch))
	order := final.positions
	var steps []ExplainedStep
	tied := len(order) > 1
	for n := 1; n <= len(prof.steps); n++ {
		key := func(position uint16) []uint16 { return prof.values(v, n, position) }
		st := &prof.steps[n-1]
		step := ExplainedStep{Policy: string(st.kind), Note: st.note(place)}
		tied = false
		for i, position := range order {
			if i > 0 && slices.Equal(key(position), key(order[i-1])) {
				last := &step.Groups[len(step.Groups)-1]
				last.Sites = append(last.Sites, t.profileSite(prof, position))
				tied = true
				continue
			}
			step.Groups = append(step.Groups, ExplainedGroup{
				Value: st.label(key(position)[n-1], place),
				Sites: []string{t.profileSite(prof, position)},
			})
		}
		steps = append(steps, step)
	}
	switch {
	case prof.weights != nil:
		steps = append(steps, t.weightStep(prof, final))
	case tied:
		step := ExplainedStep{Policy: "name", Note: "what is still tied goes by site name"}
		for i, position := range order {
			step.Groups = append(step.Groups, ExplainedGroup{ordinal(i + 1), []string{t.profileSite(prof, position)}})
		}
		steps = append(steps, step)
	}
	return steps
}

// values returns what the first n steps say of the site at a position.
func (p *profile) values(v *vantage, n int, position uint16) []uint16 {
	values := make([]uint16, n)
	for s := range values {
		values[s] = p.value(&p.steps[s], v, position)
	}
	return values
}

func (t *Topology) weightStep(prof *profile, order *order) ExplainedStep {
	step := ExplainedStep{Policy: string(config.PolicyWeighted), Note: "at random among what is still tied"}
	for g := range order.groups() {
		var weights, sites []string
		for _, position := range order.group(g) {
			weights = append(weights, strconv.Itoa(int(prof.weights[position])))
			sites = append(sites, t.profileSite(prof, position))
		}
		step.Groups = append(step.Groups, ExplainedGroup{"weight " + strings.Join(weights, ":"), sites})
	}
	return step
}

func (t *Topology) profileSite(prof *profile, position uint16) string {
	return t.Config.Sites[prof.sites[position]].Name
}

// note says what a step could or could not go by.
func (st *step) note(place geo.Place) string {
	switch {
	case st.rules != nil:
		ranked, w := st.rule(place)
		if ranked == nil {
			return "no rule for this place"
		}
		return "rule " + w.String()
	case st.kind == config.PolicyNearest && place.Point.IsZero():
		return "position unknown, all are tied"
	case st.kind == config.PolicyGeo && place.Country == "" && place.Continent == "":
		return "place unknown, all are tied"
	}
	return ""
}

// label is a step's value in words.
func (st *step) label(value uint16, place geo.Place) string {
	ranked := st.fixed
	if st.rules != nil {
		ranked, _ = st.rule(place)
	}
	switch {
	case ranked != nil && value == ranked.unnamed:
		return "not named"
	case ranked != nil:
		return ordinal(int(value) + 1)
	case st.rules != nil:
		return "tied"
	case st.kind == config.PolicyNearest:
		if place.Point.IsZero() {
			return "tied"
		}
		return thousands(int(value)) + " km"
	}
	return [...]string{"same country", "same continent", "elsewhere"}[min(value, tierRest)]
}

// String returns the rule as the config writes it.
func (w where) String() string {
	switch w.kind {
	case whereDefault:
		return "default"
	case whereContinent:
		return "continent:" + w.text
	case whereNetwork:
		return "network:" + w.text
	default:
		return w.text
	}
}

// details writes what is known of the sites of a service.
type details struct {
	p *Plan
	j *judgement
	s *Service
}

// site describes a site for a query of a family.
func (d details) site(position int, ipv6 bool) ExplainedSite {
	ss := &d.s.Sites[position]
	a := d.p.Services[d.service()].Sites[position].answer(ipv6)
	e := ExplainedSite{
		Site: d.p.Topology.Config.Sites[ss.Site].Name, Eligible: len(a.Addresses) > 0, Reason: a.Why, Addresses: a.Addresses,
	}
	_, vips := ss.addresses(ipv6)
	e.Detail = joinParts(
		d.p.excuse(d.service(), position, ipv6), d.p.siteOrder(d.service(), position), d.vips(vips), d.backends(position), d.zones(position), d.overflow(position))
	return e
}

// overflow names the sites that take what the deciding node's own pool cannot.
func (d details) overflow(position int) string {
	if position != d.s.Home || !d.s.Config.Overflow.On {
		return ""
	}
	var names []string
	for _, site := range d.p.Overflow(d.service()) {
		names = append(names, site.Site)
	}
	if len(names) == 0 {
		return "overflows to nobody: no other site is fit"
	}
	return "overflows to " + strings.Join(names, ", ")
}

// pool describes a site of an anycast service: what counts is its pool.
func (d details) pool(position int) ExplainedSite {
	ss := &d.s.Sites[position]
	plan := &d.p.Services[d.service()].Sites[position]
	e := ExplainedSite{
		Site: d.p.Topology.Config.Sites[ss.Site].Name, Detail: joinParts(d.p.siteOrder(d.service(), position), d.backends(position), d.zones(position), d.overflow(position)),
	}
	order, _ := d.p.SiteOrder(d.service(), position)
	if len(plan.Backends) == 0 {
		e.Reason = ReasonNoPool
		return e
	}
	e.Reason = ReasonBackendsDown
	for _, b := range plan.Backends {
		switch {
		case b.Active && b.Why == ReasonNone:
			e.Eligible, e.Reason = true, ReasonNone
		case b.Active && e.Reason != ReasonNone:
			e.Eligible, e.Reason = true, b.Why
		case !e.Eligible && b.Why != ReasonBackendDown:
			e.Reason = b.Why
		}
	}
	if order.Order == health.OrderDrain {
		e.Reason = ReasonDrained // what arrives is served, but this node announces nothing for it
	}
	return e
}

func (d details) service() int { return d.p.Topology.services[d.s.Config.Name] }

// vips names the VIPs that are down.
func (d details) vips(targets []int) string {
	var texts []string
	for _, target := range targets {
		v := d.j.verdict(target)
		if v.Status != health.StatusDown {
			continue
		}
		texts = append(texts, fmt.Sprintf("%s unreachable%s: %s (%d of %d sites say so)",
			d.p.Topology.Layout.Targets[target].Addr, d.since(v), v.Why, v.Down, v.Up+v.Down+v.Abstain))
	}
	return strings.Join(limited(texts), ", ")
}

// backends counts the pool and names what is not up, or ordered.
func (d details) backends(position int) string {
	ss := &d.s.Sites[position]
	if len(ss.Backends) == 0 {
		return ""
	}
	up := 0
	var texts []string
	for i, target := range ss.Backends {
		addr := d.p.Topology.Layout.Targets[target].Addr
		v := d.j.verdict(target)
		if order := d.p.backendOrder(d.service(), position, i); order != "" {
			texts = append(texts, order)
		}
		switch {
		case v.Status != health.StatusDown && (d.j.assumedSite(ss.Site) || d.j.assumedBackend(target)):
			texts = append(texts, fmt.Sprintf("%s assumed down", addr))
		case v.Status == health.StatusUp:
			up++
		case v.Status == health.StatusDown:
			text := fmt.Sprintf("%s down%s: %s", addr, d.since(v), v.Why)
			if d.p.Services[d.service()].Sites[position].Backends[i].Why == ReasonPanic {
				text += ", used all the same (panic)"
			}
			texts = append(texts, text)
		default:
			texts = append(texts, fmt.Sprintf("%s unknown: %s", addr, v.Why))
		}
	}
	text := fmt.Sprintf("%d of %d backends up", up, len(ss.Backends))
	if len(texts) > 0 {
		text += ": " + strings.Join(limited(texts), ", ")
	}
	return text
}

func (d details) since(v health.Verdict) string {
	now := d.p.Facts.Now
	if v.Since.IsZero() || now.Before(v.Since) {
		return ""
	}
	return " since " + ageText(now.Sub(v.Since))
}

// joinParts joins what is not empty.
func joinParts(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), "; ")
}

// limited keeps the first texts and counts the rest.
func limited(texts []string) []string {
	if len(texts) <= maxDetails {
		return texts
	}
	return append(texts[:maxDetails:maxDetails], fmt.Sprintf("and %d more", len(texts)-maxDetails))
}

// ageText writes a duration in its two largest units: "12s", "3m5s", "2d4h".
func ageText(d time.Duration) string {
	units := []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}}
	for i, u := range units[:len(units)-1] {
		if d < u.size {
			continue
		}
		text := fmt.Sprintf("%d%s", d/u.size, u.name)
		if rest := d % u.size / units[i+1].size; rest > 0 {
			text += fmt.Sprintf("%d%s", rest, units[i+1].name)
		}
		return text
	}
	return fmt.Sprintf("%ds", max(d, 0)/time.Second)
}

// thousands writes 12345 as "12,345".
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// ordinal writes 1 as "1st".
func ordinal(n int) string {
	suffix := "th"
	switch {
	case n%100 >= 11 && n%100 <= 13:
	case n%10 == 1:
		suffix = "st"
	case n%10 == 2:
		suffix = "nd"
	case n%10 == 3:
		suffix = "rd"
	}
	return strconv.Itoa(n) + suffix
}
