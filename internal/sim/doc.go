// Package sim plays years of bad weather in minutes: many nodes, each the real
// core of a node (package decide) with a simulated network, disk, clock and
// world around it, and after every step the invariants of the design.
//
// A [Run] is a function of its [Options]: the same seed gives the same fleet, the
// same faults and the same steps to the last bit, so a seed that breaks an
// invariant is a reproduction, not a report. Messages are lost, delayed,
// duplicated and reordered; links are cut in one direction or both; nodes are
// killed, frozen, wiped, restored from an old backup, started with a clock that
// is years off; disks fill up; observers go mad; operators give orders. Then the
// weather clears, and the fleet has half a minute to agree.
//
// What it never does: it opens no socket, reads no clock and starts no
// goroutine. It does not simulate memberlist (package cluster tests that with
// the real one) nor the tiers.
//
// Who calls it: its tests, with 2,000 seeds at every change and 100,000 in the
// nightly run (make sim SEEDS=100000).
//
//	result := sim.Run(sim.Options{Seed: 7})
//	for _, v := range result.Violations {
//		fmt.Println(v)
//	}
package sim
