// Package doctor looks at a node from its own machine and says what is wrong, why, and what to do.
//
// A Check looks at one thing (the configuration, the process, the cluster, BGP) and returns Findings. It has the
// configuration as it is on disk, the status of the node if one runs, and the machine; it changes none of them. What a
// check needs of the machine goes through Machine, so that every finding can be had in a test. A new check is one more
// entry of checks.
//
// cmd/pharos calls it for `pharos doctor`:
//
//	report := doctor.Run(ctx, doctor.Case{Setup: setup, Status: status, Machine: doctor.Here()})
//	if report.Worst() == doctor.Problem { … }
package doctor
