package geo

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/oschwald/geoip2-golang/v2"
	"github.com/oschwald/maxminddb-golang/v2"
)

// A schema decodes one record of an mmdb file.
type schema func(maxminddb.Result) (record, error)

// schemaOf chooses by the name of the database type, and for names that it
// does not know by the fields of the first records.
func schemaOf(reader *maxminddb.Reader) (schema, error) {
	name := reader.Metadata.DatabaseType
	if kind, ok := maxmindKind(name); ok {
		switch kind {
		case "City", "Precision-City":
			return decodeCity, nil
		case "Enterprise", "Precision-Enterprise":
			return decodeEnterprise, nil
		case "Country", "Precision-Country":
			return decodeCountry, nil
		case "ASN", "ISP":
			return decodeASN, nil
		}
		return nil, fmt.Errorf("database type %q has no places: City, Country, Enterprise, ASN and ISP have", name)
	}
	shape, err := shapeOf(reader)
	if err != nil {
		return nil, fmt.Errorf("damaged mmdb file: %w", err)
	}
	switch {
	case shape.nested:
		return decodeCity, nil // Country is the same without cities
	case shape.flat:
		return decodeFlat, nil
	}
	return nil, fmt.Errorf("database type %q has no country and no ASN that pharos can read", name)
}

// maxmindKind returns the kind of a MaxMind type name: "City" for
// "GeoLite2-City" and "GeoIP2-City-Europe". ok is false for other vendors'.
func maxmindKind(name string) (kind string, ok bool) {
	for _, vendor := range []string{"GeoIP2-", "GeoLite2-"} {
		rest, found := strings.CutPrefix(name, vendor)
		if !found {
			continue
		}
		for _, kind := range []string{
			"City", "Country", "Enterprise", "ASN", "ISP", "Precision-City", "Precision-Country", "Precision-Enterprise",
		} {
			if rest == kind || strings.HasPrefix(rest, kind+"-") {
				return kind, true
			}
		}
		return rest, true
	}
	return "", false
}

// A shape is what the fields of a record tell.
type shape struct {
	nested bool // "country" or "continent" is a map, as MaxMind's and DB-IP's are
	flat   bool // there are flat fields that flatRecord knows
}

// maxSamples bounds how many records shapeOf looks at: the first may be empty.
const maxSamples = 64

func shapeOf(reader *maxminddb.Reader) (shape, error) {
	samples := 0
	for result := range reader.Networks() {
		if samples++; samples > maxSamples {
			break
		}
		var fields map[string]any
		if err := result.Decode(&fields); err != nil {
			return shape{}, fmt.Errorf("record of %s: %w", result.Prefix(), err)
		}
		for _, name := range []string{"country", "continent", "registered_country"} {
			if _, ok := fields[name].(map[string]any); ok {
				return shape{nested: true}, nil
			}
		}
		for _, name := range []string{"country_code", "country", "autonomous_system_number", "asn", "continent_code"} {
			if _, ok := fields[name]; ok {
				return shape{flat: true}, nil
			}
		}
	}
	return shape{}, nil
}

func decodeCity(result maxminddb.Result) (record, error) {
	var city geoip2.City
	if err := result.Decode(&city); err != nil {
		return record{}, err
	}
	r := countryRecord(city.Country.ISOCode, city.RegisteredCountry.ISOCode, city.Continent.Code)
	if len(city.Subdivisions) > 0 { // the largest first
		r.setRegion(city.Subdivisions[0].ISOCode)
	}
	if lat, lon := city.Location.Latitude, city.Location.Longitude; lat != nil && lon != nil {
		r.setPoint(*lat, *lon)
	}
	return r, nil
}

