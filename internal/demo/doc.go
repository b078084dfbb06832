// Package demo runs a whole fleet on one machine, without root and without
// configuration: three sites on loopback addresses, each a real `pharos run`
// process with its own gossip, DNS, BGP and forwarding; two HTTP backends a
// site; and an upstream router per site that really receives the routes.
//
// It is the first ten minutes of a new user and the system test of the
// project. It never simulates: breaking a site stops its backends, breaking a
// node kills its process, and everything seen afterwards is what the fleet
// does about it.
//
// cmd/pharos calls Run for `pharos demo` and Client for the verbs under it.
package demo
