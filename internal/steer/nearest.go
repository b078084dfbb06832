package steer

import (
	"cmp"
	"slices"
	"strings"
)

// didYouMean returns `; did you mean "fra"?` for the nearest of the known words, or some of them if none is near.
func didYouMean(word string, known []string) string {
	near := nearest(word, known, 1)
	if len(near) == 0 {
		return "; known: " + strings.Join(known[:min(len(known), 10)], ", ")
	}
	return `; did you mean "` + near[0] + `"?`
}

// nearest returns up to limit of the known words within a third of the word's
// length in edits, the nearest first.
func nearest(word string, known []string, limit int) []string {
	type candidate struct {
		word  string
		edits int
	}
	most := max(len(word)/3, 1)
	var found []candidate
	for _, k := range known {
		if abs(len(k)-len(word)) > most {
			continue
		}
		if d := edits(word, k); d <= most {
			found = append(found, candidate{k, d})
		}
	}
	slices.SortFunc(found, func(a, b candidate) int {
		return cmp.Or(a.edits-b.edits, strings.Compare(a.word, b.word))
	})
	var words []string
	for _, c := range found[:min(len(found), limit)] {
		words = append(words, c.word)
	}
	return words
}

func abs(n int) int { return max(n, -n) }

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
