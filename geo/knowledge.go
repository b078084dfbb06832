package geo

import "strings"

// Knowledge is which parts of a Place a database can tell at all, of any
// address, with what follows from them: a country gives its continent, and both
// give a point.
type Knowledge struct{ Country, Continent, Point, ASN bool }

// knowledgeOf looks at every record.
func knowledgeOf(records []record) Knowledge {
	var k Knowledge
	for _, r := range records {
		k.Country = k.Country || r.country != [2]byte{}
		k.Continent = k.Continent || r.continent != [2]byte{}
		k.Point = k.Point || r.lat != 0 || r.lon != 0
		k.ASN = k.ASN || r.asn != 0
	}
	k.Continent = k.Continent || k.Country
	k.Point = k.Point || k.Continent
	return k
}

// Warnings are what an operator should be told of data that opens and yet cannot
// steer, such as an ASN file alone; nil when there is nothing to tell.
func (db *Database) Warnings() []string {
	subject, has := "the geo data knows", db.info.Has
	switch name := db.info.Name; {
	case strings.Contains(name, joint):
		subject = name + " know"
	case name != "":
		subject = name + " knows"
	}
	const except = ", except in your own networks"
	switch {
	case has.Country:
		return nil
	case has.Continent:
		return []string{subject + " continents but no countries: rules for countries match no client" + except}
	case has.Point:
		return []string{subject + " positions but no countries: geo policies decide for no client" + except}
	}
	return []string{subject + " no countries and no positions: the place of every client is unknown" + except}
}
