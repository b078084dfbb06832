package geo

import (
	"fmt"
	"slices"
	"strings"
)

// ParsePlace reads a place as configs write it: a country ("BR"), a country and
// region ("US-CA", ISO 3166-2) or a continent ("continent:SA"). Case does not
// matter. The result has everything that follows: the country's continent, and
// as its point the population-weighted centre of the region where it is known,
// else of the country or continent. A region is not checked against a list, only
// its form. The error says what is wrong and what could have been meant.
func ParsePlace(text string) (Place, error) {
	trimmed := strings.TrimSpace(text)
	if kind, code, ok := strings.Cut(trimmed, ":"); ok {
		if !strings.EqualFold(kind, "continent") {
			return Place{}, fmt.Errorf("unknown place %q: %s", text, placeForms)
		}
		code, ok := upperCode(code, 2, 2, false)
		if !ok || !isContinent(code) {
			return Place{}, fmt.Errorf("unknown continent in %q: known are AF, AN, AS, EU, NA, OC, SA", text)
		}
		return derive(Place{Continent: code}), nil
	}
	countryText, regionText, hasRegion := strings.Cut(trimmed, "-")
	code, ok := upperCode(countryText, 2, 2, false)
	if !ok {
		return Place{}, fmt.Errorf("unknown place %q: %s", text, placeForms)
	}
	if _, _, ok := Country(code); !ok {
		return Place{}, fmt.Errorf("unknown country %q in %q%s", code, text, countryHint(code))
	}
	place := Place{Country: code}
	if hasRegion {
		region, ok := upperCode(regionText, 1, 3, true)
		if !ok {
			return Place{}, fmt.Errorf("region in %q: write the ISO 3166-2 code, 1 to 3 letters or digits, as in US-CA", text)
		}
		place.Region = region
	}
	return derive(place), nil
}

const placeForms = `write a country ("BR"), a country and region ("US-CA") or a continent ("continent:SA")`

// countryHint catches the codes that people take for ISO 3166-1 ones, and
// continents without their prefix.
func countryHint(code string) string {
	switch code {
	case "UK":
		return `: did you mean GB?`
	case "EL":
		return `: did you mean GR?`
	}
	if isContinent(code) {
		return fmt.Sprintf(": did you mean continent:%s?", code)
	}
	var near []string
	for known := range theAtlas().countries {
		if known[1] == code[0] && known[0] == code[1] {
			near = append(near, known)
		}
	}
	slices.Sort(near)
	if len(near) == 0 {
		return ": write an ISO 3166-1 code of two letters"
	}
	return ": did you mean " + near[0] + "?"
}
