package geo

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

const testEpoch = 1781725900

// writeMMDB makes an mmdb file.
func writeMMDB(tb testing.TB, options mmdbwriter.Options, networks map[string]mmdbtype.DataType) []byte {
	tb.Helper()
	if options.BuildEpoch == 0 {
		options.BuildEpoch = testEpoch
	}
	tree, err := mmdbwriter.New(options)
	if err != nil {
		tb.Fatal(err)
	}
	for prefix, data := range networks {
		_, network, err := net.ParseCIDR(prefix)
		if err != nil {
			tb.Fatal(err)
		}
		if err := tree.Insert(network, data); err != nil {
			tb.Fatal(err)
		}
	}
	var out bytes.Buffer
	if _, err := tree.WriteTo(&out); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// disk is a read function over made files.
type disk map[string][]byte

func (d disk) read(name string) ([]byte, error) {
	data, ok := d[name]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
	}
	return data, nil
}

func code(key, value string) mmdbtype.Map {
	return mmdbtype.Map{mmdbtype.String(key): mmdbtype.String(value)}
}

func cityRecord() mmdbtype.Map {
	return mmdbtype.Map{
		"city":      mmdbtype.Map{"names": code("en", "Los Angeles")},
		"continent": code("code", "NA"),
		"country":   mmdbtype.Map{"iso_code": mmdbtype.String("US"), "names": code("en", "United States")},
		"location": mmdbtype.Map{
			"latitude": mmdbtype.Float64(34.0544), "longitude": mmdbtype.Float64(-118.2441),
		},
		"subdivisions": mmdbtype.Slice{code("iso_code", "CA")},
	}
}

