package dnslb

import (
	"net/netip"
	"unsafe"

	"github.com/pharos-lb/pharos/dnslb/transport"
	"github.com/pharos-lb/pharos/dnslb/wire"
)

// ahead is what is known of the queries to come.
type ahead struct {
	queries  [transport.BatchWidth]parsed
	next     int       // of queries
	count    int       // of queries
	tunables *Tunables // in force when they were parsed
	hashes   [transport.BatchWidth]uint32
	subnets  [transport.BatchWidth]netip.Addr
	read     uint32 // so that what was read is used
}

// A parsed query is one for the fast lane, or not.
type parsed struct {
	msg  *byte
	good bool
	q    wire.Brief
}

// Prefetch parses a batch of queries, and has the processor fetch what their look-ups will need, for
// all of them at once: one by one each would wait for memory. See [transport.Prefetcher].
func (r *responder) Prefetch(msgs [][]byte) {
	e := &r.express
	a := &e.ahead
	a.next, a.count = 0, 0
	defer func() {
		if p := recover(); p != nil { // never seen; the queries may still be answered
			a.count = 0
			r.server.panicked(p)
		}
	}()
	if e.off || len(msgs) < 2 || len(msgs) > len(a.queries) {
		return
	}
	a.tunables, a.count = r.server.tunables.Load(), len(msgs)
	serving := r.server.zones.Load()
	n := 0
	for i, msg := range msgs {
		q := &a.queries[i]
		q.msg, q.good = unsafe.SliceData(msg), q.q.Parse(msg, a.tunables.ECS)
		if q.good {
			a.hashes[n], a.subnets[n] = serving.zones.Hash(&q.q.Name), netip.Addr{}
			if q.q.HasECS {
				a.subnets[n] = q.q.ECS.Addr
			}
			n++
		}
	}
	a.read = serving.zones.Prefetch(a.hashes[:n])
	located := 0
	for i, steered := range a.hashes[:n] {
		if steered == 0 {
			continue
		}
		a.read ^= r.services.touch(serving, int(steered-1))
		a.subnets[located] = a.subnets[i]
		located++
	}
	if plan := r.services.plan; located > 0 && plan != nil && plan.Topology.Table != nil {
		a.read ^= plan.Topology.Table.Prefetch(a.subnets[:located])
	}
}

// parse makes q the query in msg. It reports whether it is one for the fast lane.
func (e *express) parse(msg []byte, set *Tunables) bool {
	a := &e.ahead
	if a.next < a.count {
		if q := &a.queries[a.next]; q.msg == unsafe.SliceData(msg) && a.tunables == set {
			a.next++
			e.q = &q.q
			return q.good
		}
		a.count = 0
	}
	e.q = &e.one
	return e.q.Parse(msg, set.ECS)
}
