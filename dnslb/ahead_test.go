package dnslb

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/miekg/dns"

	"github.com/pharos-lb/pharos/dnslb/transport"
)

// TestBatchesAgree: as TestLanesAgree, for queries that the fast lane has seen before, some of which
// never come, and while the options change in between. The memory of a batch is that of the one before.
func TestBatchesAgree(t *testing.T) {
	s := detached(t, Tunables{ECS: true}).server
	tunables := []*Tunables{s.tunables.Load(), {UDPSize: 1232}}
	l := newLanes(s)
	q := questioner{rand.New(rand.NewPCG(5, 12))}
	memory := make([][]byte, transport.BatchWidth)
	for i := range memory {
		memory[i] = make([]byte, 1024)
	}
	used := 0
	for range 1000 {
		s.tunables.Store(tunables[q.IntN(2)])
		n := 1 + q.IntN(transport.BatchWidth)
		msgs := make([][]byte, n)
		for i := range msgs {
			msgs[i] = memory[i][:copy(memory[i], q.message())]
		}
		l.fast.Prefetch(msgs)
		disturbed := n == 1
		for _, msg := range msgs {
			if q.IntN(200) == 0 {
				disturbed = true
				continue
			}
			if q.IntN(200) == 0 {
				s.tunables.Store(tunables[q.IntN(2)])
				disturbed = true
			}
			l.compare(t, msg, clients[q.IntN(len(clients))], false)
		}
		if a := &l.fast.express.ahead; !disturbed {
			used++
			// Those from port 0 are not looked at; here there are none.
			if a.next != n || a.count != n {
				t.Fatalf("%d of %d queries were known ahead", a.next, n)
			}
		}
	}
	if used < 500 {
		t.Errorf("only %d batches were undisturbed", used)
	}
}

// batches makes batches of queries for names in no order, with a different client subnet each.
func batches(tb testing.TB, names int) [][][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	out := make([][][]byte, 256)
	for i := range out {
		out[i] = make([][]byte, transport.BatchWidth)
		for j := range out[i] {
			m := withSubnet(query(dns.Fqdn(largeName(random.IntN(names))), "A"), "46.4.0.0/24")
			msg, err := m.Pack()
			if err != nil {
				tb.Fatal(err)
			}
			binary.BigEndian.PutUint16(msg[len(msg)-3:], uint16(random.Uint32()))
			out[i][j] = msg
		}
	}
	return out
}

// BenchmarkBatch answers batches of queries for 100,000 static names, seen ahead and not, ns a query.
func BenchmarkBatch(b *testing.B) {
	s := detached(b, Tunables{ECS: true})
	s.server.zones.Store(serve(largeSet(b, largeNames), s.server.board))
	all := batches(b, largeNames)
	for what, ahead := range map[string]bool{"ahead": true, "one by one": false} {
		b.Run(what, func(b *testing.B) {
			i := 0
			for b.Loop() {
				msgs := all[i/transport.BatchWidth%len(all)]
				at := i % transport.BatchWidth
				if ahead && at == 0 {
					s.Prefetch(msgs)
				}
				if len(s.Respond(s.out[:0], msgs[at], client, false)) == 0 {
					b.Fatal("no answer")
				}
				i++
			}
			b.ReportAllocs()
		})
	}
}
