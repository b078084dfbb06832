//go:build !race

package sim

// defaultSeeds is how many seeds TestSeeds plays unless it is told.
const defaultSeeds = 2000
