package zone

import (
	"fmt"
	"strconv"
	"strings"
)

// A budget bounds what the $GENERATE directives of all zones of a Set may
// become, so that a few lines of text cannot take all memory and time.
type budget struct{ records, octets int }

func newBudget() *budget { return &budget{maxGenerated, maxGeneratedText} }

// take charges a directive before it is expanded. It returns what is wrong if
// too little is left. What the parser will refuse is not charged.
func (b *budget) take(directive string) (fault string) {
	fields := strings.Fields(directive[:min(len(directive), 1024)])
	if len(fields) < 2 {
		return ""
	}
	text, stepText, _ := strings.Cut(fields[1], "/")
	from, to, _ := strings.Cut(text, "-")
	first, err1 := strconv.Atoi(from)
	last, err2 := strconv.Atoi(to)
	step, err3 := strconv.Atoi(stepText)
	if err3 != nil {
		step = 1
	}
	if err1 != nil || err2 != nil || first < 0 || last < first || step < 1 {
		return ""
	}
	records := (last-first)/step + 1
	if records > 65536 {
		return ""
	}
	octets := records * expanded(directive)
	switch {
	case records > b.records:
		return fmt.Sprintf("$GENERATE makes %d records: the limit for all such lines of all zones is %d, and %d are left", records, maxGenerated, b.records)
	case octets > b.octets:
		return fmt.Sprintf("$GENERATE makes %d MiB of text: the limit for all such lines of all zones is %d MiB", octets>>20, maxGeneratedText>>20)
	}
	b.records -= records
	b.octets -= octets
	return ""
}

// expanded returns the most octets that one record of a directive has: each $
// becomes a number, of the width that its modifier ${offset,width,base} asks for.
func expanded(directive string) int {
	size := len(directive)
	for {
		_, rest, ok := strings.Cut(directive, "$")
		if !ok {
			return size
		}
		directive = rest
		size += 20
		if modifier, ok := strings.CutPrefix(rest, "{"); ok {
			modifier, _, _ = strings.Cut(modifier, "}")
			if parts := strings.SplitN(modifier, ",", 3); len(parts) > 1 {
				if width, err := strconv.ParseUint(parts[1], 10, 8); err == nil {
					size += int(width)
				}
			}
		}
	}
}
