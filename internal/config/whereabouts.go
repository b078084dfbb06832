package config

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/pharos-lb/pharos/geo"
)

// The words before a colon in the places of policies and tests.
const (
	whereDefault   = "default"
	whereContinent = "continent:"
	whereNetwork   = "network:"
)

// continents are the codes of geo.Place.Continent.
func continents() []string { return []string{"AF", "AN", "AS", "EU", "NA", "OC", "SA"} }

// country is an ISO 3166-1 alpha-2 code that the geo data knows.
func country() *scalar {
	return &scalar{noun: "a country", kind: kindString, pattern: `^[A-Z]{2}$`, example: "DE", read: func(s string) (any, *problem) {
		if p := refuseCountry(s); p != nil {
			return nil, p
		}
		return s, nil
	}}
}

func refuseCountry(s string) *problem {
	if isUpper(s) && len(s) == 2 {
		if _, _, ok := geo.Country(s); ok {
			return nil
		}
		p := refuse("%q is not a country: write an ISO 3166-1 code like DE", s)
		if s == "UK" {
			p.try("GB")
		}
		return p
	}
	p := refuse("%q is not a country: write two capital letters like DE", clip(s))
	if up := strings.ToUpper(s); len(s) == 2 && isUpper(up) {
		p.try(up)
	}
	return p
}

// region is the part of an ISO 3166-2 code after the hyphen.
func region() *scalar {
	return &scalar{noun: "a region", kind: kindString, pattern: `^[A-Z0-9]{1,3}$`, example: "CA", read: func(s string) (any, *problem) {
		if !isRegion(s) {
			p := refuse("%q is not a region: write the part of its ISO 3166-2 code after the hyphen, like CA for US-CA", clip(s))
			if _, after, ok := strings.Cut(s, "-"); ok && isRegion(after) {
				p.try(after)
			} else if up := strings.ToUpper(s); isRegion(up) {
				p.try(up)
			}
			return nil, p
		}
		return s, nil
	}}
}

func isRegion(s string) bool {
	if len(s) < 1 || len(s) > 3 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'A' || c > 'Z') && !isDigit(c) {
			return false
		}
	}
	return true
}

func isUpper(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < 'A' || r > 'Z' })
}

// where is the key of a geo rule: whom the rule is for.
func where() *scalar {
	return &scalar{
		noun: "a place", kind: kindString, ref: refNetwork, example: "DE",
		pattern: `^([A-Z]{2}(-[A-Z0-9]{1,3})?|continent:[A-Z]{2}|network:.+|default)$`,
		read: func(s string) (any, *problem) {
			if s == whereDefault {
				return s, nil
			}
			return readPlace(s, `DE, US-CA, "continent:EU", "network:NAME" or default`)
		},
	}
}

// from is where a test's client is: a place or an address.
func from() *scalar {
	const forms = `an address, a prefix, DE, US-CA, "continent:EU" or "network:NAME"`
	return &scalar{noun: "a client", kind: kindString, ref: refNetwork, example: "DE", read: func(s string) (any, *problem) {
		if addr, err := netip.ParseAddr(s); err == nil {
			if p := refuseAddress(addr); p != nil {
				return nil, p
			}
			return s, nil
		}
		if strings.Contains(s, "/") {
			if _, p := readPrefix(s, "a client's prefix"); p != nil {
				return nil, p
			}
			return s, nil
		}
		return readPlace(s, forms)
	}}
}

func readPlace(s, forms string) (any, *problem) {
	if code, ok := strings.CutPrefix(s, whereContinent); ok {
		if slices.Contains(continents(), code) {
			return s, nil
		}
		p := refuse("%q is not a continent: write one of %s", clip(code), strings.Join(continents(), " "))
		if up := strings.ToUpper(code); slices.Contains(continents(), up) {
			p.try(whereContinent + up)
		}
		return nil, p
	}
	if name, ok := strings.CutPrefix(s, whereNetwork); ok {
		if !isLabel(name) {
			return nil, refuse("%q is not the name of a network", clip(name))
		}
		return s, nil
	}
	code, part, hasRegion := strings.Cut(s, "-")
	if len(code) != 2 || !isUpper(code) || hasRegion && !isRegion(part) {
		p := refuse("%q is not a place: write %s", clip(s), forms)
		if up := strings.ToUpper(s); up != s && isPlaceCode(up) {
			p.try(up)
		} else if slices.Contains([]string{"eu", "continent-eu", "europe"}, strings.ToLower(s)) {
			p.try("continent:EU")
		}
		return nil, p
	}
	if p := refuseCountry(code); p != nil {
		if slices.Contains(continents(), code) && !hasRegion {
			p.try(whereContinent + code)
		}
		return nil, p
	}
	return s, nil
}

func isPlaceCode(s string) bool {
	code, part, hasRegion := strings.Cut(s, "-")
	return len(code) == 2 && isUpper(code) && (!hasRegion || isRegion(part))
}

// location is where a site or a network is on the globe.
func location() *scalar {
	return &scalar{noun: "a location", kind: kindString, example: "FRA", read: func(s string) (any, *problem) {
		loc, err := geo.Locate(s)
		if err != nil {
			return nil, refuse("%s", oneLine(err.Error()))
		}
		return loc, nil
	}}
}

// oneLine makes another package's message fit into a line.
func oneLine(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || isControl(r) }), " ")
	return strings.TrimSpace(s)
}
