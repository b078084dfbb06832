package dnslb

import (
	"bytes"
	"math/rand/v2"
	"net/netip"

	"github.com/pharos-lb/pharos/dnslb/wire"
	"github.com/pharos-lb/pharos/dnslb/zone"
	"github.com/pharos-lb/pharos/internal/steer"
)

// maxChain bounds the aliases (CNAME, DNAME) that one response follows.
const maxChain = 8

// A responder turns queries into responses. It belongs to one goroutine, which
// uses it for one query at a time; everything in it is scratch space.
type responder struct {
	server *Server
	count  *counters

	q      wire.Query
	b      wire.Builder
	set    *Tunables
	client netip.Addr
	reply  wire.Reply
	// extended is the RFC 8914 code that explains reply.Rcode.
	extended uint16

	// at is the name that the query has got to over aliases, owner where it
	// stands in the response.
	at    *wire.Name
	owner wire.Owner
	// hops counts the aliases, targets are what they led to and via the names
	// that own them; first is the response after the first of them.
	hops    int
	targets [maxChain]wire.Name
	via     [maxChain]zone.Node
	first   wire.Mark

	services bindings
	random   rand.PCG
	express  express
}

// newResponder makes a responder that counts in count.
func newResponder(s *Server, count *counters) *responder {
	r := &responder{server: s, count: count}
	r.random.Seed(rand.Uint64(), rand.Uint64())
	return r
}

// Respond answers one message. It is the only writer of responses: every way
// through it ends in Finish or in a counted drop.
func (r *responder) Respond(dst, msg []byte, client netip.AddrPort, tcp bool) (out []byte) {
	defer func() {
		if p := recover(); p != nil { // never seen, and never worth more than one query
			r.server.panicked(p)
			r.count.dropped[dropPanic].Add(1)
			out = dst[:0]
		}
	}()
	if out = r.fast(dst, msg, client, tcp); len(out) > 0 {
		return out
	}
	r.count.queries[transportOf(tcp)].Add(1)
	rcode, ok := wire.Parse(msg, &r.q)
	switch {
	case !ok:
		r.count.dropped[dropMalformed].Add(1)
		return dst[:0]
	case client.Port() == 0: // nobody can be there: it would be reflected
		r.count.dropped[dropPort].Add(1)
		return dst[:0]
	}
	r.set = r.server.tunables.Load()
	r.client = client.Addr()
	r.reply, r.extended = wire.Reply{Rcode: rcode}, 0
	options := wire.Options{Subnet: r.set.ECS && r.q.HasECS}
	size := int(min(r.q.UDPSize, r.set.UDPSize))
	if tcp {
		size = wire.MaxMessage
		if r.q.Keepalive {
			options.Keepalive = r.set.TCPIdle
		}
	}
	if r.q.NSID {
		options.NSID = r.set.ServerID
	}
	if rcode == wire.NoError && (options.Subnet && r.q.BadECS() || tcp && r.q.BadKeepalive()) {
		r.reply.Rcode = wire.FormErr
	}
	r.b.Begin(dst, &r.q, size)
	r.b.Reserve(options)
	if r.reply.Rcode == wire.NoError {
		r.answer()
	}
	switch r.reply.Rcode {
	case wire.NoError, wire.NXDomain, wire.YXDomain:
	default: // nothing was tailored, and nothing is to be cached by subnet
		options.Subnet = false
		options.Extended = r.extended
		options.UnknownKey = r.reply.Rcode == wire.NotAuth
	}
	if r.b.Truncated() {
		r.count.truncated.Add(1)
	}
	r.count.response(r.reply.Rcode)
	return r.b.Finish(r.reply, options, r.set.UDPSize)
}

// Lost counts a response that could not be sent.
func (r *responder) Lost() { r.count.dropped[dropSend].Add(1) }

// fail gives up what has been added in favour of an error.
func (r *responder) fail(rcode wire.Rcode, extended uint16, start wire.Mark) {
	r.b.Rewind(start)
	r.reply = wire.Reply{Rcode: rcode}
	r.extended = extended
}

// answer finds out what the question asks of us and fills in the response.
func (r *responder) answer() {
	switch {
	case r.q.TSIG: // we share no keys with anybody (RFC 8945 5.2.1)
		r.reply.Rcode = wire.NotAuth
	case r.q.Class == wire.ClassCH:
		r.chaos()
	case r.q.Class != wire.ClassIN, r.q.Type == wire.TypeAXFR, r.q.Type == wire.TypeIXFR:
		r.reply.Rcode, r.extended = wire.Refused, wire.ExtendedNotSupported
	default:
		serving := r.server.zones.Load()
		r.services.begin(serving)
		r.resolve(serving.zones)
	}
}

