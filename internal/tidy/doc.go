// Package tidy keeps the house rules that a compiler does not: which package
// may import which (the floors), who alone may import a foreign library, how
// long files and functions may be, that every package says what it is, and that
// the pure floors start no goroutine, read no clock and do no I/O.
//
// It has no callers but its own test, which reads the repository with
// `go list` and go/parser, and fails with every breach, its place and the
// reason for the rule. A second set of tests breaks each rule on purpose.
package tidy
