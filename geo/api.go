package geo

import (
	"errors"
	"net/netip"
	"time"
)

// SKETCH of the package's API: replaced by the real files (database.go, table.go, locate.go, …).

// Database is geo data: the embedded country table, or mmdb files, or both.
type Database struct{}

// Info describes the data, for status and explain.
type Info struct {
	Name  string    // "embedded country data", or the files' names
	Type  string    // Metadata.DatabaseType
	Built time.Time // when the data was made
}

// Embedded opens the built-in country data.
func Embedded() (*Database, error) { return nil, errors.New("sketch") }

// Open reads mmdb files into memory. read is os.ReadFile or a test's.
func Open(read func(string) ([]byte, error), files ...string) (*Database, error) {
	return nil, errors.New("sketch")
}

// Info ...
func (db *Database) Info() Info { return Info{} }

// Lookup returns the place of one address and the prefix that the data gives it (explain).
func (db *Database) Lookup(addr netip.Addr) (Place, netip.Prefix) { return Place{}, netip.Prefix{} }

// Table maps addresses to classes.
type Table struct{}

// Compile makes the disjoint table of all addresses. classify is called once per distinct Place
// (and once with the zero Place for addresses the data does not know); adjacent ranges of one class merge.
func Compile(db *Database, networks []Network, classify func(Place) Class) (*Table, error) {
	return nil, errors.New("sketch")
}

// Lookup returns the class and the length of the longest prefix around addr in which every address has that
// class (the ECS scope). IPv4-mapped IPv6 addresses count as IPv4. O(log n), no allocation, any number of goroutines.
func (t *Table) Lookup(addr netip.Addr) (Class, int) { return 0, 0 }

// Place returns what the networks and the database say of addr together (explain): the same merge that Compile classified.
func (t *Table) Place(addr netip.Addr) (Place, netip.Prefix) { return Place{}, netip.Prefix{} }

// Locate resolves "FRA" (IATA), "aws:us-east-1" (cloud region) or "1.35,103.99".
func Locate(text string) (Location, error) { return Location{}, errors.New("sketch") }

// Country returns the population-weighted centre and the continent of an ISO 3166-1 alpha-2 code.
func Country(code string) (centre Point, continent string, ok bool) { return Point{}, "", false }

// Distance is the great-circle distance in kilometres.
func Distance(a, b Point) float64 { return 0 }
