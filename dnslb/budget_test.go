package dnslb

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pharos-lb/pharos/dnslb/wire"
	"github.com/pharos-lb/pharos/dnslb/zone"
)

// The budgets of a query's own work, caches missing: parse 75 ns, look-up 90 ns
// and as much for a name that is not there, assemble 25 ns, geo 90 ns; 300 ns at the most
// together. The rest of what a query costs is the kernel's.

func BenchmarkParse(b *testing.B) {
	msg, _ := withSubnet(query("www.example.com.", "A"), "46.4.0.0/24").Pack()
	var q wire.Brief
	b.ReportAllocs()
	for b.Loop() {
		q.Parse(msg, true)
	}
}

// BenchmarkLookup: names of a zone of 100,000, in no order, so that caches miss.
func BenchmarkLookup(b *testing.B) {
	const names = 100_000
	set := largeSet(b, names)
	for what, label := range map[string]string{"there": "n", "missing": "x"} {
		keys := make([]wire.Folded, 4096)
		for i := range keys {
			packed := make([]byte, 64)
			n, _ := dns.PackDomainName(fmt.Sprintf("%s%d.large.test.", label, i*7919%names), packed, 0, nil, false)
			keys[i].Set(packed[:n], 0)
		}
		b.Run(what, func(b *testing.B) {
			var hit zone.Hit
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				set.Express(&keys[i&4095], wire.TypeA, &hit)
			}
			if !hit.Found || (hit.Count > 0) != (what == "there") {
				b.Fatalf("found %+v", hit)
			}
		})
	}
}

func BenchmarkAssemble(b *testing.B) {
	msg, _ := query("mail.example.com.", "A").Pack()
	var q wire.Brief
	q.Parse(msg, true)
	out, records := make([]byte, 512), make([]byte, 16)
	b.ReportAllocs()
	for b.Loop() {
		rest := q.Begin(out, msg, wire.NoError, 1, 0)
		copy(rest, records)
		q.Finish(rest[16:], 1232, 0)
	}
}

// BenchmarkGeo: from a client's network to the addresses of its site.
func BenchmarkGeo(b *testing.B) {
	plan := newBoard(b).Load()
	index, _ := plan.Topology.Service("web")
	service := &plan.Topology.Services[index]
	b.ReportAllocs()
	for i := uint32(0); b.Loop(); i++ {
		a := i * 2654435761
		client := netip.AddrFrom4([4]byte{byte(a>>24)%223 + 1, byte(a >> 16), byte(a >> 8)})
		if addrs, _ := locate(plan, service, index, false, client, true, a); len(addrs) == 0 {
			b.Fatal(client)
		}
	}
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

// BenchmarkReload: what a query waits while a million records are loaded beside it
// and put in place.
func BenchmarkReload(b *testing.B) {
	s := start(b, Options{})
	conn, err := net.Dial("udp", address(s))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	msg, _ := query("mail.example.com.", "A").Pack()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b.Loop() {
			s.SetZones(largeSet(b, 1_000_000))
			s.SetZones(newSet(b))
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var waits []float64
	buf := make([]byte, 512)
	for {
		select {
		case <-done:
			slices.Sort(waits)
			b.ReportMetric(waits[len(waits)/2], "µs-p50")
			b.ReportMetric(waits[len(waits)*99/100], "µs-p99")
			b.ReportMetric(waits[len(waits)-1], "µs-max")
			return
		case <-time.After(500 * time.Microsecond):
		}
		asked := time.Now()
		if _, err := conn.Write(msg); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Read(buf); err != nil {
			b.Fatal(err)
		}
		waits = append(waits, float64(time.Since(asked))/1e3)
	}
}
