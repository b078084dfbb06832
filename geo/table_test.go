package geo

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// A claim is one prefix of a made-up database or network.
type claim struct {
	prefix netip.Prefix
	place  int // 1 … places
}

// A world is a random database under random networks, kept as plain lists, so
// that the oracle can answer by looking at every claim.
type world struct {
	data     []claim
	networks []Network
}

var worldPlaces = []Place{
	{},
	{Country: "DE", Continent: "EU", Point: Point{50, 8}},
	{Country: "US", Continent: "NA", Point: Point{39, -77}},
	{Country: "SG", Continent: "AS", Point: Point{1.3, 103.9}},
}

func drawPrefix(t *rapid.T, family family, longest int) netip.Prefix {
	// Few distinct bytes, so that prefixes nest and touch.
	bytes := make([]byte, family.width()/8)
	for i := range bytes {
		bytes[i] = rapid.SampledFrom([]byte{0, 0, 1, 0x7f, 0x80, 0xff, 0xff}).Draw(t, "byte")
	}
	if family == v6 && rapid.Bool().Draw(t, "unicast") {
		bytes[0] = 0x20
	}
	addr, _ := netip.AddrFromSlice(bytes)
	p := netip.PrefixFrom(addr, rapid.IntRange(0, longest).Draw(t, "bits")).Masked()
	if p.Addr().Is4In6() {
		p = netip.PrefixFrom(netip.IPv6Unspecified(), p.Bits()).Masked()
	}
	return p
}

func drawWorld(t *rapid.T, family family, longest int) world {
	var w world
	for range rapid.IntRange(0, 12).Draw(t, "claims") {
		c := claim{drawPrefix(t, family, longest), rapid.IntRange(1, len(worldPlaces)-1).Draw(t, "place")}
		if !slices.ContainsFunc(w.data, func(o claim) bool { return o.prefix == c.prefix }) {
			w.data = append(w.data, c)
		}
	}
	var taken []netip.Prefix
	for i := range rapid.IntRange(0, 3).Draw(t, "networks") {
		n := Network{Name: fmt.Sprintf("n%d", i)}
		if rapid.Bool().Draw(t, "placed") {
			n.Place.Country = "BR"
		}
		for range rapid.IntRange(1, 3).Draw(t, "prefixes") {
			p := drawPrefix(t, family, longest)
			if !slices.Contains(taken, p) {
				n.Prefixes, taken = append(n.Prefixes, p), append(taken, p)
			}
		}
		w.networks = append(w.networks, n)
	}
	return w
}

func (w world) database(t *rapid.T) *Database {
	db := &Database{}
	for _, p := range worldPlaces {
		var r record
		r.setCountry(p.Country)
		r.setContinent(p.Continent)
		r.setPoint(p.Point.Lat, p.Point.Lon)
		db.records = append(db.records, r)
	}
	var holdings [2][]holding
	for _, c := range w.data {
		f, _, _ := keyOf(c.prefix.Addr())
		holdings[f] = append(holdings[f], holding{c.prefix, c.place})
	}
	for f := range holdings {
		if err := sortHoldings(holdings[f], nil); err != nil {
			t.Fatal(err)
		}
	}
	db.v4, db.v6 = lay(v4, holdings[v4]), lay(v6, holdings[v6])
	return db
}

// place is the oracle: the longest claim and the longest network around addr.
func (w world) place(addr netip.Addr) Place {
	best, bits := Place{}, -1
	for _, c := range w.data {
		if c.prefix.Contains(addr) && c.prefix.Bits() > bits {
			best, bits = worldPlaces[c.place], c.prefix.Bits()
		}
	}
	name, bits := -1, -1
	for i, n := range w.networks {
		for _, p := range n.Prefixes {
			if p.Contains(addr) && p.Bits() > bits {
				name, bits = i, p.Bits()
			}
		}
	}
	if name >= 0 {
		if w.networks[name].Place.Country == "BR" {
			centre, continent, _ := Country("BR")
			best = Place{Country: "BR", Continent: continent, Point: centre}
		}
		best.Network = w.networks[name].Name
	}
	return best
}

