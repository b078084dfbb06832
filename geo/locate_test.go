package geo

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestLocate(t *testing.T) {
	for _, test := range []struct {
		name string
		want Location
	}{
		{"FRA", Location{"FRA", Point{50.04, 8.56}, "DE", "EU"}},
		{" fra ", Location{" fra ", Point{50.04, 8.56}, "DE", "EU"}},
		{"IAD", Location{"IAD", Point{38.94, -77.46}, "US", "NA"}},
		{"SIN", Location{"SIN", Point{1.35, 103.99}, "SG", "AS"}},
		{"GRU", Location{"GRU", Point{-23.43, -46.47}, "BR", "SA"}},
		{"LON", Location{"LON", Point{51.51, -0.13}, "GB", "EU"}},
		{"aws:us-east-1", Location{"aws:us-east-1", Point{39.04, -77.49}, "US", "NA"}},
		{"GCP:europe-west3", Location{"GCP:europe-west3", Point{50.12, 8.68}, "DE", "EU"}},
		{"azure:westeurope", Location{"azure:westeurope", Point{52.37, 4.89}, "NL", "EU"}},
		{"1.35,103.99", Location{"1.35,103.99", Point{1.35, 103.99}, "SG", "AS"}},
		{"-33.9, 151.2", Location{"-33.9, 151.2", Point{-33.9, 151.2}, "AU", "OC"}},
		{"90,180", Location{"90,180", Point{90, 180}, "NO", "EU"}},
	} {
		got, err := Locate(test.name)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

func TestLocateErrors(t *testing.T) {
	for _, test := range []struct{ name, want string }{
		{"", "empty location: " + locationForms},
		{"FRX", `unknown airport "FRX": did you mean FRA (Frankfurt am Main)`},
		{"RFA", `FRA (Frankfurt am Main)`},
		{"QQQ", `unknown airport "QQQ"`},
		{"frankfurt", `unknown location "frankfurt": did you mean FRA (Frankfurt am Main)`},
		{"nowhere at all", `unknown location "nowhere at all": ` + locationForms},
		{"aws:us-esat-1", `unknown region in location "aws:us-esat-1": did you mean aws:us-east-1 (Ashburn)`},
		{"aws:us-east-1a", `did you mean aws:us-east-1 (Ashburn)`},
		{"gcp:us-east-1", `did you mean gcp:us-east1 (Moncks Corner)`},
		{"ibm:us-south", `unknown cloud provider "ibm" in location "ibm:us-south": known are aws, azure, digitalocean, gcp`},
		{"91,0", `latitude 91 is not in -90…90; latitude comes first`},
		{"NaN,1", `latitude NaN is not in`},
		{"1,181", `longitude 181 is not in -180…180`},
		{"1,inf", `longitude inf is not in`},
		{"0,0", `location "0,0" stands for unknown`},
		{"1", `unknown location "1": ` + locationForms},
		{"1,2,3", `unknown location "1,2,3": ` + locationForms},
		{"1;2", `unknown location "1;2": ` + locationForms},
	} {
		got, err := Locate(test.name)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %+v, error %v, want %s", test.name, got, err, test.want)
		}
	}
}

// Every landmark of the embedded tables is found by its own code, in a country
// that is known.
func TestLandmarks(t *testing.T) {
	l := theLandmarks()
	if len(l.airports) < 3000 || len(l.clouds) < 250 {
		t.Errorf("%d airports, %d cloud regions", len(l.airports), len(l.clouds))
	}
	for _, list := range [][]landmark{l.airports, l.clouds} {
		for i, mark := range list {
			if i > 0 && list[i-1].code >= mark.code {
				t.Errorf("%s after %s: not sorted", mark.code, list[i-1].code)
			}
			got, err := Locate(mark.code)
			if err != nil || got.Point != mark.point || got.Point.IsZero() || got.Continent == "" {
				t.Errorf("%s: %+v, %v", mark.code, got, err)
			}
		}
	}
}

func TestParsePlace(t *testing.T) {
	centre := func(code string) Point { p, _, _ := Country(code); return p }
	california, ok := regionCentre("US", "CA")
	if !ok {
		t.Fatal("no centre for California")
	}
	for _, test := range []struct {
		name string
		want Place
	}{
		{"BR", Place{Country: "BR", Continent: "SA", Point: centre("BR")}},
		{"br", Place{Country: "BR", Continent: "SA", Point: centre("BR")}},
		{"US-CA", Place{Country: "US", Region: "CA", Continent: "NA", Point: california}},
		{"FR-IDF", Place{Country: "FR", Region: "IDF", Continent: "EU", Point: centre("FR")}},
		{"continent:SA", Place{Continent: "SA", Point: continentCentre("SA")}},
		{"Continent:eu", Place{Continent: "EU", Point: continentCentre("EU")}},
	} {
		got, err := ParsePlace(test.name)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
	for _, test := range []struct{ name, want string }{
		{"", `unknown place "": ` + placeForms},
		{"Brazil", `unknown place "Brazil": ` + placeForms},
		{"UK", `unknown country "UK" in "UK": did you mean GB?`},
		{"EU", `did you mean continent:EU?`},
		{"ED", `did you mean DE?`},
		{"QQ", `write an ISO 3166-1 code of two letters`},
		{"US-CALI", `region in "US-CALI"`},
		{"US-", `region in "US-"`},
		{"continent:XX", `unknown continent in "continent:XX"`},
		{"planet:EU", `unknown place "planet:EU"`},
	} {
		if got, err := ParsePlace(test.name); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %+v, error %v, want %s", test.name, got, err, test.want)
		}
	}
}

func TestDistance(t *testing.T) {
	fra, iad := Point{50.033, 8.570}, Point{38.944, -77.456}
	for _, test := range []struct {
		name string
		a, b Point
		want float64
	}{
		{"Frankfurt to Dulles", fra, iad, 6_530},
		{"a degree of latitude", Point{0, 10}, Point{1, 10}, 111.2},
		{"across the date line", Point{0, 179.5}, Point{0, -179.5}, 111.2},
		{"to the antipodes", Point{0, 1}, Point{0, -179}, math.Pi * earthRadius},
		{"pole to pole", Point{90, 0}, Point{-90, 77}, math.Pi * earthRadius},
	} {
		if got := Distance(test.a, test.b); math.Abs(got-test.want) > test.want/200 {
			t.Errorf("%s: %.1f km, want %.1f", test.name, got, test.want)
		}
	}
	point := rapid.Custom(func(t *rapid.T) Point {
		return Point{rapid.Float64Range(-90, 90).Draw(t, "lat"), rapid.Float64Range(-180, 180).Draw(t, "lon")}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := point.Draw(t, "a"), point.Draw(t, "b"), point.Draw(t, "c")
		ab, ba := Distance(a, b), Distance(b, a)
		if math.Abs(ab-ba) > 1e-6 || Distance(a, a) != 0 || ab < 0 || ab > 20_016 {
			t.Fatalf("d(a,b)=%v d(b,a)=%v", ab, ba)
		}
		if ab > Distance(a, c)+Distance(c, b)+1e-3 {
			t.Fatal("the straight way is longer than one through c")
		}
	})
}

func TestCountry(t *testing.T) {
	for _, test := range []struct {
		code, continent string
		lat, lon        float64
	}{{"DE", "EU", 51, 10}, {"US", "NA", 39, -93}, {"FJ", "OC", -18, 178}, {"IO", "AS", -7, 72}} {
		centre, continent, ok := Country(test.code)
		if !ok || continent != test.continent || Distance(centre, Point{test.lat, test.lon}) > 150 {
			t.Errorf("%s: %v, %q, %t", test.code, centre, continent, ok)
		}
	}
	for _, code := range []string{"", "XX", "de", "DEU"} {
		if _, _, ok := Country(code); ok {
			t.Errorf("%q is a country", code)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"FRA", "FRA", 0}, {"FRA", "FRX", 1}, {"FRA", "RFA", 1}, {"FRA", "", 3}, {"us-esat-1", "us-east-1", 1}, {"abc", "cab", 2}} {
		if got := editDistance(test.a, test.b); got != test.want || editDistance(test.b, test.a) != test.want {
			t.Errorf("%q to %q: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

// FuzzLocate: whatever an operator writes, Locate answers with a position on
// the globe or with an error.
func FuzzLocate(f *testing.F) {
	for _, seed := range []string{"FRA", "aws:us-east-1", "1.35,103.99", "91,0", ":", ",", "\xff", "continent:EU", "US-CA"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Locate(text)
		if err == nil && (got.Point.IsZero() || !onGlobe(got.Point.Lat, got.Point.Lon) || got.Text != text || got.Country == "") {
			t.Errorf("%q: %+v", text, got)
		}
		place, err := ParsePlace(text)
		if err == nil && (place.Continent == "" || place.Point.IsZero()) {
			t.Errorf("%q: %+v", text, place)
		}
	})
}
