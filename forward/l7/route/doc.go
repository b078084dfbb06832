// Package route decides which of a listener's routes takes an HTTP request: by host,
// path, method, header fields, query and client, in an order that does not depend on luck.
//
// # Precedence
//
// Of the routes whose conditions a request meets all, one takes it:
//
//  1. The most specific host: an exact name, then a wildcard by the length of its
//     suffix, then no host. A host none of whose routes takes the request leaves it
//     to the next.
//  2. The path: an exact path, then a pattern, then a prefix, the longest first.
//  3. One that names methods before one that does not.
//  4. The one with more header conditions.
//  5. The one with more query conditions.
//  6. One that names clients before one that does not.
//  7. The one that comes first.
//
// That is the order of the Kubernetes Gateway API (HTTPRoute), which leaves the place
// of patterns open and has no clients. Two routes with the same conditions are an error.
//
// # Paths
//
// For the choice only, escapes of unreserved characters are decoded and repeated
// slashes count as one: what is not the same file for anybody is not told apart.
// Patterns are RE2, so their time is linear; they have to match the whole path, and a
// path longer than MaxPatternPath matches none.
//
// A Table is immutable, used by any number of goroutines, and allocates nothing when
// it is asked. It never changes a request and never knows what a service is.
//
//	table, err := route.New([]route.Route{
//		{Host: "www.example.com", Service: "web"},
//		{Host: "www.example.com", Path: "/api", Methods: []string{"POST"}, Service: "api"},
//	})
//	rule := table.Match(&request, &space)
package route
