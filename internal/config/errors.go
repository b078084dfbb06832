package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Error is one mistake in a file, with its place.
type Error struct {
	// File is the name given to Parse.
	File string
	// Line and Column count from 1; Column counts characters, not bytes. Both are
	// always inside the file: Column is at most one past the end of its line.
	Line, Column int
	// Path names the key: "services.web.check.every", "listeners[0].bind". It is
	// empty for mistakes in the YAML itself.
	Path string
	// Message says what is wrong and what to write instead, on one line.
	Message string
	// Hint names what was probably meant: `did you mean "ttl"?`. May be empty.
	Hint string
	// Source is the line of the file, with secrets masked.
	Source string
}

// Error returns one line: `pharos.yaml:14:5: services.web.tll: unknown key (did you mean "ttl"?)`.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", e.File, e.Line, e.Column)
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Message)
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Pretty returns Error followed by the source line and a caret under the column.
// It ends with a newline.
func (e *Error) Pretty() string {
	number := strconv.Itoa(e.Line)
	margin := strings.Repeat(" ", max(5-len(number), 0))
	excerpt, pad := excerpt(e.Source, e.Column)
	return fmt.Sprintf("%s\n%s%s | %s\n%s | %s^\n",
		e.Error(), margin, number, excerpt, margin+strings.Repeat(" ", len(number)), pad)
}

// excerpt returns the part of the line around the column and the padding that
// puts a caret under it. Tabs stay tabs in both, so the caret stays in place.
func excerpt(line string, column int) (text, pad string) {
	length := utf8.RuneCountInString(line)
	at := min(max(column-1, 0), length)
	from, to := 0, length
	if length > maxExcerpt {
		from = max(0, min(at-maxExcerpt/2, length-maxExcerpt))
		to = from + maxExcerpt
	}
	var show, padding strings.Builder
	if from > 0 {
		show.WriteRune('…')
		padding.WriteByte(' ')
	}
	i := 0
	for _, r := range line {
		if i >= to {
			show.WriteRune('…')
			break
		}
		if i++; i <= from {
			continue
		}
		under := ' '
		switch {
		case r == '\t':
			under = '\t'
		case !strconv.IsGraphic(r):
			r = '�' // control characters must not reach a terminal
		}
		show.WriteRune(r)
		if i <= at {
			padding.WriteRune(under)
		}
	}
	return show.String(), padding.String()
}

// Errors is every mistake of one file, in file order. Parse and Load return it as
// the error; it is never empty then.
type Errors []*Error

// Error returns the first mistake and the number of the others, on one line.
func (e Errors) Error() string {
	switch len(e) {
	case 0:
		return "no errors"
	case 1:
		return e[0].Error()
	default:
		return fmt.Sprintf("%s (and %d more)", e[0].Error(), len(e)-1)
	}
}

// Unwrap returns the mistakes, for errors.As.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// Pretty returns the first 50 mistakes with their source lines and carets, and
// how many more there are. It ends with a newline.
func (e Errors) Pretty() string {
	var b strings.Builder
	for i, one := range e {
		if i == maxPrinted {
			fmt.Fprintf(&b, "and %d more\n", len(e)-maxPrinted)
			break
		}
		b.WriteString(one.Pretty())
	}
	return b.String()
}

// inOrder sorts by position, then by text, and drops repeats.
func (e Errors) inOrder() Errors {
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path),
			cmp.Compare(a.Message, b.Message))
	})
	return slices.CompactFunc(e, func(a, b *Error) bool { return *a == *b })
}

// A problem is why a value is refused, before its place is known.
type problem struct{ message, hint string }

func refuse(format string, args ...any) *problem {
	return &problem{message: fmt.Sprintf(format, args...)}
}

// try adds what was probably meant.
func (p *problem) try(value string) *problem {
	p.hint = didYouMean(value)
	return p
}

func didYouMean(value string) string {
	if value == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", value)
}
