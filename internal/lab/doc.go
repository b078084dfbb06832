// Package lab runs a whole fleet on one machine from the operator's own
// configuration: every node is a real `pharos run` process in a network
// namespace of its own, with its own address, its site's VIPs, backends that
// answer the configured checks, and a client; a core namespace in the middle
// is the network between the sites. Needs root and nft.
//
// Parts can be broken one by one ([Lab.Do]), by a script ([ParseScenario],
// [Play]) or at random but repeatably ([RandomSchedule], [Chaos]); a prober
// outside the fleet asks every node's DNS meanwhile and judges the answers.
//
// The lab never simulates: a cut is a packet filter, a frozen node is a
// stopped process, a full disk is a full file system, and a clock that jumps
// is the node's own clock. It never touches the host: every interface, route,
// address and filter is in a namespace that it made, named ph-LAB-…, and what
// a killed lab leaves behind is found by its folder and removed by [Clean].
//
// cmd/pharos calls Run for `pharos lab up`, Client for the verbs beside it,
// and Play and Chaos for scripted and random runs.
package lab
