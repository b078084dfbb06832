package geo

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxSuggestions bounds what an error names.
const maxSuggestions = 3

// hint is ": did you mean …?" for an error's end; "" without suggestions.
func hint(near []landmark) string {
	if len(near) == 0 {
		return ""
	}
	names := make([]string, len(near))
	for i, l := range near {
		names[i] = l.String()
	}
	last := len(names) - 1
	if last == 0 {
		return ": did you mean " + names[0] + "?"
	}
	return ": did you mean " + strings.Join(names[:last], ", ") + " or " + names[last] + "?"
}

// nearCodes returns the landmarks whose codes take the fewest edits to reach;
// of equally near ones large airports come first, then those whose beginning is
// right.
func nearCodes(all []landmark, code string) []landmark {
	type candidate struct {
		landmark
		edits, begin int
	}
	limit := max(1, utf8.RuneCountInString(code)/3)
	var near []candidate
	for _, l := range all {
		if edits := editDistance(code, l.code); edits <= limit {
			near = append(near, candidate{l, edits, commonPrefix(code, l.code)})
		}
	}
	slices.SortFunc(near, func(a, b candidate) int {
		return cmp.Or(
			cmp.Compare(a.edits, b.edits),
			compareTrueFirst(a.large, b.large),
			cmp.Compare(b.begin, a.begin),
			cmp.Compare(a.code, b.code),
		)
	})
	var out []landmark
	for _, c := range near[:min(len(near), maxSuggestions)] {
		out = append(out, c.landmark)
	}
	return out
}

// byCity returns the airports of a city by the beginning of its name, large
// ones first.
func byCity(all []landmark, name string) []landmark {
	name = strings.ToLower(name)
	if utf8.RuneCountInString(name) < 3 {
		return nil
	}
	var out []landmark
	for _, l := range all {
		if strings.HasPrefix(strings.ToLower(l.city), name) {
			out = append(out, l)
		}
	}
	slices.SortStableFunc(out, func(a, b landmark) int { return compareTrueFirst(a.large, b.large) })
	return out[:min(len(out), maxSuggestions)]
}

func compareTrueFirst(a, b bool) int {
	switch {
	case a && !b:
		return -1
	case b && !a:
		return 1
	}
	return 0
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// editDistance counts insertions, deletions, replacements and swaps of
// neighbours between a and b (optimal string alignment). Long texts are cut:
// codes are short.
func editDistance(a, b string) int {
	const longest = 40
	x, y := []rune(a), []rune(b)
	x, y = x[:min(len(x), longest)], y[:min(len(y), longest)]
	rows := [3][]int{make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)}
	before, last, row := rows[0], rows[1], rows[2]
	for j := range last {
		last[j] = j
	}
	for i := range x {
		row[0] = i + 1
		for j := range y {
			cost := 1
			if x[i] == y[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(y)]
}
