package geo

import (
	"bytes"
	"net/netip"
	"testing"
	"time"
)

func TestEmbeddedKnowsFacts(t *testing.T) {
	db, err := Embedded()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ addr, country, continent string }{
		{"46.4.0.0", "DE", "EU"},
		{"8.8.8.0", "US", "NA"},
		{"203.116.0.0", "SG", "AS"},
		{"81.2.69.142", "GB", "EU"},
		{"::ffff:81.2.69.142", "GB", "EU"},
		{"200.160.2.3", "BR", "SA"},
		{"196.25.1.1", "ZA", "AF"},
		{"1.1.1.1", "AU", "OC"},
		{"2a01:4f8::1", "DE", "EU"},
		{"2620:fe::fe", "US", "NA"},
		{"2001:240::1", "JP", "AS"},
		{"2804::1", "BR", "SA"},
		{"77.88.8.8", "RU", "EU"},
		{"10.0.0.1", "", ""},
		{"127.0.0.1", "", ""},
		{"::1", "", ""},
		{"fe80::1", "", ""},
		{"192.0.2.1", "", ""},
		{"203.0.113.9", "", ""},
		{"2001:db8::1", "", ""},
	} {
		place, prefix := db.Lookup(netip.MustParseAddr(test.addr))
		if place.Country != test.country || place.Continent != test.continent {
			t.Errorf("%s is in %q, %q; want %q, %q", test.addr, place.Country, place.Continent, test.country, test.continent)
		}
		if !prefix.Contains(netip.MustParseAddr(test.addr).Unmap()) {
			t.Errorf("%s is not in %s", test.addr, prefix)
		}
		if centre, _, _ := Country(test.country); place.Point != centre {
			t.Errorf("%s is at %v, want the centre %v", test.addr, place.Point, centre)
		}
	}
}

// Countries on two continents, and islands that lists disagree about, have the
// continent that GeoNames and MaxMind's files give them: the same client must
// not change sites because the operator adds a file. Russia is the one that
// costs most, with three quarters of its people west of the Urals.
func TestContinentOfCountriesBetweenTwo(t *testing.T) {
	for code, want := range map[string]string{
		"AM": "AS", "AZ": "AS", "CC": "AS", "CX": "OC", "CY": "EU", "DK": "EU", "EG": "AF", "GE": "AS",
		"GF": "SA", "GL": "NA", "GR": "EU", "GS": "AN", "ID": "AS", "IL": "AS", "IS": "EU", "KZ": "AS", "MT": "EU",
		"PA": "NA", "RE": "AF", "RU": "EU", "SJ": "EU", "TL": "OC", "TR": "AS", "TT": "NA", "UM": "OC", "XK": "EU", "YE": "AS",
	} {
		if _, got, ok := Country(code); !ok || got != want {
			t.Errorf("%s is on %q, %t; want %q", code, got, ok, want)
		}
	}
}

func TestEmbeddedIsSound(t *testing.T) {
	db, err := Embedded()
	if err != nil {
		t.Fatal(err)
	}
	checkSpans(t, &db.v4)
	checkSpans(t, &db.v6)
	info := db.Info()
	if info.Built.Before(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) || info.Name != "embedded country data" {
		t.Errorf("info %+v", info)
	}
	if info.Bytes > 6<<20 {
		t.Errorf("the country data takes %d bytes of memory; the budget is 6 MB", info.Bytes)
	}
	for _, r := range db.records[1:] {
		if p := r.place(); p.Point.IsZero() || p.Continent == "" {
			t.Errorf("%s has point %v, continent %q", p.Country, p.Point, p.Continent)
		}
	}
	again, err := Embedded()
	if err != nil || again != db {
		t.Error("Embedded does not return the same Database again")
	}
}

func TestEmbeddedDamaged(t *testing.T) {
	for name, data := range map[string][]byte{
		"empty":    nil,
		"cut off":  embeddedRanges[:len(embeddedRanges)/2],
		"no magic": bytes.Repeat([]byte{1}, 100),
	} {
		if db, err := unpack(data); err == nil || db != nil {
			t.Errorf("%s: %v, %v", name, db, err)
		}
	}
}

// The whole way from nothing to a table has a budget of 150 ms; this one is
// generous because the race detector and a loaded machine slow it down.
func TestReadyInTime(t *testing.T) {
	start := time.Now()
	db, err := unpack(embeddedRanges)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Compile(db, nil, nearestOrder(t)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("ready after %s", took)
	}
}