func TestOpenSchemas(t *testing.T) {
	germany, _, _ := Country("DE")
	angeles := Place{Country: "US", Region: "CA", Continent: "NA", Point: Point{34.0544, -118.2441}}
	enterprise := cityRecord()
	enterprise["traits"] = mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(64500)}
	withASN := angeles
	withASN.ASN = 64500
	for _, test := range []struct {
		kind string
		data mmdbtype.DataType
		want Place
	}{
		{"GeoLite2-City", cityRecord(), angeles},
		{"GeoIP2-City-North-America", cityRecord(), angeles},
		{"GeoIP2-Enterprise", enterprise, withASN},
		{"DBIP-City-Lite", cityRecord(), angeles},
		{"somebody's own", cityRecord(), angeles},
		{
			"GeoLite2-Country",
			mmdbtype.Map{"country": code("iso_code", "DE"), "continent": code("code", "EU")},
			Place{Country: "DE", Continent: "EU", Point: germany},
		},
		{
			"GeoIP2-Country",
			mmdbtype.Map{"registered_country": code("iso_code", "DE")},
			Place{Country: "DE", Continent: "EU", Point: germany},
		},
		{
			"GeoIP2-Country",
			mmdbtype.Map{"continent": code("code", "EU")},
			Place{Continent: "EU", Point: continentCentre("EU")},
		},
		{
			"DBIP-Country-Lite",
			mmdbtype.Map{"country": code("iso_code", "DE")},
			Place{Country: "DE", Continent: "EU", Point: germany},
		},
		{"GeoLite2-ASN", mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(64500)}, Place{ASN: 64500}},
		{"GeoIP2-ISP", mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(64500), "isp": mmdbtype.String("X")}, Place{ASN: 64500}},
		{"DBIP-ASN-Lite (compat=GeoLite2-ASN)", mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(64500)}, Place{ASN: 64500}},
		{"country ipvAll", code("country_code", "DE"), Place{Country: "DE", Continent: "EU", Point: germany}},
		{"ipinfo standard_location.mmdb", mmdbtype.Map{
			"country": mmdbtype.String("US"), "region": mmdbtype.String("California"), "region_code": mmdbtype.String("CA"),
			"lat": mmdbtype.String("34.0544"), "lng": mmdbtype.String("-118.2441"),
		}, angeles},
		{"ipinfo bundle_location_lite", mmdbtype.Map{
			"asn": mmdbtype.String("AS64500"), "continent": mmdbtype.String("Europe"), "continent_code": mmdbtype.String("EU"),
			"country": mmdbtype.String("Germany"), "country_code": mmdbtype.String("DE"),
		}, Place{Country: "DE", Continent: "EU", Point: germany, ASN: 64500}},
		{"ipinfo generic_country_asn_free.mmdb", mmdbtype.Map{
			"asn": mmdbtype.String("AS64500"), "continent": mmdbtype.String("EU"), "country": mmdbtype.String("DE"),
		}, Place{Country: "DE", Continent: "EU", Point: germany, ASN: 64500}},
		{"city with wild values", mmdbtype.Map{
			"country_code": mmdbtype.String("de"), "latitude": mmdbtype.Float64(1000), "longitude": mmdbtype.Float64(0),
		}, Place{Country: "DE", Continent: "EU", Point: germany}},
	} {
		t.Run(test.kind, func(t *testing.T) {
			files := disk{"x.mmdb": writeMMDB(t, mmdbwriter.Options{DatabaseType: test.kind}, map[string]mmdbtype.DataType{
				"81.2.69.0/24": test.data, "2a01:4f8::/32": test.data,
			})}
			db, err := Open(files.read, "x.mmdb")
			if err != nil {
				t.Fatal(err)
			}
			for addr, want := range map[string]string{
				"81.2.69.142": "81.2.69.0/24", "::ffff:81.2.69.142": "81.2.69.0/24", "2a01:4f8::9": "2a01:4f8::/32",
			} {
				got, prefix := db.Lookup(netip.MustParseAddr(addr))
				if diff := cmp.Diff(test.want, got); diff != "" || prefix != netip.MustParsePrefix(want) {
					t.Errorf("%s in %s: %s", addr, prefix, diff)
				}
			}
			if got, prefix := db.Lookup(netip.MustParseAddr("81.2.70.1")); got != (Place{}) || prefix.Bits() != 23 {
				t.Errorf("unknown address has %+v in %s", got, prefix)
			}
			info := db.Info()
			info.Bytes = 0
			want := Info{Name: "x.mmdb", Type: test.kind, Built: time.Unix(testEpoch, 0).UTC(), Ranges: 6, Has: info.Has}
			if diff := cmp.Diff(want, info); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOpenIPv4Only(t *testing.T) {
	for _, size := range []int{24, 28, 32} {
		files := disk{"x": writeMMDB(t, mmdbwriter.Options{DatabaseType: "country", IPVersion: 4, RecordSize: size},
			map[string]mmdbtype.DataType{"1.0.0.0/8": code("country_code", "DE"), "223.0.0.0/8": code("country_code", "US")})}
		db, err := Open(files.read, "x")
		if err != nil {
			t.Fatal(err)
		}
		if p, _ := db.Lookup(netip.MustParseAddr("223.1.1.1")); p.Country != "US" {
			t.Errorf("record size %d: %+v", size, p)
		}
		if p, _ := db.Lookup(netip.MustParseAddr("2001:4860::1")); p != (Place{}) {
			t.Errorf("record size %d: IPv6 has %+v", size, p)
		}
	}
}

func TestOpenSeveral(t *testing.T) {
	files := disk{
		"city.mmdb": writeMMDB(t, mmdbwriter.Options{DatabaseType: "GeoLite2-City"}, map[string]mmdbtype.DataType{
			"81.2.0.0/16": cityRecord(),
		}),
		"asn.mmdb": writeMMDB(t, mmdbwriter.Options{DatabaseType: "GeoLite2-ASN", BuildEpoch: testEpoch - 86400}, map[string]mmdbtype.DataType{
			"81.2.69.0/24": mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(64500)},
		}),
		"country.mmdb": writeMMDB(t, mmdbwriter.Options{DatabaseType: "country"}, map[string]mmdbtype.DataType{
			"81.0.0.0/8": code("country_code", "DE"),
		}),
	}
	db, err := Open(files.read, "city.mmdb", "asn.mmdb", "country.mmdb")
	if err != nil {
		t.Fatal(err)
	}
	germany, _, _ := Country("DE")
	la := Place{Country: "US", Region: "CA", Continent: "NA", Point: Point{34.0544, -118.2441}}
	both := la
	both.ASN = 64500
	for _, test := range []struct {
		addr, prefix string
		want         Place
	}{
		{"81.2.69.1", "81.2.69.0/24", both},
		{"81.2.1.1", "81.2.0.0/18", la},
		{"81.3.1.1", "81.3.0.0/16", Place{Country: "DE", Continent: "EU", Point: germany}},
		{"82.1.1.1", "82.0.0.0/7", Place{}},
	} {
		got, prefix := db.Lookup(netip.MustParseAddr(test.addr))
		if diff := cmp.Diff(test.want, got); diff != "" || prefix.String() != test.prefix {
			t.Errorf("%s in %s: %s", test.addr, prefix, diff)
		}
	}
	info := db.Info()
	if info.Name != "city.mmdb + asn.mmdb + country.mmdb" || info.Type != "GeoLite2-City + GeoLite2-ASN + country" ||
		!info.Built.Equal(time.Unix(testEpoch-86400, 0)) {
		t.Errorf("info %+v", info)
	}
}

// A country file before a city file must not hide the city's position behind
// the country's centre.
func TestJoinKeepsPositions(t *testing.T) {
	files := disk{
		"country": writeMMDB(t, mmdbwriter.Options{DatabaseType: "country"}, map[string]mmdbtype.DataType{"81.0.0.0/8": code("country_code", "US")}),
		"city":    writeMMDB(t, mmdbwriter.Options{DatabaseType: "GeoLite2-City"}, map[string]mmdbtype.DataType{"81.2.0.0/16": cityRecord()}),
	}
	db, err := Open(files.read, "country", "city")
	if err != nil {
		t.Fatal(err)
	}
	if p, _ := db.Lookup(netip.MustParseAddr("81.2.0.1")); p.Point != (Point{34.0544, -118.2441}) || p.Region != "CA" {
		t.Errorf("%+v", p)
	}
}

func TestOpenErrors(t *testing.T) {
	country := map[string]mmdbtype.DataType{"81.2.0.0/16": code("country_code", "DE"), "2a01:4f8::/32": code("country_code", "DE")}
	good := writeMMDB(t, mmdbwriter.Options{DatabaseType: "country"}, country)
	files := disk{
		"good":  good,
		"empty": {},
		"text":  []byte("<html>You need a licence key</html>"),
		"cut":   good[:len(good)/2],
		"tail":  good[len(good)/2:],
		"domain": writeMMDB(t, mmdbwriter.Options{DatabaseType: "GeoIP2-Domain"}, map[string]mmdbtype.DataType{
			"81.2.0.0/16": code("domain", "example.com"),
		}),
		"other": writeMMDB(t, mmdbwriter.Options{DatabaseType: "threats"}, map[string]mmdbtype.DataType{
			"81.2.0.0/16": code("score", "9"),
		}),
		"old":     writeMMDB(t, mmdbwriter.Options{DatabaseType: "country", BuildEpoch: 1}, country),
		"nowhere": writeMMDB(t, mmdbwriter.Options{DatabaseType: "country"}, map[string]mmdbtype.DataType{"81.2.0.0/16": code("country_code", "")}),
		"mixed": writeMMDB(t, mmdbwriter.Options{DatabaseType: "GeoLite2-City"}, map[string]mmdbtype.DataType{
			"81.2.0.0/16": code("country", "DE"),
		}),
	}
	for _, test := range []struct{ file, want string }{
		{"missing", "open geo database: open missing: file does not exist"},
		{"empty", "open geo database empty: the file is empty"},
		{"text", "open geo database text: not a complete mmdb file: "},
		{"cut", "open geo database cut: not a complete mmdb file: "},
		{"tail", "open geo database tail: "},
		{"domain", `open geo database domain: database type "GeoIP2-Domain" has no places`},
		{"other", `open geo database other: database type "threats" has no country and no ASN`},
		{"old", "open geo database old: damaged mmdb file: made in the year 1970"},
		{"nowhere", "open geo database nowhere: damaged mmdb file: no network has a place"},
		{"mixed", "open geo database mixed: damaged mmdb file: record of 81.2.0.0/16: "},
	} {
		db, err := Open(files.read, "good", test.file)
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %s", test.file, err, test.want)
		}
		if db != nil {
			t.Errorf("%s: a database beside the error", test.file)
		}
	}
	if _, err := Open(files.read, "missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the reader's error is lost: %v", err)
	}
	if _, err := Open(files.read); err == nil {
		t.Error("no error without files")
	}
	if _, err := Open(files.read, strings.Split(strings.Repeat("good ", maxFiles+1), " ")...); err == nil {
		t.Error("no error for too many files")
	}
}

