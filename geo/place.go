package geo

import "net/netip"

// A Place is where a client is, as far as the data says. The zero Place is
// "unknown". Places are comparable and may be map keys.
type Place struct {
	// Network is the name of the operator's own network (Network.Name) that
	// contains the client; "" if none does.
	Network string
	// Country is an ISO 3166-1 alpha-2 code in upper case; "" if unknown.
	Country string
	// Region is the part of an ISO 3166-2 code after the hyphen; "" if unknown.
	Region string
	// Continent is one of AF AN AS EU NA OC SA; "" if unknown.
	Continent string
	// ASN is the origin autonomous system; 0 if unknown.
	ASN uint32
	// Point is the client's position. For country data it is the country's
	// population-weighted centre.
	Point Point
}

// A Point is a position on the globe in degrees. The zero Point is "unknown"
// (nobody lives at 0°N 0°E, and a site there can say 0.0001).
type Point struct {
	Lat float64 `json:"lat"` // −90 … 90, north positive
	Lon float64 `json:"lon"` // −180 … 180, east positive
}

// IsZero reports whether p is unknown.
func (p Point) IsZero() bool { return p == Point{} }

// A Network is one of the operator's own networks: its prefixes override what
// the databases say.
type Network struct {
	// Name is what policies and explanations call it.
	Name string
	// Prefixes, masked, IPv4 or IPv6. Where networks overlap, the longest prefix wins.
	Prefixes []netip.Prefix
	// Place fills what the operator knows; empty fields are taken from the database.
	// Place.Network is ignored: it is always Name.
	Place Place
}

// A Class numbers one set of places that a topology decides alike. Classes are
// dense from 0; the classify function passed to Compile chooses them.
type Class uint32
