package config

import (
	"iter"
	"strings"
)

// nearest returns the known word that is the fewest edits from word, or "" when
// none is near enough to be what was meant. Ties go to the first in
// alphabetical order, so the answer does not depend on the order of known.
func nearest(word string, known iter.Seq[string]) string {
	const longest = 64 // characters; beyond it nobody mistypes, and the cost is bounded
	if len(word) == 0 || len(word) > longest {
		return ""
	}
	word = strings.ToLower(word)
	best, bestEdits := "", max(1, min(3, len(word)/3))+1
	for candidate := range known {
		if len(candidate) > longest || max(len(candidate)-len(word), len(word)-len(candidate)) > bestEdits {
			continue
		}
		edits := distance(word, strings.ToLower(candidate), bestEdits)
		if edits < bestEdits || edits == bestEdits && best != "" && candidate < best {
			best, bestEdits = candidate, edits
		}
	}
	return best
}

// distance is the number of insertions, deletions, substitutions and swaps of
// neighbours that turn a into b (optimal string alignment), or limit+1 when it is
// more than limit. Both are at most 64 bytes.
func distance(a, b string, limit int) int {
	var rows [3][65]int
	for j := range len(b) + 1 {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row := &rows[(i+1)%3], &rows[(i-1)%3], &rows[i%3]
		row[0] = i
		least := i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			edits := min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				edits = min(edits, before[j-2]+1)
			}
			row[j] = edits
			least = min(least, edits)
		}
		if least > limit {
			return limit + 1
		}
	}
	return min(rows[len(a)%3][len(b)], limit+1)
}
