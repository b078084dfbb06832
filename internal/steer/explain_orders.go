package steer

import (
	"fmt"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// Notes says what of a plan holds beyond single services, a line each: verdicts that are frozen,
// removals that wait, orders that stand on nothing. Empty in good times.
func (p *Plan) Notes() []string {
	var notes []string
	if v := p.View; v != nil && v.Minority {
		notes = append(notes, fmt.Sprintf("this node hears %d of %d sites; other sites' verdicts are frozen", v.Heard, v.Sites))
	}
	if !p.Distrust.IsZero() {
		notes = append(notes, fmt.Sprintf("at least half of all sites failed at once; the checks are distrusted and no such removal is applied until %s",
			clock(p.Distrust)))
	}
	var unknown []string
	for _, scope := range p.Topology.UnknownScopes(p.Facts.Overrides) {
		unknown = append(unknown, scope.String())
	}
	if len(unknown) > 0 {
		notes = append(notes, "orders on what is not in the config are ignored: "+strings.Join(limited(unknown), ", "))
	}
	return notes
}

// orderText says what was ordered, by whom, when and why: `drain of site/fra by ann 5m ago: "new disk", until 12:30:00 UTC`.
func orderText(v health.Override, now time.Time) string {
	text := fmt.Sprintf("%s of %s", v.Order, v.Scope)
	text += prefixed(" by ", v.By)
	if !v.At.IsZero() && !now.Before(v.At) {
		text += " " + ageText(now.Sub(v.At)) + " ago"
	}
	if v.Reason != "" {
		text += fmt.Sprintf(": %q", v.Reason)
	}
	if !v.Until.IsZero() {
		text += ", until " + v.Until.UTC().Format("2006-01-02 15:04:05 UTC")
	}
	return text
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05 UTC") }

// siteOrder says what is ordered of a service at a site, "" if nothing is.
func (p *Plan) siteOrder(service, position int) string {
	if v, ok := p.SiteOrder(service, position); ok {
		return orderText(v, p.Facts.Now)
	}
	return ""
}

// backendOrder says what is ordered of a backend itself.
func (p *Plan) backendOrder(service, position, backend int) string {
	if v, ok := p.BackendOrder(service, position, backend); ok {
		return orderText(v, p.Facts.Now)
	}
	return ""
}

// routeOrder says what is ordered of a route.
func (p *Plan) routeOrder(route int) string {
	if v, ok := p.RouteOrder(route); ok {
		return orderText(v, p.Facts.Now)
	}
	return ""
}

// Held returns until when the removal of a site of a service is held for a family; ok is false if it is not. It
// decides the service again: for status and explanations.
func (p *Plan) Held(service, position int, ipv6 bool) (until time.Time, ok bool) {
	if p.Services[service].Recheck.IsZero() {
		return time.Time{}, false
	}
	j := p.judgement()
	j.trace = new(trace)
	j.service(service)
	for _, h := range j.trace.held {
		if h.position == position && h.ipv6 == ipv6 {
			return h.until, true
		}
	}
	return time.Time{}, false
}

// excuse says more of why a site is in although it is not fit: until when, or how many are needed.
func (p *Plan) excuse(service, position int, ipv6 bool) string {
	s := &p.Topology.Services[service]
	switch p.Services[service].Sites[position].answer(ipv6).Why {
	case ReasonBudget:
		until, _ := p.Held(service, position, ipv6)
		sites := 0
		for i := range s.Sites {
			if addrs, _ := s.Sites[i].addresses(ipv6); len(addrs) > 0 {
				sites++
			}
		}
		return fmt.Sprintf("until %s, as at most %d of %d sites may go in %s", clock(until), budget(sites), sites, ageText(budgetWindow))
	case ReasonMassFailure:
		until, _ := p.Held(service, position, ipv6)
		return "until " + clock(until)
	case ReasonMinimum:
		return fmt.Sprintf("the service needs at least %d sites", s.Config.MinSites)
	}
	return ""
}