// A reload that fails leaves the Database of before untouched: it does not
// share memory with the bytes that were read.
func TestOldDatabaseStays(t *testing.T) {
	files := disk{"x": writeMMDB(t, mmdbwriter.Options{DatabaseType: "country"}, map[string]mmdbtype.DataType{"81.2.0.0/16": code("country_code", "DE")})}
	db, err := Open(files.read, "x")
	if err != nil {
		t.Fatal(err)
	}
	table, err := Compile(db, nil, func(p Place) Class { return Class(len(p.Country)) })
	if err != nil {
		t.Fatal(err)
	}
	clear(files["x"]) // the file is overwritten in place
	if _, err := Open(files.read, "x"); err == nil {
		t.Fatal("no error for a file of zeros")
	}
	addr := netip.MustParseAddr("81.2.3.4")
	if p, _ := db.Lookup(addr); p.Country != "DE" {
		t.Errorf("the old database says %+v", p)
	}
	if class, _ := table.Lookup(addr); class != 2 {
		t.Errorf("the old table says class %d", class)
	}
}

// A tree whose nodes point back into it has endless leaves; opening must end.
func TestOpenTreeThatJoinsItself(t *testing.T) {
	data := writeMMDB(t, mmdbwriter.Options{DatabaseType: "country", RecordSize: 24, DisableIPv4Aliasing: true},
		map[string]mmdbtype.DataType{"2a01:4f8::/128": code("country_code", "DE")})
	for node := 0; node < 100; node++ { // both sides of node n are node n+1
		for side := 0; side < 2; side++ {
			at := node*6 + side*3
			data[at], data[at+1], data[at+2] = 0, 0, byte(node+1)
		}
	}
	if _, err := parse(data); err == nil || !strings.Contains(err.Error(), "search tree") {
		t.Errorf("error %v", err)
	}
}

