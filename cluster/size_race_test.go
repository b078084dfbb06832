//go:build race

package cluster

// fleetSize is smaller under the race detector, which makes a fleet of 100 some
// ten times slower.
const fleetSize = 24
