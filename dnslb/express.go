package dnslb

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/pharos-lb/pharos/dnslb/wire"
	"github.com/pharos-lb/pharos/dnslb/zone"
)

// An express is what the fast lane works with. Nearly every query takes this
// lane; what it does not know how to answer, it leaves to the general one as if it
// had not looked. Both give the same octets to the same query: TestLanesAgree.
type express struct {
	off bool // for tests: every query goes the general way
	q   *wire.Brief
	hit zone.Hit
	tally

	one   wire.Brief // of a query that Prefetch has not seen
	ahead ahead
}

// A tally counts for one goroutine between two calls of Flush, so that a query
// costs no atomic addition.
type tally struct {
	queries           [transports]uint32
	noerror, nxdomain uint32
}

// Flush adds what the fast lane has counted to the counters.
func (r *responder) Flush() {
	t := &r.express.tally
	for i, n := range t.queries {
		if n > 0 {
			r.count.queries[i].Add(uint64(n))
		}
	}
	if t.noerror > 0 {
		r.count.responses[wire.NoError].Add(uint64(t.noerror))
	}
	if t.nxdomain > 0 {
		r.count.responses[wire.NXDomain].Add(uint64(t.nxdomain))
	}
	*t = tally{}
}

// fast answers what it can; the result is empty where it cannot.
func (r *responder) fast(dst, msg []byte, client netip.AddrPort, tcp bool) []byte {
	e := &r.express
	set := r.server.tunables.Load()
	if e.off || client.Port() == 0 || !e.parse(msg, set) {
		return nil
	}
	serving := r.server.zones.Load()
	serving.zones.Express(&e.q.Name, e.q.Type, &e.hit)
	if !e.hit.Found {
		return nil
	}
	limit := int(min(e.q.UDPSize, set.UDPSize))
	if tcp {
		limit = wire.MaxMessage
	}
	var out []byte
	if e.hit.Steered >= 0 {
		out = r.fastSteered(dst, msg, client.Addr(), serving, limit)
	} else {
		out = r.fastRecords(dst, msg, limit)
	}
	if len(out) == 0 {
		return nil
	}
	e.queries[transportOf(tcp)]++
	if e.hit.Rcode == wire.NXDomain {
		e.nxdomain++
	} else {
		e.noerror++
	}
	return out
}

// fastRecords answers with records, or with the SOA record of what is not there.
func (r *responder) fastRecords(dst, msg []byte, limit int) []byte {
	e := &r.express
	if e.q.DO && (e.hit.SignatureCount > 0 || e.hit.Count == 0 && e.hit.Zone.Negative.SignatureCount > 0) {
		return r.fastSigned(dst, msg, limit)
	}
	records, answers, authorities := e.hit.Records, e.hit.Count, 0
	if answers == 0 {
		records, authorities = e.hit.Zone.Negative.Records, e.hit.Zone.Negative.Count
		if authorities != 1 {
			return nil
		}
	}
	size := e.q.Size(len(records))
	if size > limit {
		return nil
	}
	out := slices.Grow(dst, size)[:size]
	rest := e.q.Begin(out, msg, e.hit.Rcode, answers, authorities)
	copy(rest, records)
	if answers == 0 {
		owner := wire.HeaderSize + e.hit.Apex
		rest[0], rest[1] = 0xc0|byte(owner>>8), byte(owner)
	}
	e.q.Finish(rest[len(records):], r.server.tunables.Load().UDPSize, 0)
	return out
}

// fastSigned is fastRecords with the signatures behind the records.
func (r *responder) fastSigned(dst, msg []byte, limit int) []byte {
	e := &r.express
	records, answers, authorities := e.hit.Records, e.hit.Count+e.hit.SignatureCount, 0
	signatures := e.hit.Signatures
	if e.hit.Count == 0 {
		negative := &e.hit.Zone.Negative
		records, signatures, authorities = negative.Records, negative.Signatures, negative.Count+negative.SignatureCount
	}
	size := e.q.Size(len(records) + len(signatures))
	if size > limit {
		return nil
	}
	out := slices.Grow(dst, size)[:size]
	rest := e.q.Begin(out, msg, e.hit.Rcode, answers, authorities)
	n := copy(rest, records)
	n += copy(rest[n:], signatures)
	if e.hit.Count == 0 {
		wire.SetOwner(rest[:n], wire.Owner(wire.HeaderSize+e.hit.Apex))
	}
	e.q.Finish(rest[n:], r.server.tunables.Load().UDPSize, 0)
	return out
}

// unsigned is no signatures.
var unsigned zone.RRset

// fastSteered answers A or AAAA from the newest plan.
func (r *responder) fastSteered(dst, msg []byte, client netip.Addr, serving *serving, limit int) []byte {
	e := &r.express
	plan := r.server.board.Load()
	if plan == nil {
		return nil
	}
	r.services.begin(serving)
	bound, plan := r.services.of(e.hit.Steered, plan, r.server.board)
	if bound.service < 0 {
		return nil
	}
	ipv6 := e.q.Type == wire.TypeAAAA
	service := &plan.Topology.Services[bound.service]
	before := r.random
	random := r.random.Uint64()
	addrs, scope := service.Anycast(ipv6), uint8(0)
	if !bound.anycast {
		addrs, scope = nil, 0
		if service.Has(ipv6) {
			tailored := e.q.HasECS && e.q.ECS.Source > 0
			if tailored {
				client = e.q.ECS.Addr
			}
			addrs, scope = locate(plan, service, int(bound.service), ipv6, client, tailored, uint32(random>>32))
		}
	}
	data := 4
	if ipv6 {
		data = 16
	}
	signed := &unsigned
	if e.q.DO {
		signed = cmp.Or(serving.zones.SteeredName(e.hit.Steered).Signed(addrs), signed)
	}
	size := e.q.Size(len(addrs)*(12+data) + len(signed.Records))
	if len(addrs) == 0 || size > limit {
		r.random = before
		return nil
	}
	out := slices.Grow(dst, size)[:size]
	rest := e.q.Begin(out, msg, wire.NoError, len(addrs)+signed.Count, 0)
	rest = wire.PutAddresses(rest, ipv6, bound.ttl, addrs, int(uint32(random))%len(addrs))
	if signed.Count > 0 {
		n := copy(rest, signed.Records)
		wire.SetTTL(rest[:n], bound.ttl)
		rest = rest[n:]
	}
	e.q.Finish(rest, r.server.tunables.Load().UDPSize, scope)
	return out
}