// FuzzOpen damages a real file: it must open or be refused, never panic or hang,
// and what opens must be sound.
func FuzzOpen(f *testing.F) {
	valid := [][]byte{
		writeMMDB(f, mmdbwriter.Options{DatabaseType: "GeoLite2-City"}, map[string]mmdbtype.DataType{
			"81.2.69.0/24": cityRecord(), "2a01:4f8::/32": cityRecord(),
		}),
		writeMMDB(f, mmdbwriter.Options{DatabaseType: "country", IPVersion: 4, RecordSize: 24}, map[string]mmdbtype.DataType{
			"1.0.0.0/9": code("country_code", "DE"), "1.128.0.0/9": code("country_code", "US"),
		}),
	}
	for which := range valid {
		f.Add(uint8(which), uint32(0), byte(0), uint32(1<<20))
		f.Add(uint8(which), uint32(3), byte(255), uint32(1<<20))
		f.Add(uint8(which), uint32(40), byte(1), uint32(300))
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint32, flip byte, length uint32) {
		data := bytes.Clone(valid[int(which)%len(valid)])
		data[int(at)%len(data)] ^= flip
		data = data[:min(len(data), int(length))]
		db, err := parse(data)
		if err != nil {
			return
		}
		checkSpans(t, &db.v4)
		checkSpans(t, &db.v6)
		for prefix, place := range db.All() {
			if got, _ := db.Lookup(prefix.Addr()); got != place && !prefix.Addr().Is4In6() {
				t.Fatalf("%s: All says %+v, Lookup %+v", prefix, place, got)
			}
		}
	})
}

