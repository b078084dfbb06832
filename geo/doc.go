// Package geo says where client addresses are and compiles that into a table
// which the DNS tier can ask for every query.
//
// Data comes from the embedded country table ([Embedded]) or from mmdb files of
// MaxMind, DB-IP, IPinfo and ip-location-db ([Open]); the operator's own
// networks lie over it. [Compile] cuts the whole IPv4 and IPv6 space into
// ranges of one [Class] each, so that [Table.Lookup] also knows how far around
// an address the decision is the same. That is the ECS scope of RFC 7871, and
// scopes taken from one disjoint table never overlap.
//
// Sites get their position from [Locate]: an IATA code, a cloud region or
// coordinates.
//
// The package never guesses: what the data does not say is the zero value, or
// follows from the country (its continent and its population-weighted centre).
// It starts no goroutine, reads no clock and no file; Open is given the function
// that reads. Nothing is unpacked before it is first asked for. Data that is
// cut off, damaged or of a kind that has no places is refused with an error
// before anything uses it, so that a caller who reloads keeps the Database it
// has.
//
// Package config calls Locate and ParsePlace; package steer calls Compile,
// Country and Distance; package node calls Embedded and Open, and again when a
// file has been replaced; the DNS tier calls Table.Lookup.
//
//	db, err := geo.Embedded()
//	…
//	classes := map[string]geo.Class{}
//	table, err := geo.Compile(db, networks, func(p geo.Place) geo.Class {
//		class, ok := classes[p.Continent]
//		if !ok {
//			class = geo.Class(len(classes))
//			classes[p.Continent] = class
//		}
//		return class
//	})
//	…
//	class, scope := table.Lookup(client)
package geo

//go:generate go run ./internal/gen -out data