// edges are the addresses at which the place can change, and their neighbours.
func (w world) edges(f family) []netip.Addr {
	var out []netip.Addr
	add := func(p netip.Prefix) {
		_, first, last := rangeOf(p)
		for _, k := range []key{first.prev(), first, last, last.next()} {
			if !f.last().less(k) {
				out = append(out, f.prefix(k, f.width()).Addr())
			}
		}
	}
	for _, c := range w.data {
		add(c.prefix)
	}
	for _, n := range w.networks {
		for _, p := range n.Prefixes {
			add(p)
		}
	}
	out = append(out, f.prefix(key{}, f.width()).Addr(), f.prefix(f.last(), f.width()).Addr())
	return slices.DeleteFunc(out, netip.Addr.Is4In6)
}

func TestTableAgainstOracle(t *testing.T) {
	for _, test := range []struct {
		name    string
		family  family
		longest int
	}{{"IPv4", v4, 32}, {"IPv6 to 64", v6, 64}, {"IPv6 to 128", v6, 128}} {
		t.Run(test.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				checkWorld(t, drawWorld(t, test.family, test.longest), test.family)
			})
		})
	}
}

func checkWorld(t *rapid.T, w world, f family) {
	// Places that look different but share a class must merge.
	classOf := func(p Place) Class { return Class(len(p.Country)*len(p.Network)) + Class(len(p.Continent)) }
	calls := map[Place]int{}
	table, err := Compile(w.database(t), w.networks, func(p Place) Class {
		calls[p]++
		return classOf(p)
	})
	if err != nil {
		t.Fatal(err)
	}
	for p, n := range calls {
		if n > 1 {
			t.Fatalf("classify was called %d times with %+v", n, p)
		}
	}
	if calls[Place{}] != 1 {
		t.Fatal("classify was not called with the zero Place")
	}
	edges := w.edges(f)
	for _, addr := range edges {
		place, prefix := table.Place(addr)
		if want := w.place(addr); place != want {
			t.Fatalf("Place(%s) = %+v, want %+v", addr, place, want)
		}
		table.Prefetch([]netip.Addr{addr, {}, addr}) // which any address may be given
		class, scope := table.Lookup(addr)
		if want := classOf(w.place(addr)); class != want {
			t.Fatalf("Lookup(%s) = class %d, want %d", addr, class, want)
		}
		block := netip.PrefixFrom(addr, scope).Masked()
		if other, ok := differs(w, edges, block, classOf, class); ok {
			t.Fatalf("Lookup(%s) has scope %d, but %s has another class", addr, scope, other)
		}
		if scope > 0 {
			wider := netip.PrefixFrom(addr, scope-1).Masked()
			if _, ok := differs(w, edges, wider, classOf, class); !ok {
				t.Fatalf("Lookup(%s) has scope %d, but all of %s has its class", addr, scope, wider)
			}
		}
		// What explain speaks of lies within what the answer speaks of.
		if prefix.Bits() < scope {
			t.Fatalf("Place(%s) speaks of %s, wider than scope %d", addr, prefix, scope)
		}
		for _, e := range edges {
			if prefix.Contains(e) && w.place(e) != place {
				t.Fatalf("Place(%s) speaks of %s, but %s is %+v", addr, prefix, e, w.place(e))
			}
		}
	}
	for _, s := range []*spans{&table.four, &table.six} {
		checkSpans(t, s)
	}
}

// differs looks for an address of block with another class. The class can only
// change at an edge.
func differs(w world, edges []netip.Addr, block netip.Prefix, classOf func(Place) Class, class Class) (netip.Addr, bool) {
	for _, e := range edges {
		if block.Contains(e) && classOf(w.place(e)) != class {
			return e, true
		}
	}
	return netip.Addr{}, false
}

// checkSpans checks what every spans promises: it begins at zero, ascends, and
// neighbours differ; so its ranges cover the family without overlap.
func checkSpans(t interface{ Fatalf(string, ...any) }, s *spans) {
	if s.len() == 0 || s.start(0) != (key{}) {
		t.Fatalf("spans do not begin at zero")
	}
	for i := 1; i < s.len(); i++ {
		if !s.start(i - 1).less(s.start(i)) {
			t.Fatalf("range %d does not begin after range %d", i, i-1)
		}
		if s.values.at(i-1) == s.values.at(i) {
			t.Fatalf("ranges %d and %d are one", i-1, i)
		}
	}
}

func TestDatabaseAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, v4, 32)
		six := drawWorld(t, v6, 128)
		w.data = append(w.data, six.data...)
		w.networks = nil
		db := w.database(t)
		var all []netip.Prefix
		for prefix, place := range db.All() {
			if len(all) > 0 {
				if last := all[len(all)-1]; last.Overlaps(prefix) || prefix.Addr().Compare(last.Addr()) <= 0 {
					t.Fatalf("%s after %s", prefix, last)
				}
			}
			if got, around := db.Lookup(prefix.Addr()); got != place && !prefix.Addr().Is4In6() || around.Bits() > prefix.Bits() {
				t.Fatalf("All says %s is %+v, Lookup %+v in %s", prefix, place, got, around)
			}
			all = append(all, prefix)
		}
		for _, f := range []family{v4, v6} {
			for _, e := range w.edges(f) {
				known := slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(e) })
				if want := w.place(e) != (Place{}); known != want {
					t.Fatalf("%s is in All: %t, want %t", e, known, want)
				}
			}
		}
	})
}

func TestTableLookup(t *testing.T) {
	office := Network{
		Name:     "office",
		Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8::/48")},
		Place:    Place{Country: "JP"},
	}
	lab := Network{Name: "lab", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24")}}
	classes := map[string]Class{"": 0, "office": 1, "lab": 2}
	table, err := Compile(nil, []Network{office, lab}, func(p Place) Class { return classes[p.Network] })
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		Class Class
		Scope int
	}
	for _, test := range []struct {
		name string
		want result
	}{
		{"10.1.2.3", result{2, 24}},
		{"10.1.3.3", result{1, 24}}, // a /23 would hold the lab
		{"10.1.0.9", result{1, 23}},
		{"10.1.128.0", result{1, 17}},
		{"10.0.0.0", result{0, 16}},
		{"192.0.2.1", result{0, 1}},
		{"::ffff:10.1.2.3", result{2, 24}},
		{"2001:db8::1", result{1, 48}},
		{"2001:db8:1::1", result{0, 48}},
		{"8000::", result{0, 1}},
		{"fe80::1%eth0", result{0, 1}},
	} {
		var got result
		got.Class, got.Scope = table.Lookup(netip.MustParseAddr(test.name))
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
	if class, scope := table.Lookup(netip.Addr{}); class != 0 || scope != 0 {
		t.Errorf("the invalid address has class %d and scope %d", class, scope)
	}
	if place, prefix := table.Place(netip.Addr{}); place != (Place{}) || prefix.IsValid() {
		t.Errorf("the invalid address has place %+v in %s", place, prefix)
	}
	centre, _, _ := Country("JP")
	place, prefix := table.Place(netip.MustParseAddr("10.1.3.3"))
	if want := (Place{Network: "office", Country: "JP", Continent: "AS", Point: centre}); place != want || prefix != netip.MustParsePrefix("10.1.3.0/24") {
		t.Errorf("Place = %+v in %s", place, prefix)
	}
}

// With no data at all every answer is the same everywhere: scope 0.
func TestTableWithoutData(t *testing.T) {
	table, err := Compile(nil, nil, func(Place) Class { return 7 })
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"0.0.0.0", "255.255.255.255", "::", "2001:db8::", "ffff::"} {
		if class, scope := table.Lookup(netip.MustParseAddr(addr)); class != 7 || scope != 0 {
			t.Errorf("%s has class %d, scope %d", addr, class, scope)
		}
	}
}

