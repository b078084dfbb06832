package geo

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
)

// threeSites is the table that a topology with sites in Frankfurt, Ashburn and
// Singapore makes of the country data: a class per order of distance.
func threeSites(tb testing.TB) (*Database, *Table) {
	tb.Helper()
	db, err := Embedded()
	if err != nil {
		tb.Fatal(err)
	}
	table, err := Compile(db, nil, nearestOrder(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return db, table
}

func nearestOrder(tb testing.TB) func(Place) Class {
	var sites []Point
	for _, code := range []string{"FRA", "IAD", "SIN"} {
		l, err := Locate(code)
		if err != nil {
			tb.Fatal(err)
		}
		sites = append(sites, l.Point)
	}
	return func(p Place) Class {
		if p.Point.IsZero() {
			return 0
		}
		order := Class(0)
		for i, a := range sites {
			for _, b := range sites[i+1:] {
				order *= 2
				if Distance(p.Point, a) < Distance(p.Point, b) {
					order++
				}
			}
		}
		return 1 + order
	}
}

func BenchmarkTableLookup(b *testing.B) {
	db, nearest := threeSites(b)
	numbers := map[Place]Class{}
	countries, err := Compile(db, nil, func(p Place) Class {
		if _, ok := numbers[p]; !ok {
			numbers[p] = Class(len(numbers))
		}
		return numbers[p]
	})
	if err != nil {
		b.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var four, six, allocated [1 << 12]netip.Addr
	for i := range four {
		four[i] = netip.AddrFrom4([4]byte{byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())})
		b6 := [16]byte{0x20, byte(random.Uint32())}
		for j := 2; j < 8; j++ {
			b6[j] = byte(random.Uint32())
		}
		six[i] = netip.AddrFrom16(b6)
		at := db.v6.start(random.IntN(db.v6.len()))
		allocated[i] = v6.prefix(at, 128).Addr()
	}
	for _, table := range []struct {
		name  string
		table *Table
	}{{"three sites", nearest}, {"every country", countries}} {
		for _, addrs := range []struct {
			name  string
			addrs *[1 << 12]netip.Addr
		}{{"IPv4", &four}, {"IPv6", &six}, {"IPv6 allocated", &allocated}} {
			b.Run(table.name+"/"+addrs.name, func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					table.table.Lookup(addrs.addrs[i%len(addrs.addrs)])
				}
			})
		}
	}
}

// BenchmarkReady is what a node pays before it can answer: unpacking the
// embedded data and compiling it.
func BenchmarkReady(b *testing.B) {
	b.ReportAllocs()
	var db *Database
	var table *Table
	for b.Loop() {
		var err error
		if db, err = unpack(embeddedRanges); err != nil {
			b.Fatal(err)
		}
		if table, err = Compile(db, nil, nearestOrder(b)); err != nil {
			b.Fatal(err)
		}
	}
	ranges, size := table.Size()
	b.ReportMetric(float64(size), "table-bytes")
	b.ReportMetric(float64(ranges), "table-ranges")
	b.ReportMetric(float64(db.Info().Bytes), "database-bytes")
	b.ReportMetric(float64(db.Info().Ranges), "database-ranges")
	runtime.KeepAlive(table)
}

// BenchmarkCompile is what a reload of the config pays for geo.
func BenchmarkCompile(b *testing.B) {
	db, _ := threeSites(b)
	classify := nearestOrder(b)
	for b.Loop() {
		if _, err := Compile(db, nil, classify); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(db.Info().Ranges), "ns/range")
}