// decodeEnterprise is decodeCity for records that also have the ASN.
func decodeEnterprise(result maxminddb.Result) (record, error) {
	var enterprise geoip2.Enterprise
	if err := result.Decode(&enterprise); err != nil {
		return record{}, err
	}
	r := countryRecord(enterprise.Country.ISOCode, enterprise.RegisteredCountry.ISOCode, enterprise.Continent.Code)
	if len(enterprise.Subdivisions) > 0 {
		r.setRegion(enterprise.Subdivisions[0].ISOCode)
	}
	if lat, lon := enterprise.Location.Latitude, enterprise.Location.Longitude; lat != nil && lon != nil {
		r.setPoint(*lat, *lon)
	}
	r.setASN(uint64(enterprise.Traits.AutonomousSystemNumber))
	return r, nil
}

// countryRecord takes the country, or for the few networks that have none where
// they are registered.
func countryRecord(country, registered, continent string) record {
	var r record
	r.setCountry(country)
	if country == "" {
		r.setCountry(registered)
	}
	r.setContinent(continent)
	return r
}

func decodeCountry(result maxminddb.Result) (record, error) {
	var country geoip2.Country
	if err := result.Decode(&country); err != nil {
		return record{}, err
	}
	return countryRecord(country.Country.ISOCode, country.RegisteredCountry.ISOCode, country.Continent.Code), nil
}

func decodeASN(result maxminddb.Result) (record, error) {
	var asn geoip2.ASN // an ISP record begins with the same fields
	if err := result.Decode(&asn); err != nil {
		return record{}, err
	}
	var r record
	r.setASN(uint64(asn.AutonomousSystemNumber))
	return r, nil
}

// A flatRecord has the fields of ip-location-db's files (country_code,
// autonomous_system_number), of IPinfo's (country or country_code,
// continent_code, region_code, asn as "AS64500", lat and lng as text) and of
// DB-IP's ASN files. Fields that differ in kind between vendors are any.
type flatRecord struct {
	CountryCode   string `maxminddb:"country_code"`
	Country       any    `maxminddb:"country"`
	ContinentCode string `maxminddb:"continent_code"`
	Continent     any    `maxminddb:"continent"`
	RegionCode    any    `maxminddb:"region_code"`
	ASN           any    `maxminddb:"asn"`
	Number        any    `maxminddb:"autonomous_system_number"`
	Lat           any    `maxminddb:"lat"`
	Lng           any    `maxminddb:"lng"`
	Latitude      any    `maxminddb:"latitude"`
	Longitude     any    `maxminddb:"longitude"`
}

func decodeFlat(result maxminddb.Result) (record, error) {
	var flat flatRecord
	if err := result.Decode(&flat); err != nil {
		return record{}, err
	}
	var r record
	for _, code := range []any{flat.CountryCode, flat.Country} {
		if text, ok := code.(string); ok && r.country == [2]byte{} {
			r.setCountry(text) // does nothing with a country's name
		}
	}
	for _, code := range []any{flat.ContinentCode, flat.Continent} {
		if text, ok := code.(string); ok && r.continent == [2]byte{} {
			r.setContinent(text)
		}
	}
	if code, ok := flat.RegionCode.(string); ok {
		r.setRegion(code)
	}
	for _, number := range []any{flat.Number, flat.ASN} {
		if r.asn == 0 {
			r.setASN(asnOf(number))
		}
	}
	for _, pair := range [][2]any{{flat.Latitude, flat.Longitude}, {flat.Lat, flat.Lng}} {
		lat, ok1 := degreesOf(pair[0])
		lon, ok2 := degreesOf(pair[1])
		if ok1 && ok2 {
			r.setPoint(lat, lon)
		}
	}
	return r, nil
}

// asnOf reads 64500, "64500" and "AS64500"; 0 is none.
func asnOf(value any) uint64 {
	switch v := value.(type) {
	case uint64:
		return v
	case string:
		if len(v) > 2 && strings.EqualFold(v[:2], "AS") {
			v = v[2:]
		}
		n, err := strconv.ParseUint(v, 10, 32)
		if err == nil {
			return n
		}
	}
	return 0
}

func degreesOf(value any) (float64, bool) {
	switch v := value.(type) {
	case float64:
		return v, true
	case float32:
		return float64(v), true
	case string:
		d, err := strconv.ParseFloat(v, 64)
		return d, err == nil
	}
	return 0, false
}