// resolve follows the question through the zones (RFC 1034 4.3.2).
func (r *responder) resolve(zones *zone.Set) {
	start := r.b.Mark()
	r.at, r.owner, r.hops = &r.q.Name, wire.QuestionOwner, 0
	for {
		m := zones.Find(r.at, r.q.Type)
		if m.Kind == zone.NotOurs {
			if r.hops == 0 {
				r.reply.Rcode, r.extended = wire.Refused, wire.ExtendedNotAuthoritative
			}
			return
		}
		if r.hops == 0 {
			r.reply.Authoritative = m.Kind != zone.Delegated
		}
		follow := false
		switch m.Kind {
		case zone.Delegated:
			r.refer(&m.Node)
		case zone.Missing:
			r.reply.Rcode = wire.NXDomain
			r.negative(m.Node.Zone)
		case zone.Renamed:
			follow = r.rename(&m.Node)
		default:
			follow = r.node(&m.Node, start)
		}
		if !follow {
			return
		}
	}
}

// node answers at a name that exists. It reports whether an alias has to be
// followed.
func (r *responder) node(n *zone.Node, start wire.Mark) (follow bool) {
	rtype := r.q.Type
	if n.Steered != nil && (rtype == wire.TypeA || rtype == wire.TypeAAAA) {
		r.steered(n, start)
		return false
	}
	set := n.RRset(rtype)
	if set.Count == 0 && rtype != wire.TypeCNAME {
		set = n.RRset(wire.TypeCNAME)
		follow = set.Count > 0 && rtype != wire.TypeANY
	}
	if rtype == wire.TypeANY && set.Count == 0 && !n.Empty() {
		r.add(wire.Answer, &minimalANY, r.owner)
		return false
	}
	if set.Count == 0 {
		r.negative(n.Zone)
		return false
	}
	offset := r.b.Offset()
	if !r.add(wire.Answer, &set, r.owner) {
		return false
	}
	return follow && r.moveTo(n, offset)
}

// minimalANY is what any name that exists answers to ANY (RFC 8482 4.2).
var minimalANY = zone.RRset{
	Type: wire.TypeHINFO, Count: 1,
	Records: []byte("\xc0\x0c\x00\x0d\x00\x01\x00\x00\x0e\x10\x00\x09\x07RFC8482\x00"),
}

// moveTo makes the data of the CNAME record at offset the name to look up; the
// record comes from n. It reports whether to: not where the query has been
// already, because a loop adds nothing but the same records again, and not
// after maxChain aliases.
func (r *responder) moveTo(n *zone.Node, offset int) bool {
	const fixed = 12 // pointer, type, class, TTL, length
	target := &r.targets[r.hops]
	if _, ok := target.Set(r.b.Since(offset + fixed)); !ok || bytes.Equal(target.From(0), r.q.Name.From(0)) {
		return false
	}
	for i := range r.hops {
		if bytes.Equal(target.From(0), r.targets[i].From(0)) {
			return false
		}
	}
	r.via[r.hops] = *n
	r.at, r.owner = target, wire.Owner(offset+fixed)
	if r.hops++; r.hops == maxChain {
		return false
	}
	if r.hops == 1 {
		r.first = r.b.Mark()
	}
	return true
}

// rename answers below a DNAME with it and the CNAME that follows from it
// (RFC 6672).
func (r *responder) rename(n *zone.Node) (follow bool) {
	set := n.RRset(wire.TypeDNAME)
	cut := r.at.Start(r.at.Labels() - n.Labels)
	seen := false
	for i := range r.hops {
		seen = seen || r.via[i].Same(n)
	}
	if !seen && !r.add(wire.Answer, &set, r.owner+wire.Owner(cut)) {
		return false // each record stands in a response once (RFC 2181 5)
	}
	target := set.Data()
	if cut+len(target) > wire.MaxName {
		r.reply.Rcode = wire.YXDomain
		return false
	}
	offset := r.b.Offset()
	if !r.b.Alias(r.owner, cut, target, set.TTL()) {
		r.b.Truncate()
		return false
	}
	return r.q.Type != wire.TypeCNAME && r.q.Type != wire.TypeANY && r.moveTo(n, offset)
}

