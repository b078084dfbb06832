//go:build race

package sim

// defaultSeeds is smaller under the race detector, which has little to find in
// a simulation without goroutines; the other 2,000 are played without it (make scale).
const defaultSeeds = 60
