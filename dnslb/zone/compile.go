package zone

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/pharos-lb/pharos/dnslb/wire"
)

// Compile makes a Set of zones. The error joins an [*Error] for each mistake in
// any of them; what is odd but can be served becomes a warning of the Set. The
// result is the same for the same specs in whatever order. No specs make an
// empty Set, which knows no name.
func Compile(specs []Spec) (*Set, error) {
	b := &builder{set: new(Set), nodes: make(map[string]*node)}
	drafts := make([]*draft, 0, len(specs))
	errs := make([]error, 0, len(specs))
	apexes := make(map[string]*draft, len(specs))
	total, left := 0, newBudget()
	for i := range specs {
		spec := specs[i]
		spec.Name = strings.ToLower(dns.Fqdn(spec.Name))
		spec.Steered = slices.Clone(spec.Steered)
		rep := newReport(&spec)
		d := newDraft(&spec, rep, left)
		drafts = append(drafts, d)
		total += d.records
		if other := apexes[d.apex]; d.apex != "" && other != nil {
			rep.errorf(0, "zone %s is defined twice (also in %s)", spec.Name, other.rep.file)
		}
		apexes[d.apex] = d
	}
	slices.SortStableFunc(drafts, func(a, b *draft) int { return strings.Compare(a.spec.Name, b.spec.Name) })
	if total > MaxRecords {
		errs = append(errs, fmt.Errorf("zones: %d records in all, over the limit of %d", total, MaxRecords))
	}
	for _, d := range drafts {
		if d.apex != "" {
			d.check(apexes)
			b.install(d)
		}
		if err := d.rep.err(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	b.link()
	if err := b.seal(); err != nil {
		return nil, err
	}
	b.checkLoops(drafts)
	set := b.set
	for _, d := range drafts {
		for _, w := range d.rep.warnings {
			set.warnings = append(set.warnings, w.Error())
		}
	}
	return set, nil
}

// Parse compiles one zone: a convenience for validation and tests.
func Parse(name, master, file string) (*Set, error) {
	return Compile([]Spec{{Name: name, Master: master, MasterFile: file}})
}

// check applies the rules that need the whole zone, and removes what must
// never be answered.
func (d *draft) check(apexes map[string]*draft) {
	d.authority()
	for apex := range apexes {
		if apex != d.apex && apex != "" && under(apex, d.apex) {
			if d.entries[apex] == nil {
				d.entries[apex] = new(entry)
			}
			d.entries[apex].implied = true
		}
	}
	d.sort()
	for _, n := range d.order {
		d.checkName(n.key, n.entry)
	}
	// From the deepest up, so that the cuts still stand when glue is judged.
	for _, n := range slices.Backward(d.order) {
		d.occlude(n.key, n.entry)
	}
}

// checkName applies the rules on what may stand together at one name.
func (d *draft) checkName(key string, e *entry) {
	if soa := e.set(wire.TypeSOA); soa != nil && key != d.apex {
		d.rep.errorf(soa.line, "SOA record at %s: it belongs at %s", text(key), d.spec.Name)
	}
	cname, dname := e.set(wire.TypeCNAME), e.set(wire.TypeDNAME)
	if cname != nil {
		switch {
		case cname.Count > 1:
			d.rep.errorf(cname.line, "%s has %d CNAME records: one is allowed", text(key), cname.Count)
		case len(e.sets) > 1:
			d.rep.errorf(cname.line, "%s has a CNAME and other records (RFC 1034 3.6.2)", text(key))
		}
	}
	if dname != nil && dname.Count > 1 {
		d.rep.errorf(dname.line, "%s has %d DNAME records: one is allowed", text(key), dname.Count)
	}
	if strings.HasPrefix(key, "\x01*") {
		if ns := e.set(wire.TypeNS); ns != nil {
			d.rep.errorf(ns.line, "NS records at the wildcard %s: delegate each name (RFC 4592 4.2)", text(key))
		}
		if dname != nil {
			d.rep.errorf(dname.line, "DNAME record at the wildcard %s (RFC 4592 4.4)", text(key))
		}
	}
	if e.steered == nil {
		return
	}
	for _, rtype := range []uint16{wire.TypeA, wire.TypeAAAA, wire.TypeCNAME} {
		if s := e.set(rtype); s != nil {
			d.rep.errorf(s.line, "%s is steered (service %s) and has %s records here: remove one of them",
				text(key), e.steered.Service, dns.Type(rtype))
		}
	}
	if d.cut(key, e) {
		d.rep.errorf(e.line(), "%s is steered, but delegated to other servers", text(key))
	}
}

// cut reports whether the zone ends at e.
func (d *draft) cut(key string, e *entry) bool {
	return key != d.apex && (e.implied || e.set(wire.TypeNS) != nil)
}

// occlude removes what lies under a cut or a DNAME, or beside a cut. Addresses
// stay until referrals have been made of them.
func (d *draft) occlude(key string, e *entry) {
	cover := d.cover(key)
	if cover == "" && !d.cut(key, e) {
		return
	}
	if cover != "" && e.steered != nil {
		d.rep.errorf(0, "steered name %s can never be answered: %s is delegated or renamed", text(key), text(cover))
	}
	for i := range e.sets {
		s := &e.sets[i]
		glue := s.Type == wire.TypeA || s.Type == wire.TypeAAAA
		if glue || cover == "" && (s.Type == wire.TypeNS || s.Type == wire.TypeDS) {
			continue
		}
		below := text(key)
		if cover != "" {
			below = text(cover)
		}
		d.rep.warnf(s.line, "%s %s is never answered: %s is delegated or renamed", text(key), dns.Type(s.Type), below)
	}
}

// cover returns the nearest name above key where the zone ends or is renamed,
// "" if key is authoritative.
func (d *draft) cover(key string) string {
	found := ""
	for d.covers && key != d.apex {
		key = parent(key)
		if e := d.entries[key]; e != nil && (d.cut(key, e) || e.set(wire.TypeDNAME) != nil) {
			found = key
		}
	}
	return found
}

// install moves a checked draft into the set.
func (b *builder) install(d *draft) {
	s := b.set
	z := &Zone{Name: d.spec.Name, Labels: labels(d.apex), Records: d.records}
	s.zones = append(s.zones, z)
	if soa := d.entries[d.apex].set(wire.TypeSOA); soa != nil {
		z.Negative = negative(&soa.RRset)
		z.Serial = binary.BigEndian.Uint32(soa.Records[len(soa.Records)-20:])
	}
	for _, named := range d.order {
		key, e := named.key, named.entry
		if d.cover(key) != "" {
			continue
		}
		n := &node{zone: z, labels: labels(key)}
		if d.cut(key, e) {
			n.referral = d.referral(key, e)
			if ds := e.set(wire.TypeDS); ds != nil {
				n.sets = []RRset{ds.RRset}
			}
		} else {
			n.sets = make([]RRset, len(e.sets))
			for i := range e.sets {
				n.sets[i] = e.sets[i].RRset
			}
			d.checkTargets(key, e)
		}
		if e.steered != nil {
			n.steered = e.steered
			n.steered.Index = len(s.steered)
			s.steered = append(s.steered, n.steered)
		}
		b.put(key, d.apex, n)
	}
}

// put adds a node and the empty non-terminals between it and its apex. Where a
// parent's cut and the child's apex meet, the child's apex answers and keeps
// the cut behind it.
func (b *builder) put(key, apex string, n *node) {
	switch old := b.nodes[key]; {
	case old == nil || old.zone == n.zone:
		b.nodes[key] = n
	case n.referral != nil:
		old.above = n
	default:
		n.above = old
		b.nodes[key] = n
	}
	for key != apex {
		key = parent(key)
		if b.nodes[key] != nil {
			return
		}
		b.nodes[key] = &node{zone: n.zone, labels: labels(key)}
	}
}

// link finds the wildcards and the depth once every node is there.
func (b *builder) link() {
	for key, n := range b.nodes {
		b.set.deepest = max(b.set.deepest, n.labels)
		if strings.HasPrefix(key, "\x01*") {
			if above := b.nodes[parent(key)]; above != nil && above.zone == n.zone {
				above.wild = n
			}
		}
	}
}

// checkTargets warns of name servers of the zone itself that cannot be reached.
func (d *draft) checkTargets(key string, e *entry) {
	ns := e.set(wire.TypeNS)
	if ns == nil {
		return
	}
	for r := range ns.each {
		name, ok := target(r, 0)
		if !ok || !under(name, d.apex) {
			continue
		}
		at := d.entries[name]
		if at != nil && at.set(wire.TypeCNAME) != nil {
			d.rep.warnf(ns.line, "name server %s of %s is an alias (CNAME), which resolvers refuse", text(name), text(key))
		} else if at == nil || at.steered == nil && at.set(wire.TypeA) == nil && at.set(wire.TypeAAAA) == nil {
			d.rep.warnf(ns.line, "name server %s of %s has no address in the zone", text(name), text(key))
		}
	}
}

// referral compiles what the cut at key answers.
func (d *draft) referral(key string, e *entry) *Referral {
	r := new(Referral)
	ns := e.set(wire.TypeNS)
	if ns == nil {
		return r
	}
	r.NS = ns.RRset
	for record := range ns.each {
		name, ok := target(record, 0)
		if !ok {
			continue
		}
		required := under(name, key)
		at := d.entries[name]
		var glue []byte
		count := 0
		for _, rtype := range []uint16{wire.TypeA, wire.TypeAAAA} {
			if at == nil || at.set(rtype) == nil {
				continue
			}
			for g := range at.set(rtype).each {
				glue = append(append(glue, name...), g[2:]...)
				count++
			}
		}
		switch {
		case required && count == 0:
			d.rep.warnf(ns.line, "glue missing: %s is served by %s, which has no address here", text(key), text(name))
		case required:
			r.Required = append(r.Required, glue...)
			r.RequiredCount += count
		default:
			r.Optional = append(r.Optional, glue...)
			r.OptionalCount += count
		}
	}
	return r
}

// negative copies an SOA set with the TTL of negative answers.
func negative(soa *RRset) RRset {
	n := RRset{Type: soa.Type, Count: soa.Count, Records: slices.Clone(soa.Records)}
	ttl := min(binary.BigEndian.Uint32(n.Records[6:]), binary.BigEndian.Uint32(n.Records[len(n.Records)-4:]))
	n.setTTL(ttl)
	if soa.SignatureCount > 0 {
		signed := RRset{Records: slices.Clone(soa.Signatures)}
		signed.setTTL(ttl)
		n.SignatureCount, n.Signatures = soa.SignatureCount, signed.Records
	}
	return n
}

func labels(key string) int {
	n := 0
	for ; len(key) > 1; key = parent(key) {
		n++
	}
	return n
}
