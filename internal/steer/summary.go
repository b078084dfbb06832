package steer

import (
	"encoding/binary"
	"fmt"
	"hash"
	"hash/fnv"
	"net/netip"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// A Summary is a plan for `status` and `plan`: stable names, no pointers, the
// same JSON for the same plan.
type Summary struct {
	Generation  uint64           `json:"generation"`
	Config      string           `json:"config"`      // its hash
	Fingerprint string           `json:"fingerprint"` // equal on all nodes that decide alike
	Node        string           `json:"node,omitempty"`
	Site        string           `json:"site,omitempty"`
	At          time.Time        `json:"at,omitzero"`
	Ready       bool             `json:"ready"`
	AssumeDown  []string         `json:"assume_down,omitempty"`
	Orders      []string         `json:"orders,omitempty"` // standing, those on nothing too
	Notes       []string         `json:"notes,omitempty"`  // Plan.Notes
	Recheck     time.Time        `json:"recheck,omitzero"` // Plan.Recheck
	Services    []ServiceSummary `json:"services"`
	Routes      []RouteSummary   `json:"routes"`
}

// A ServiceSummary is a ServicePlan in a Summary.
type ServiceSummary struct {
	Service  string        `json:"service"`
	FailOpen bool          `json:"fail_open"`
	Degraded bool          `json:"degraded"`
	Sites    []SiteSummary `json:"sites"`
}

// A SiteSummary is a SitePlan in a Summary.
type SiteSummary struct {
	Site     string           `json:"site"`
	Eligible bool             `json:"eligible"`
	Reason   Reason           `json:"reason"`
	Detail   string           `json:"detail,omitempty"`  // until when it is held in, what was ordered
	Answers  []netip.Addr     `json:"answers,omitempty"` // of both families
	VIPs     []TargetSummary  `json:"vips,omitempty"`
	Backends []BackendSummary `json:"backends,omitempty"`
}

// A TargetSummary is the verdict on a VIP in a Summary.
type TargetSummary struct {
	Address netip.AddrPort `json:"address"`
	Status  string         `json:"status"`
	Why     string         `json:"why"`
	Since   time.Time      `json:"since,omitzero"`
}

// A BackendSummary is a BackendPlan and the verdict behind it in a Summary.
type BackendSummary struct {
	TargetSummary
	Active bool   `json:"active"`
	Reason Reason `json:"reason"`
	Order  string `json:"order,omitempty"` // on itself
}

// A RouteSummary is a Route in a Summary.
type RouteSummary struct {
	Prefix      netip.Prefix `json:"prefix"`
	Announce    bool         `json:"announce"`
	Reason      Reason       `json:"reason"`
	Blame       string       `json:"blame,omitempty"`
	Lacks       string       `json:"lacks,omitempty"`
	Order       string       `json:"order,omitempty"`
	Communities []string     `json:"communities,omitempty"`
}

// Summary describes the whole plan. It allocates in proportion to the config.
func (p *Plan) Summary() *Summary {
	t := p.Topology
	s := &Summary{
		Generation: p.Generation, Config: fmt.Sprintf("%016x", t.Config.Hash),
		Fingerprint: fmt.Sprintf("%016x", p.Fingerprint()), Node: t.Self, At: p.Facts.Now, Ready: p.Facts.Ready,
		AssumeDown: p.Facts.AssumeDown, Notes: p.Notes(), Recheck: p.Recheck,
		Services: make([]ServiceSummary, len(p.Services)), Routes: make([]RouteSummary, len(p.Routes)),
	}
	if t.SelfSite >= 0 {
		s.Site = t.Config.Sites[t.SelfSite].Name
	}
	for _, order := range p.Facts.Overrides {
		s.Orders = append(s.Orders, orderText(order, p.Facts.Now))
	}
	for i := range p.Services {
		s.Services[i] = p.ServiceSummary(i)
	}
	for i, r := range p.Routes {
		s.Routes[i] = RouteSummary{Prefix: r.Prefix, Announce: r.Announce, Reason: r.Why, Blame: r.Blame, Lacks: r.Lacks, Order: p.routeOrder(i)}
		for _, c := range r.Communities {
			s.Routes[i].Communities = append(s.Routes[i].Communities, fmt.Sprintf("%d:%d", c>>16, c&0xffff))
		}
	}
	return s
}

// ServiceSummary describes one service, by its index.
func (p *Plan) ServiceSummary(service int) ServiceSummary {
	t := p.Topology
	s, sp := &t.Services[service], &p.Services[service]
	out := ServiceSummary{
		Service: s.Config.Name, FailOpen: sp.FailOpen, Degraded: sp.Degraded, Sites: make([]SiteSummary, len(s.Sites)),
	}
	j := newJudgement(t, p.View, Facts{})
	for i := range s.Sites {
		plan := &sp.Sites[i]
		site := SiteSummary{Site: t.SiteName(service, i), Eligible: plan.Eligible, Reason: plan.Why}
		excuse := p.excuse(service, i, false)
		if excuse == "" {
			excuse = p.excuse(service, i, true)
		}
		site.Detail = joinParts(excuse, p.siteOrder(service, i))
		site.Answers = append(append(site.Answers, plan.V4.Addresses...), plan.V6.Addresses...)
		for _, target := range s.Sites[i].VIPs {
			site.VIPs = append(site.VIPs, j.summary(target))
		}
		for b, target := range s.Sites[i].Backends {
			site.Backends = append(site.Backends, BackendSummary{
				j.summary(target), plan.Backends[b].Active, plan.Backends[b].Why, p.backendOrder(service, i, b),
			})
		}
		out.Sites[i] = site
	}
	return out
}

func (j *judgement) summary(target int) TargetSummary {
	v := j.verdict(target)
	status := v.Status
	if status == health.StatusNone {
		status = health.StatusUnknown // silence, too, is "unknown" to operators
	}
	return TargetSummary{Address: j.t.Layout.Targets[target].Addr, Status: status.String(), Why: v.Why.String(), Since: v.Since}
}

// Fingerprint hashes what every node of the fleet has to decide alike: the
// config, the orders and each service's sites, addresses and backends, with the reasons. Generation,
// times, who gave an order and this node's routes and weights are not in it.
func (p *Plan) Fingerprint() uint64 {
	f := fingerprint{h: fnv.New64a()}
	f.number(p.Topology.Config.Hash)
	f.number(uint64(len(p.Facts.Overrides)))
	for i := range p.Facts.Overrides {
		f.text(p.Facts.Overrides[i].Scope.String())
		f.number(uint64(p.Facts.Overrides[i].Order))
	}
	for i := range p.Services {
		sp := &p.Services[i]
		f.flags(sp.FailOpen, sp.Degraded)
		f.number(uint64(len(sp.Sites)))
		for s := range sp.Sites {
			site := &sp.Sites[s]
			f.flags(site.Eligible)
			f.number(uint64(site.Why))
			f.answer(&site.V4)
			f.answer(&site.V6)
			f.number(uint64(len(site.Backends)))
			for _, b := range site.Backends {
				f.flags(b.Active)
				f.number(uint64(b.Why))
			}
		}
	}
	return f.h.Sum64()
}

// A fingerprint writes values to a hash, each of fixed length or after its length.
type fingerprint struct {
	h   hash.Hash64
	buf [16]byte
}

func (f *fingerprint) number(n uint64) {
	binary.BigEndian.PutUint64(f.buf[:8], n)
	f.h.Write(f.buf[:8])
}

func (f *fingerprint) text(t string) {
	f.number(uint64(len(t)))
	f.h.Write([]byte(t))
}

func (f *fingerprint) flags(flags ...bool) {
	for _, set := range flags {
		f.buf[0] = 0
		if set {
			f.buf[0] = 1
		}
		f.h.Write(f.buf[:1])
	}
}

func (f *fingerprint) answer(a *AnswerPlan) {
	f.number(uint64(a.Why))
	f.number(uint64(len(a.Addresses)))
	for _, addr := range a.Addresses {
		f.buf = addr.As16()
		f.h.Write(f.buf[:])
	}
}
