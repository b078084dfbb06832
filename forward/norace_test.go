//go:build !race

package forward

// raced: the race detector is on.
const raced = false
