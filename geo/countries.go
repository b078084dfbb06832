package geo

import (
	_ "embed"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
	"sync"
)

//go:embed data/countries.tsv
var countriesText string

//go:embed data/regions.tsv
var regionsText string

//go:embed data/continents.tsv
var continentsText string

// An atlas is the parsed tables of countries, regions and continents.
type atlas struct {
	countries  map[string]country
	regions    map[string]Point // by "US-CA"
	continents map[string]Point
}

type country struct {
	continent string
	centre    Point
}

var theAtlas = sync.OnceValue(func() *atlas {
	a := &atlas{map[string]country{}, map[string]Point{}, map[string]Point{}}
	for f := range rows(countriesText, 4) {
		a.countries[f[0]] = country{f[1], mustPoint(f[2], f[3])}
	}
	for f := range rows(regionsText, 3) {
		a.regions[f[0]] = mustPoint(f[1], f[2])
	}
	for f := range rows(continentsText, 3) {
		a.continents[f[0]] = mustPoint(f[1], f[2])
	}
	return a
})

// Country returns the population-weighted centre and the continent of an ISO
// 3166-1 alpha-2 code in upper case. ok is false for a code that is not
// assigned.
func Country(code string) (centre Point, continent string, ok bool) {
	c, ok := theAtlas().countries[code]
	return c.centre, c.continent, ok
}

// regionCentre knows the first-level divisions of the US, Switzerland and
// Belgium; ok is false elsewhere.
func regionCentre(country, region string) (Point, bool) {
	if region == "" {
		return Point{}, false
	}
	p, ok := theAtlas().regions[country+"-"+region]
	return p, ok
}

// continentCentre is the population-weighted centre; zero for no continent.
func continentCentre(code string) Point { return theAtlas().continents[code] }

func isContinent(code string) bool {
	_, ok := theAtlas().continents[code]
	return ok
}

const earthRadius = 6371.0088 // km, the mean radius of IUGG

// Distance is the great-circle distance in kilometres, 0 … about 20,015, by the
// haversine formula on a sphere: within 0.6 % of the ellipsoid. It does not know
// of unknown points: ask IsZero first.
func Distance(a, b Point) float64 {
	const radians = math.Pi / 180
	sinLat := math.Sin((b.Lat - a.Lat) * radians / 2)
	sinLon := math.Sin((b.Lon - a.Lon) * radians / 2)
	h := sinLat*sinLat + math.Cos(a.Lat*radians)*math.Cos(b.Lat*radians)*sinLon*sinLon
	return 2 * earthRadius * math.Asin(math.Sqrt(min(1, h)))
}

// rows yields the fields of each line of an embedded table. The tables are
// made by the generator and checked by a test, so a wrong line is a broken build.
func rows(text string, fields int) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		for line := range strings.Lines(text) {
			f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			if len(f) != fields {
				panic(fmt.Sprintf("geo: embedded table: line %q has %d fields, not %d", line, len(f), fields))
			}
			if !yield(f) {
				return
			}
		}
	}
}

func mustPoint(lat, lon string) Point {
	a, err1 := strconv.ParseFloat(lat, 64)
	b, err2 := strconv.ParseFloat(lon, 64)
	if err1 != nil || err2 != nil || !onGlobe(a, b) {
		panic(fmt.Sprintf("geo: embedded table: %s,%s is not on the globe", lat, lon))
	}
	return Point{a, b}
}