// refer points to the servers of a delegated zone.
func (r *responder) refer(n *zone.Node) {
	ref := n.Referral()
	owner := r.owner + wire.Owner(r.at.Start(r.at.Labels()-n.Labels))
	if ref.NS.Count == 0 || !r.add(wire.Authority, &ref.NS, owner) {
		return
	}
	if ref.RequiredCount > 0 && !r.b.Raw(wire.Additional, ref.Required, ref.RequiredCount) {
		r.b.Truncate()
		return
	}
	if ref.OptionalCount > 0 {
		r.b.Raw(wire.Additional, ref.Optional, ref.OptionalCount) // or without
	}
}

// negative adds the zone's SOA, which says how long the absence may be cached.
func (r *responder) negative(z *zone.Zone) {
	owner := r.owner + wire.Owner(r.at.Start(r.at.Labels()-z.Labels))
	r.add(wire.Authority, &z.Negative, owner)
}

// add adds a whole record set, with its signatures if they are wanted, or truncates.
func (r *responder) add(s wire.Section, set *zone.RRset, owner wire.Owner) bool {
	before := r.b.Mark()
	if r.b.RRset(s, owner, set.Records, set.Count) {
		if !r.q.DO || set.SignatureCount == 0 || r.b.RRset(s, owner, set.Signatures, set.SignatureCount) {
			return true
		}
		r.b.Rewind(before)
	}
	r.b.Truncate()
	return false
}

// steered answers A or AAAA from the newest plan. That the name and the type
// exist depends on neither the client nor anybody's health.
func (r *responder) steered(n *zone.Node, start wire.Mark) {
	plan := r.server.board.Load()
	if plan == nil {
		r.fail(wire.ServFail, wire.ExtendedNotReady, start)
		return
	}
	bound, plan := r.services.of(n.Steered.Index, plan, r.server.board)
	if bound.service < 0 { // no plan has ever known the service
		r.fail(wire.ServFail, wire.ExtendedNotReady, start)
		return
	}
	ipv6 := r.q.Type == wire.TypeAAAA
	service := &plan.Topology.Services[bound.service]
	addrs := service.Anycast(ipv6)
	random := r.random.Uint64()
	if !bound.anycast {
		if service.Placed && r.tailoring() && r.hops > 0 {
			// The alias is everybody's, the addresses are not: only the alias may be
			// cached as one answer, so the resolver asks again for the rest (RFC 7871 7.2.1).
			r.b.Rewind(r.first)
			return
		}
		addrs = r.pick(plan, service, int(bound.service), ipv6, uint32(random>>32))
	}
	if len(addrs) == 0 {
		r.reply.Scope = 0
		r.negative(n.Zone)
		return
	}
	before := r.b.Mark()
	if !r.b.Addresses(r.owner, ipv6, bound.ttl, addrs, int(uint32(random))%len(addrs)) {
		r.b.Truncate()
		return
	}
	if !r.q.DO {
		return
	}
	if signed := n.Steered.Signed(addrs); signed != nil {
		offset := r.b.Offset()
		if !r.b.RRset(wire.Answer, r.owner, signed.Records, signed.Count) {
			r.b.Rewind(before)
			r.b.Truncate()
			return
		}
		wire.SetTTL(r.b.Since(offset), bound.ttl)
	}
}

// tailoring reports whether the client's network is known by its option.
func (r *responder) tailoring() bool {
	return r.set.ECS && r.q.HasECS && r.q.ECS.Source > 0
}

// pick returns the addresses of the site that the client gets, and sets the
// scope of the response to the prefix that decided.
func (r *responder) pick(plan *steer.Plan, service *steer.Service, index int, ipv6 bool, random uint32) []netip.Addr {
	if !service.Has(ipv6) {
		return nil
	}
	addr, tailored := r.client, r.tailoring()
	if tailored {
		addr = r.q.ECS.Addr
	}
	addrs, scope := locate(plan, service, index, ipv6, addr, tailored, random)
	if service.Placed && tailored {
		r.reply.Scope = scope
	}
	return addrs
}

// locate returns the addresses of the site that a client gets, and the scope of
// an answer that is tailored to its network.
func locate(plan *steer.Plan, service *steer.Service, index int, ipv6 bool, client netip.Addr, tailored bool, random uint32) (addrs []netip.Addr, scope uint8) {
	class, length := plan.Topology.Locate(client)
	if service.Placed && tailored {
		if client.Is4In6() {
			length += 96 // the table speaks of the IPv4 address within
		}
		scope = uint8(min(length, client.BitLen()))
	}
	return plan.Addresses(index, plan.Pick(index, class, ipv6, random), ipv6), scope
}
