// Package dnslb is the authoritative DNS tier: it answers for the zones of a
// [zone.Set] over UDP and TCP, and for steered names from the newest plan on a
// [steer.Board].
//
// One goroutine per UDP socket reads a query, parses it, looks the name up,
// asks the plan for addresses where a service decides, assembles the response
// from compiled records and sends it: one straight path without locks or
// allocation, on which exactly one place writes the response. The plan is loaded
// once per query and kept to its end.
//
// The package never decides who is healthy or which site is near, never reads a
// file, never recurses, and never answers outside of its zones. Transfers,
// updates and notifications are refused. internal/node builds, runs and reloads
// it.
//
//	server, err := dnslb.New(dnslb.Options{Listen: addrs, Board: board, ECS: true})
//	if err != nil {
//		return err // nothing stays bound
//	}
//	server.SetZones(set)
//	return server.Run(ctx)
package dnslb
