// Package decide is a node's judgement without its hands: facts go in, the own
// report and the plan come out.
//
// A [Core] owns what a node knows: the reports of all observers, the operators'
// orders, the verdicts and the last plan. It says what this node is to report
// ([Core.Observe]), takes in what others report and order ([Core.Merge],
// [Core.MergeOverrides]), and turns it all into the next plan ([Core.Step]).
//
// What it never does: it reads no clock, starts no goroutine, does no I/O and
// draws no random number. So the same code runs behind sockets in the node's
// decider, and hundreds of times over in one process under package sim, where
// years of bad weather pass in minutes.
//
// Who calls it: the node's decider, which owns one Core and is its only user,
// and package sim.
//
//	core := decide.New(decide.Options{Name: "fra1", Topology: topology, Epoch: epoch})
//	report := core.Observe(statuses, 0, now)   // nil: nothing to say yet
//	core.Merge(peer, age, now)
//	step := core.Step(health.Moment{Now: now})
//	publish(step.Plan)
package decide
