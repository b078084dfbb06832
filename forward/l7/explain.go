package l7

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/pharos-lb/pharos/forward/l7/route"
)

// A Question is a request to explain.
type Question struct {
	// Head is the request's head as HTTP/1.1, with its empty line.
	Head []byte
	// Peer is who connects, Local where to.
	Peer, Local netip.AddrPort
	TLS         bool
}

// An Explanation is what a listener does with a request and why. It is made by the
// engine's own steps.
type Explanation struct {
	// Refused says why the request gets no further than this, with the status; "" if it does.
	Refused string
	Status  int
	// Client is who asks, as far as it is believed; Trusted that the peer is.
	Client  netip.Addr
	Trusted bool
	// Routes is what every route says, in their order; Taken is nil if none takes it.
	Routes []route.Verdict
	Taken  *route.Rule
	// Service that the request goes to, for a route that has one.
	Service string
	// Location is where a redirect leads.
	Location string
	// Upstream is the head that a backend gets.
	Upstream string
}

// Explain says what a listener would do with a request. Its certificates and pages are
// not read.
func Explain(l Listener, q Question) (*Explanation, error) {
	l.TLS, l.Pages, l.AccessLog = nil, nil, nil
	l.Routes = append([]Route(nil), l.Routes...)
	for i := range l.Routes {
		l.Routes[i].Extra = nil
	}
	s := &Server{}
	s.metrics = newMetrics(s)
	set, err := s.settleOne(&l)
	if err != nil {
		return nil, err
	}
	w := works.Get().(*work)
	defer w.free()
	var found heard
	w.server, w.set, w.down = s, &set, &found
	w.ends = &ends{peer: q.Peer, local: q.Local, secure: q.TLS, from: q.Peer.Addr().AppendTo(nil), to: q.Local.AppendTo(nil)}
	n, f := w.scan.end(q.Head)
	switch {
	case f.bad():
	case n == 0:
		return nil, errors.New("the request's head is not complete")
	default:
		f = w.req.parse(q.Head[:n])
	}
	e := &Explanation{Client: q.Peer.Addr()}
	if f.bad() {
		e.Refused, e.Status = f.text, f.status
		return e, nil
	}
	w.identify(&set)
	e.Client, e.Trusted = w.who, w.trusted
	r := &w.req
	w.ask = route.Request{Method: r.method, Host: r.hostname, Path: r.path, Query: r.query(), Client: w.who, Fields: r}
	e.Taken, e.Routes = set.routes.Explain(&w.ask, &w.space)
	w.rule = set.routes.Match(&w.ask, &w.space) // leaves the space as the steps below want it
	if w.rule == nil {
		e.Refused, e.Status = "no route for this request", 404
		return e, nil
	}
	e.decide(w, &found)
	return e, nil
}

// decide follows the steps of dispatch for the rule that takes the request.
func (e *Explanation) decide(w *work, found *heard) {
	switch rule := w.rule; {
	case rule.Redirect != nil:
		w.redirect(rule)
		e.Status, e.Location = found.notice.status, found.field("Location")
		if e.Location == "" {
			e.Refused = "request target cannot be redirected"
		}
		return
	case rule.Respond != nil:
		w.respond(rule)
		e.Status = found.notice.status
		return
	case rule.Split != nil:
		e.Service = rule.Split.Pick(w.hash(splitKey(rule.Split.Key)))
	default:
		e.Service = rule.Service
	}
	upgrade := w.req.upgradeTo()
	if f := w.prepare(); f.bad() {
		e.Refused, e.Status = f.text, f.status
		return
	}
	e.Upstream = string(appendRequest(nil, &w.req, w.ends.to, upgrade))
}

// heard is a downstream that keeps what it is told, for an explanation.
type heard struct {
	downstream
	notice notice
}

func (h *heard) say(_ *work, n *notice) bool {
	h.notice = *n
	return true
}

func (h *heard) field(name string) string {
	for _, f := range h.notice.fields[:h.notice.used] {
		if strings.EqualFold(string(f.name), name) {
			return string(f.value)
		}
	}
	return ""
}

// String says in one line what becomes of the request.
func (e *Explanation) String() string {
	switch {
	case e.Refused != "":
		return fmt.Sprintf("%d %s", e.Status, e.Refused)
	case e.Location != "":
		return fmt.Sprintf("%d redirect to %s", e.Status, e.Location)
	case e.Service == "":
		return fmt.Sprintf("%d answered here", e.Status)
	}
	return "service " + e.Service
}