func TestTableManyClasses(t *testing.T) {
	// More classes than two bytes hold.
	db := &Database{records: []record{{}}}
	for n := range uint32(1 << 17) {
		db.records = append(db.records, record{asn: n + 1})
		db.v4.add(key{0, uint64(n) << 15}, n+1)
	}
	table, err := Compile(db, nil, func(p Place) Class { return Class(p.ASN) })
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint32{0, 1, 1<<16 - 1, 1 << 16, 1<<17 - 1} {
		addr := v4.prefix(key{0, uint64(n)<<15 + 5}, 32).Addr()
		if class, scope := table.Lookup(addr); class != Class(n+1) || scope != 17 {
			t.Errorf("%s: class %d, scope %d; want %d, 17", addr, class, scope, n+1)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	p := netip.MustParsePrefix
	classify := func(Place) Class { return 0 }
	for _, test := range []struct {
		name     string
		networks []Network
		want     string
	}{
		{
			"no name",
			[]Network{{Prefixes: []netip.Prefix{p("10.0.0.0/8")}}},
			"compile geo table: network 1: no name",
		},
		{
			"invalid prefix",
			[]Network{{Name: "a", Prefixes: []netip.Prefix{{}}}},
			`compile geo table: network "a": invalid prefix "invalid Prefix"`,
		},
		{
			"short mapped prefix",
			[]Network{{Name: "a", Prefixes: []netip.Prefix{p("::ffff:1.2.3.4/90")}}},
			`compile geo table: network "a": prefix "::ffff:1.2.3.4/90": write IPv4 prefixes as IPv4`,
		},
		{
			"same prefix twice",
			[]Network{{Name: "a", Prefixes: []netip.Prefix{p("10.0.0.0/8")}}, {Name: "b", Prefixes: []netip.Prefix{p("10.1.0.0/8")}}},
			`compile geo table: prefix 10.0.0.0/8 is in network "a" and in network "b"`,
		},
	} {
		_, err := Compile(nil, test.networks, classify)
		if err == nil || err.Error() != test.want {
			t.Errorf("%s: error %v, want %s", test.name, err, test.want)
		}
	}
	if _, err := Compile(nil, nil, nil); err == nil {
		t.Error("no error without a classify function")
	}
}

func TestOverlay(t *testing.T) {
	base := Place{Country: "US", Region: "CA", Continent: "NA", ASN: 64500, Point: Point{34, -118}}
	japan, _, _ := Country("JP")
	texas, _ := regionCentre("US", "TX")
	for _, test := range []struct {
		name       string
		base, says Place
		want       Place
	}{
		{
			"says nothing", base,
			Place{},
			Place{Network: "n", Country: "US", Region: "CA", Continent: "NA", ASN: 64500, Point: Point{34, -118}},
		},
		{
			"another country", base,
			Place{Country: "JP"},
			Place{Network: "n", Country: "JP", Continent: "AS", ASN: 64500, Point: japan},
		},
		{
			"the same country", base,
			Place{Country: "US", ASN: 1},
			Place{Network: "n", Country: "US", Region: "CA", Continent: "NA", ASN: 1, Point: Point{34, -118}},
		},
		{
			"another region", base,
			Place{Region: "TX"},
			Place{Network: "n", Country: "US", Region: "TX", Continent: "NA", ASN: 64500, Point: texas},
		},
		{
			"another continent", base,
			Place{Continent: "EU"},
			Place{Network: "n", Continent: "EU", ASN: 64500, Point: continentCentre("EU")},
		},
		{
			"its own position", base,
			Place{Point: Point{1, 2}},
			Place{Network: "n", Country: "US", Region: "CA", Continent: "NA", ASN: 64500, Point: Point{1, 2}},
		},
		{"its own name is ignored", Place{}, Place{Network: "other"}, Place{Network: "n"}},
	} {
		if diff := cmp.Diff(test.want, overlay(Network{Name: "n", Place: test.says}, test.base)); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

// The DNS tier looks up once per query: no allocation is allowed.
func TestLookupAllocates(t *testing.T) {
	_, table := threeSites(t)
	four, six := netip.MustParseAddr("81.2.69.142"), netip.MustParseAddr("2a00:1450:4001::1")
	both := []netip.Addr{four, six}
	if n := testing.AllocsPerRun(100, func() {
		table.Lookup(four)
		table.Lookup(six)
		table.Prefetch(both)
	}); n != 0 {
		t.Errorf("Lookup allocates %v times", n)
	}
}
