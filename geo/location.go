package geo

// A Location is where a site is.
type Location struct {
	// Text is what the operator wrote: "FRA", "aws:us-east-1", "1.35,103.99".
	Text string
	// Point is never zero in a resolved Location.
	Point Point
	// Country and Continent as in Place; for coordinates, those of the nearest
	// known airport.
	Country, Continent string
}
