//go:build !race

package cluster

// fleetSize is how many nodes the tests in virtual time have.
const fleetSize = 100
