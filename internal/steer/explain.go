package steer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
)

// Question is what Explain explains.
type Question struct {
	Name string // with or without the trailing dot, in any case
	IPv6 bool
	// From is the client; zero = Where says where it is.
	From   netip.Addr
	Prefix int // ECS source prefix length; 0 = full
	// Where is read if From is zero: an address, a prefix, "DE", "US-CA", "continent:EU",
	// "network:office", or "" for an unknown place.
	Where string
}

// An Explanation is the whole trace of one answer, for people (WriteTo) and for programs (JSON).
type Explanation struct {
	Name       string `json:"name"`
	Type       string `json:"type"`              // A or AAAA
	Matched    string `json:"matched,omitempty"` // the wildcard that answers
	Service    string `json:"service"`
	Anycast    bool   `json:"anycast,omitempty"` // answered with anycast addresses, not steered
	Node       string `json:"node,omitempty"`
	Generation uint64 `json:"generation"`
	Config     string `json:"config"` // its hash

	Client Client          `json:"client"`
	Steps  []ExplainedStep `json:"steps,omitempty"`
	Sites  []ExplainedSite `json:"sites"`            // in the order of preference
	Routes []ExplainedPath `json:"routes,omitempty"` // for anycast: this node's prefixes that carry the addresses

	Answer   []netip.Addr `json:"answer"`           // with several chosen sites, of the first
	NoData   string       `json:"nodata,omitempty"` // why the answer is empty
	TTL      uint32       `json:"ttl"`              // seconds
	TTLWhy   string       `json:"ttl_why,omitempty"`
	Scope    int          `json:"scope"` // ECS scope prefix length
	ScopeWhy string       `json:"scope_why,omitempty"`
	FailOpen bool         `json:"fail_open,omitempty"`
	Notes    []string     `json:"notes,omitempty"` // Plan.Notes
}

// A Client is who asks, and how we know where that is.
type Client struct {
	Source    string    `json:"source,omitempty"` // the address or prefix
	Network   string    `json:"network,omitempty"`
	Country   string    `json:"country,omitempty"`
	Region    string    `json:"region,omitempty"`
	Continent string    `json:"continent,omitempty"`
	ASN       uint32    `json:"asn,omitempty"`
	Point     geo.Point `json:"point,omitzero"`
	Prefix    string    `json:"prefix,omitempty"` // that the data gives the place to
	Data      string    `json:"data,omitempty"`   // the name of the data
	Built     time.Time `json:"built,omitzero"`
	Age       string    `json:"age,omitempty"` // of the data
}

// An ExplainedStep is what one step of the policy did: the sites, best first,
// in groups that were still tied after it.
type ExplainedStep struct {
	Policy string           `json:"policy"`
	Note   string           `json:"note,omitempty"`
	Groups []ExplainedGroup `json:"groups"`
}

// An ExplainedGroup is sites that a step left tied, and the value that they share.
type ExplainedGroup struct {
	Value string   `json:"value"`
	Sites []string `json:"sites"`
}

