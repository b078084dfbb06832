package dnslb

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/dnslb/transport"
	"github.com/pharos-lb/pharos/dnslb/wire"
	"github.com/pharos-lb/pharos/dnslb/zone"
)

// The budgets of a query's own work in nanoseconds, caches missing. The rest of what a
// query costs is the kernel's. Each benchmark reports its own as budget-ns/op.
const (
	parseBudget    = 75
	lookupBudget   = 90 // as much for a name that is not there
	assembleBudget = 25
	geoBudget      = 90
)

// farAbove is how many times its budget a part may cost on a machine that is slow, or whose caches others use too. More is
// another algorithm. `make budgets` runs in CI.
const farAbove = 3

// spend measures a part, reports its budget beside it, and fails far above that. What counts is the thread's processor time,
// which does not grow when others have the processor.
func spend(b *testing.B, ns float64, part func()) {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	part() // what is made once
	start := threadTime(b)
	for b.Loop() {
		part()
	}
	if each := float64(threadTime(b)-start) / float64(b.N); b.N >= 1000 && each > farAbove*ns {
		b.Errorf("%.0f ns of processor time, and the budget is %.0f ns", each, ns)
	}
	b.ReportAllocs()
	b.ReportMetric(ns, "budget-ns/op")
}

// threadTime is how long this thread has run, in nanoseconds.
func threadTime(b *testing.B) int64 {
	b.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return ts.Nano()
}

func BenchmarkParse(b *testing.B) {
	spend(b, parseBudget, parsing(b))
}

// parsing parses a query with a client subnet.
func parsing(tb testing.TB) func() {
	msg, err := withSubnet(query("www.example.com.", "A"), "46.4.0.0/24").Pack()
	if err != nil {
		tb.Fatal(err)
	}
	q := new(wire.Brief)
	return func() {
		if !q.Parse(msg, true) {
			tb.Fatal("not for the fast lane")
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	set := largeSet(b, largeNames)
	for what, there := range map[string]bool{"there": true, "missing": false} {
		b.Run(what, func(b *testing.B) {
			spend(b, lookupBudget, lookingUp(b, set, largeNames, there))
		})
	}
}

// largeNames is more than the caches hold.
const largeNames = 100_000

// largeName is the ith of them.
func largeName(i int) string { return fmt.Sprintf("n%d.large.test.", i) }

// lookingUp looks up names in no order.
func lookingUp(tb testing.TB, set *zone.Set, names int, there bool) func() {
	label := "x"
	if there {
		label = "n"
	}
	keys := make([]wire.Folded, 4096)
	for i := range keys {
		packed := make([]byte, 64)
		n, err := dns.PackDomainName(fmt.Sprintf("%s%d.large.test.", label, i*7919%names), packed, 0, nil, false)
		if err != nil {
			tb.Fatal(err)
		}
		keys[i].Set(packed[:n], 0)
	}
	hit, i := new(zone.Hit), 0
	return func() {
		i++
		set.Express(&keys[i&4095], wire.TypeA, hit)
		if !hit.Found || (hit.Count > 0) != there {
			tb.Fatalf("found %+v", hit)
		}
	}
}

func BenchmarkAssemble(b *testing.B) {
	spend(b, assembleBudget, assembling(b))
}

// assembling makes the answer to a question for one address.
func assembling(tb testing.TB) func() {
	msg, err := query("mail.example.com.", "A").Pack()
	if err != nil {
		tb.Fatal(err)
	}
	q := new(wire.Brief)
	q.Parse(msg, true)
	out, records := make([]byte, 512), make([]byte, 16)
	return func() {
		rest := q.Begin(out, msg, wire.NoError, 1, 0)
		copy(rest, records)
		q.Finish(rest[16:], 1232, 0)
	}
}

func BenchmarkGeo(b *testing.B) {
	spend(b, geoBudget, locating(b))
}

// locating goes from a client's network to the addresses of its site.
func locating(tb testing.TB) func() {
	plan := newBoard(tb).Load()
	index, _ := plan.Topology.Service("web")
	service := &plan.Topology.Services[index]
	i := uint32(0)
	return func() {
		i++
		a := i * 2654435761
		client := netip.AddrFrom4([4]byte{byte(a>>24)%223 + 1, byte(a >> 16), byte(a >> 8)})
		if addrs, _ := locate(plan, service, index, false, client, true, a); len(addrs) == 0 {
			tb.Fatal(client)
		}
	}
}

// TestPartsAllocateNothing: what has a budget allocates nothing.
func TestPartsAllocateNothing(t *testing.T) {
	const names = 1000
	set := largeSet(t, names)
	for name, part := range map[string]func(){
		"parse": parsing(t), "look up": lookingUp(t, set, names, true), "look up what is missing": lookingUp(t, set, names, false),
		"assemble": assembling(t), "geo": locating(t), "see a batch ahead": seeing(t),
	} {
		if n := testing.AllocsPerRun(1000, part); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// seeing looks at a batch of steered queries ahead.
func seeing(tb testing.TB) func() {
	s := detached(tb, Tunables{ECS: true})
	msg, err := withSubnet(query("www.example.com.", "A"), "46.4.0.0/24").Pack()
	if err != nil {
		tb.Fatal(err)
	}
	msgs := make([][]byte, transport.BatchWidth)
	for i := range msgs {
		msgs[i] = append([]byte(nil), msg...)
	}
	s.Respond(s.out[:0], msg, client, false) // so that there is a plan and a binding to look at
	return func() { s.Prefetch(msgs) }
}

func largeSet(tb testing.TB, names int) *zone.Set {
	tb.Helper()
	var text strings.Builder
	text.WriteString("$TTL 300\n@ IN SOA ns1 root 1 3600 600 86400 60\n@ IN NS ns1\nns1 IN A 192.0.2.1\n")
	for i := range names {
		fmt.Fprintf(&text, "n%d IN A 10.%d.%d.%d\n", i, i>>16&255, i>>8&255, i&255)
	}
	set, err := zone.Compile([]zone.Spec{{Name: "large.test.", Master: text.String(), MasterFile: "large"}})
	if err != nil {
		tb.Fatal(err)
	}
	return set
}
