package geo

import (
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

//go:embed data/airports.tsv
var airportsText string

//go:embed data/clouds.tsv
var cloudsText string

// A landmark is an airport, a metropolitan area or a cloud region.
type landmark struct {
	code    string // "FRA", "aws:us-east-1"
	city    string
	country string
	point   Point
	large   bool // more likely to be meant
}

// landmarks are sorted by code.
type landmarks struct{ airports, clouds []landmark }

var theLandmarks = sync.OnceValue(func() *landmarks {
	l := &landmarks{}
	for f := range rows(airportsText, 6) {
		l.airports = append(l.airports, landmark{f[0], f[5], f[2], mustPoint(f[3], f[4]), f[1] != "M"})
	}
	for f := range rows(cloudsText, 5) {
		l.clouds = append(l.clouds, landmark{f[0], f[4], f[1], mustPoint(f[2], f[3]), true})
	}
	return l
})

// Locate finds a site's position from what an operator writes: an IATA code of
// an airport with scheduled service or of a metropolitan area ("FRA", "LON"), a
// cloud region ("aws:us-east-1") or latitude and longitude in degrees
// ("1.35,103.99"). Case and surrounding blanks do not matter. The error says
// what is wrong and names what may have been meant.
func Locate(text string) (Location, error) {
	trimmed := strings.TrimSpace(text)
	switch {
	case trimmed == "":
		return Location{}, fmt.Errorf("empty location: %s", locationForms)
	case strings.Contains(trimmed, ":"):
		return locateCloud(text, strings.ToLower(trimmed))
	case strings.ContainsAny(trimmed, ",;0123456789"):
		return locatePoint(text, trimmed)
	}
	return locateAirport(text, trimmed)
}

const locationForms = `write an IATA code ("FRA"), a cloud region ("aws:us-east-1") or coordinates ("1.35,103.99")`

func locateAirport(text, name string) (Location, error) {
	airports := theLandmarks().airports
	code := strings.ToUpper(name)
	i, ok := slices.BinarySearchFunc(airports, code, landmark.compare)
	if ok {
		return airports[i].location(text), nil
	}
	if len(code) == 3 {
		return Location{}, fmt.Errorf("unknown airport %q%s", text, hint(nearCodes(airports, code)))
	}
	if named := byCity(airports, name); len(named) > 0 {
		return Location{}, fmt.Errorf("unknown location %q%s", text, hint(named))
	}
	return Location{}, fmt.Errorf("unknown location %q: %s", text, locationForms)
}

func locateCloud(text, code string) (Location, error) {
	clouds := theLandmarks().clouds
	i, ok := slices.BinarySearchFunc(clouds, code, landmark.compare)
	if ok {
		return clouds[i].location(text), nil
	}
	provider, _, _ := strings.Cut(code, ":")
	var regions []landmark
	var providers []string
	for _, c := range clouds {
		name, _, _ := strings.Cut(c.code, ":")
		if name == provider {
			regions = append(regions, c)
		}
		if !slices.Contains(providers, name) {
			providers = append(providers, name)
		}
	}
	if len(regions) == 0 {
		return Location{}, fmt.Errorf("unknown cloud provider %q in location %q: known are %s; or write coordinates",
			provider, text, strings.Join(providers, ", "))
	}
	return Location{}, fmt.Errorf("unknown region in location %q%s; a new region can be given by its coordinates",
		text, hint(nearCodes(regions, code)))
}

func locatePoint(text, trimmed string) (Location, error) {
	latText, lonText, ok := strings.Cut(trimmed, ",")
	lat, err1 := strconv.ParseFloat(strings.TrimSpace(latText), 64)
	lon, err2 := strconv.ParseFloat(strings.TrimSpace(lonText), 64)
	switch {
	case !ok || err1 != nil || err2 != nil:
		return Location{}, fmt.Errorf("unknown location %q: %s", text, locationForms)
	case !(lat >= -90 && lat <= 90):
		return Location{}, fmt.Errorf("location %q: latitude %s is not in -90…90; latitude comes first",
			text, strings.TrimSpace(latText))
	case !(lon >= -180 && lon <= 180):
		return Location{}, fmt.Errorf("location %q: longitude %s is not in -180…180", text, strings.TrimSpace(lonText))
	case lat == 0 && lon == 0:
		return Location{}, fmt.Errorf("location %q stands for unknown; if the site is there, write 0.0001,0", text)
	}
	point := Point{lat, lon}
	near := nearestAirport(point)
	_, continent, _ := Country(near.country)
	return Location{Text: text, Point: point, Country: near.country, Continent: continent}, nil
}

func nearestAirport(p Point) landmark {
	return slices.MinFunc(theLandmarks().airports, func(a, b landmark) int {
		switch da, db := Distance(p, a.point), Distance(p, b.point); {
		case da < db:
			return -1
		case da > db:
			return 1
		}
		return 0
	})
}

func (l landmark) compare(code string) int { return strings.Compare(l.code, code) }

func (l landmark) location(text string) Location {
	_, continent, _ := Country(l.country)
	return Location{Text: text, Point: l.point, Country: l.country, Continent: continent}
}

func (l landmark) String() string {
	if l.city == "" {
		return l.code
	}
	return l.code + " (" + l.city + ")"
}