// An ASN file alone opens, because it may follow a City file or stand beside the
// operator's networks; but what it cannot tell is said, not left to be found out.
func TestInfoSaysWhatIsKnown(t *testing.T) {
	file := func(kind string, data mmdbtype.DataType) []byte {
		return writeMMDB(t, mmdbwriter.Options{DatabaseType: kind}, map[string]mmdbtype.DataType{"81.2.69.0/24": data})
	}
	files := disk{
		"asn.mmdb":       file("GeoLite2-ASN", mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(64500)}),
		"isp.mmdb":       file("GeoIP2-ISP", mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(64501)}),
		"city.mmdb":      file("GeoLite2-City", cityRecord()),
		"country.mmdb":   file("country", code("country_code", "DE")),
		"continent.mmdb": file("GeoLite2-Country", mmdbtype.Map{"continent": code("code", "EU")}),
		"points.mmdb": file("own", mmdbtype.Map{
			"asn": mmdbtype.String("AS64500"), "lat": mmdbtype.String("1.5"), "lng": mmdbtype.String("2.5"),
		}),
	}
	const nowhere = " no countries and no positions: the place of every client is unknown, except in your own networks"
	for _, test := range []struct {
		files   []string
		want    Knowledge
		warning string
	}{
		{[]string{"asn.mmdb"}, Knowledge{ASN: true}, "asn.mmdb knows" + nowhere},
		{[]string{"asn.mmdb", "isp.mmdb"}, Knowledge{ASN: true}, "asn.mmdb + isp.mmdb know" + nowhere},
		{[]string{"city.mmdb"}, Knowledge{Country: true, Continent: true, Point: true}, ""},
		{[]string{"country.mmdb"}, Knowledge{Country: true, Continent: true, Point: true}, ""},
		{[]string{"asn.mmdb", "city.mmdb"}, Knowledge{Country: true, Continent: true, Point: true, ASN: true}, ""},
		{[]string{"continent.mmdb"}, Knowledge{Continent: true, Point: true}, "continent.mmdb knows continents but no countries: rules for countries match no client, except in your own networks"},
		{[]string{"points.mmdb"}, Knowledge{Point: true, ASN: true}, "points.mmdb knows positions but no countries: geo policies decide for no client, except in your own networks"},
	} {
		db, err := Open(files.read, test.files...)
		if err != nil {
			t.Fatal(err)
		}
		if got := db.Info().Has; got != test.want {
			t.Errorf("%v: has %+v, want %+v", test.files, got, test.want)
		}
		if got := strings.Join(db.Warnings(), "; "); got != test.warning {
			t.Errorf("%v: warns\n%q, want\n%q", test.files, got, test.warning)
		}
		place, _ := db.Lookup(netip.MustParseAddr("81.2.69.1"))
		if got := (Knowledge{place.Country != "", place.Continent != "", !place.Point.IsZero(), place.ASN != 0}); got != test.want {
			t.Errorf("%v: the place %+v is not %+v", test.files, place, test.want)
		}
	}
	db, err := Embedded()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := db.Info().Has, (Knowledge{Country: true, Continent: true, Point: true}); got != want || db.Warnings() != nil {
		t.Errorf("the embedded data has %+v, want %+v; it warns %q", got, want, db.Warnings())
	}
	if got := (&Database{}).Warnings(); len(got) != 1 || got[0] != "the geo data knows"+nowhere {
		t.Errorf("the empty database warns %q", got)
	}
}
