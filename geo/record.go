package geo

import "math"

// A record is a Place of a database in 20 bytes, before anything is derived
// from other tables. The zero record is "unknown".
type record struct {
	country, continent [2]byte
	region             [3]byte
	asn                uint32
	lat, lon           int32 // millionths of a degree; both zero = unknown
}

const (
	microdegrees = 1e6
	recordBytes  = 20
)

// setPoint keeps p if it is on the globe.
func (r *record) setPoint(lat, lon float64) {
	if !onGlobe(lat, lon) {
		return
	}
	r.lat, r.lon = int32(math.Round(lat*microdegrees)), int32(math.Round(lon*microdegrees))
}

func (r *record) setCountry(code string) {
	if code, ok := upperCode(code, 2, 2, false); ok {
		copy(r.country[:], code)
	}
}

func (r *record) setRegion(code string) {
	if code, ok := upperCode(code, 1, 3, true); ok {
		copy(r.region[:], code)
	}
}

func (r *record) setContinent(code string) {
	if code, ok := upperCode(code, 2, 2, false); ok && isContinent(code) {
		copy(r.continent[:], code)
	}
}

// setASN keeps n if it is an AS number.
func (r *record) setASN(n uint64) {
	if n <= math.MaxUint32 {
		r.asn = uint32(n)
	}
}

// fill takes from o what r leaves unknown. Details of another country are not
// taken: two databases may disagree, and a mixture would be neither's word.
func (r *record) fill(o record) {
	if r.asn == 0 {
		r.asn = o.asn
	}
	if r.country != [2]byte{} && o.country != [2]byte{} && r.country != o.country {
		return
	}
	if r.continent != [2]byte{} && o.continent != [2]byte{} && r.continent != o.continent {
		return
	}
	if r.region != [3]byte{} && o.region != [3]byte{} && r.region != o.region {
		return
	}
	if r.country == [2]byte{} {
		r.country = o.country
	}
	if r.continent == [2]byte{} {
		r.continent = o.continent
	}
	if r.region == [3]byte{} {
		r.region = o.region
	}
	if r.lat == 0 && r.lon == 0 {
		r.lat, r.lon = o.lat, o.lon
	}
}

// place widens r; continent and point follow from the country where the
// database does not give them.
func (r record) place() Place {
	p := Place{
		Country:   text(r.country[:]),
		Region:    text(r.region[:]),
		Continent: text(r.continent[:]),
		ASN:       r.asn,
		Point:     Point{float64(r.lat) / microdegrees, float64(r.lon) / microdegrees},
	}
	return derive(p)
}

// text returns the bytes before the first zero.
func text(b []byte) string {
	n := 0
	for n < len(b) && b[n] != 0 {
		n++
	}
	return string(b[:n])
}

// derive fills continent and point from region, country or continent.
func derive(p Place) Place {
	if p.Country != "" {
		centre, continent, _ := Country(p.Country)
		if p.Continent == "" {
			p.Continent = continent
		}
		if p.Point.IsZero() {
			p.Point = centre
			if region, ok := regionCentre(p.Country, p.Region); ok {
				p.Point = region
			}
		}
	}
	if p.Point.IsZero() && p.Continent != "" {
		p.Point = continentCentre(p.Continent)
	}
	return p
}

// upperCode returns text in upper case if it is a code of min to max letters
// (and digits, where they are allowed).
func upperCode(s string, min, max int, digits bool) (string, bool) {
	if len(s) < min || len(s) > max {
		return "", false
	}
	out := []byte(s)
	for i, c := range out {
		switch {
		case c >= 'a' && c <= 'z':
			out[i] = c - 'a' + 'A'
		case c >= 'A' && c <= 'Z', digits && c >= '0' && c <= '9':
		default:
			return "", false
		}
	}
	return string(out), true
}

func onGlobe(lat, lon float64) bool {
	return lat >= -90 && lat <= 90 && lon >= -180 && lon <= 180 // false for NaN
}