// An ExplainedSite is what became of one site.
type ExplainedSite struct {
	Site      string       `json:"site"`
	Chosen    bool         `json:"chosen"`
	Share     float64      `json:"share,omitempty"` // of the answers, 0 … 1
	Eligible  bool         `json:"eligible"`        // for the family asked
	Reason    Reason       `json:"reason"`
	Detail    string       `json:"detail,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// An ExplainedPath is a route that carries an anycast address.
type ExplainedPath struct {
	Prefix    netip.Prefix `json:"prefix"`
	Announced bool         `json:"announced"`
	Reason    Reason       `json:"reason"`
	Blame     string       `json:"blame,omitempty"`
	Lacks     string       `json:"lacks,omitempty"` // what else this node lacks for it
	Order     string       `json:"order,omitempty"` // what was ordered, by whom, when and why
}

// A NotSteeredError says that a name is not one of the steered names.
type NotSteeredError struct {
	Name    string
	Nearest []string // steered names that look like it, at most 3
}

func (e *NotSteeredError) Error() string {
	if len(e.Nearest) == 0 {
		return fmt.Sprintf("explain %s: not a steered name", e.Name)
	}
	return fmt.Sprintf("explain %s: not a steered name; did you mean %s?", e.Name, strings.Join(e.Nearest, " or "))
}

// Explain traces one answer of a plan. It fails with a *NotSteeredError if no steered name or wildcard
// has the name, and if Where is not a place. A family that the service has no address of is no error: NoData says so.
func Explain(p *Plan, q Question) (*Explanation, error) {
	fqdn := strings.ToLower(strings.TrimSuffix(q.Name, ".")) + "."
	name, ok := p.Topology.Name(fqdn)
	if !ok {
		return nil, &NotSteeredError{Name: fqdn, Nearest: nearest(fqdn, p.Topology.steeredNames(), 3)}
	}
	from, err := p.Topology.questionOrigin(q)
	if err != nil {
		return nil, fmt.Errorf("explain %s: %w", fqdn, err)
	}
	return p.explain(fqdn, name, q.IPv6, from), nil
}

func (t *Topology) questionOrigin(q Question) (origin, error) {
	switch {
	case q.From.IsValid():
		return t.addressOrigin(q.From, q.Prefix)
	case q.Where != "":
		return t.parseOrigin(q.Where)
	}
	return origin{}, nil
}

// steeredNames returns every steered name in the order of the config.
func (t *Topology) steeredNames() []string {
	var names []string
	for z := range t.Config.Zones {
		for n := range t.Config.Zones[z].Names {
			names = append(names, t.Config.Zones[z].Names[n].FQDN)
		}
	}
	return names
}

func (p *Plan) explain(fqdn string, name *config.Name, ipv6 bool, from origin) *Explanation {
	t := p.Topology
	e := &Explanation{
		Name: fqdn, Type: "A", Service: name.Service, Anycast: name.Anycast, Node: t.Self,
		Generation: p.Generation, Config: fmt.Sprintf("%016x", t.Config.Hash),
		Client: t.client(from, p.Facts.Now), Notes: p.Notes(),
	}
	if ipv6 {
		e.Type = "AAAA"
	}
	if name.FQDN != fqdn {
		e.Matched = name.FQDN
	}
	service := t.services[name.Service]
	if name.Anycast {
		p.explainAnycast(e, service, ipv6)
	} else {
		p.explainSteered(e, service, ipv6, from)
	}
	e.TTL = p.TTL(name)
	if full := uint32(name.TTL / time.Second); e.TTL < full {
		e.TTLWhy = fmt.Sprintf("half of %ds while %s", full, p.Services[service].unfit())
	}
	return e
}

// unfit says what makes a service degraded.
func (sp *ServicePlan) unfit() string {
	var found [reasonCount]bool
	for i := range sp.Sites {
		found[sp.Sites[i].V4.Why], found[sp.Sites[i].V6.Why] = true, true
	}
	switch {
	case found[ReasonVIPDown] || found[ReasonBackendsDown] || found[ReasonAssumedDown] || found[ReasonNoEvidence]:
		return "a site is out for its health"
	case found[ReasonDrained] || found[ReasonOrderedDown]:
		return "a site is out by order"
	case found[ReasonFailOpen] || found[ReasonMinimum] || found[ReasonBudget] || found[ReasonMassFailure]:
		return "a site is in that is not fit"
	}
	return "an address is out for its health"
}

// client describes where a question comes from.
func (t *Topology) client(o origin, now time.Time) Client {
	c := Client{
		Network: o.place.Network, Country: o.place.Country, Region: o.place.Region,
		Continent: o.place.Continent, ASN: o.place.ASN, Point: o.place.Point,
	}
	if !o.addr.IsValid() {
		return c
	}
	c.Source = o.source.String()
	if o.source.IsSingleIP() {
		c.Source = o.addr.String()
	}
	if o.prefix.IsValid() {
		c.Prefix = o.prefix.String()
	}
	if t.Geo != nil {
		info := t.Geo.Info()
		c.Data, c.Built = info.Name, info.Built
		if !now.IsZero() && now.After(info.Built) {
			c.Age = ageText(now.Sub(info.Built))
		}
	}
	return c
}

func (p *Plan) explainSteered(e *Explanation, service int, ipv6 bool, from origin) {
	t := p.Topology
	s, sp := &t.Services[service], &p.Services[service]
	prof := &t.profiles[s.Profile]
	o := t.orderFrom(s.Profile, from)
	e.Steps = t.explainSteps(prof, from.place)
	shares := sp.shares(prof, o, ipv6)
	d := details{p: p, j: p.judgement(), s: s}
	for _, position := range o.positions {
		e.Sites = append(e.Sites, d.site(int(position), ipv6))
	}
	for i, position := range o.positions {
		site := &e.Sites[i]
		k := slices.IndexFunc(shares, func(s Share) bool { return s.Position == int(position) })
		switch {
		case k >= 0:
			site.Chosen, site.Share = true, shares[k].Probability
		case site.Eligible && site.Reason == ReasonNone && prof.weights != nil && prof.weights[position] == 0:
			site.Reason = ReasonWeightZero
		case site.Eligible && site.Reason == ReasonNone:
			site.Reason = ReasonNotPreferred
		}
		e.FailOpen = e.FailOpen || sp.Sites[position].answer(ipv6).Why == ReasonFailOpen
	}
	if len(shares) > 0 {
		e.Answer = p.Addresses(service, shares[0].Position, ipv6)
	} else {
		e.NoData = fmt.Sprintf("no site of service %s has an address for %s, whatever its health", s.Config.Name, e.Type)
	}
	e.explainScope(t, s, from)
}

// explainScope says for which clients the answer holds (RFC 7871).
func (e *Explanation) explainScope(t *Topology, s *Service, from origin) {
	switch {
	case !s.Placed:
		e.ScopeWhy = "the answer is the same for every place"
	case from.addr.IsValid():
		_, e.Scope = t.Locate(from.addr)
		if e.Scope > from.source.Bits() {
			e.ScopeWhy = fmt.Sprintf("places differ within %s", from.source)
		}
	default:
		e.ScopeWhy = "asked from a place, not from an address"
	}
}

func (p *Plan) explainAnycast(e *Explanation, service int, ipv6 bool) {
	s := &p.Topology.Services[service]
	e.Answer = s.Anycast(ipv6)
	e.ScopeWhy = "the answer is the same for every place"
	if len(e.Answer) == 0 {
		e.NoData = fmt.Sprintf("service %s has no anycast address for %s", s.Config.Name, e.Type)
	}
	d := details{p: p, j: p.judgement(), s: s}
	for position := range s.Sites {
		e.Sites = append(e.Sites, d.pool(position))
	}
	for i, r := range p.Routes {
		if slices.ContainsFunc(e.Answer, r.Prefix.Contains) {
			e.Routes = append(e.Routes, ExplainedPath{r.Prefix, r.Announce, r.Why, r.Blame, r.Lacks, p.routeOrder(i)})
		}
	}
}
