// Package zone compiles zones into an immutable [Set] that answers look-ups.
//
// A zone is the text of an RFC 1035 master file, with steered names beside its
// records. [Compile] reports every mistake with file and line, and builds one
// hash over all names of all zones. [Set.Find] walks it from the query name up
// to the closest encloser (RFC 1034 4.3.2, RFC 4592); record sets are compiled
// to the octets that a response carries, so that answering copies memory.
//
// The package reads no file and knows no health: what a steered name answers is
// decided elsewhere; here it only exists. Package dnslb and the node that
// prepares a reload call it.
//
//	set, err := zone.Compile([]zone.Spec{{Name: "example.com.", Master: text, MasterFile: "example.com.zone"}})
//	if err != nil {
//		return err // one line per mistake: "example.com.zone:14: ..."
//	}
//	server.SetZones(set)
package zone
