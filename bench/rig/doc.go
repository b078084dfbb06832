// Package rig is what the benchmarks against other programs share: it runs a
// program pinned to one core and the load pinned to another, counts the CPU time
// and the memory of all processes of the program, and keeps the figures of
// interleaved rounds for a Markdown table.
//
// CPU time of the server per unit of work is the figure to compare by: it
// varies by a few percent where throughput and latency vary by the load of the
// machine. Every comparison is made within one run, round by round, so that
// what the machine does meanwhile falls on all alike.
//
// Only commands under bench use it.
//
//	server, err := rig.Start(rig.ServerCore, "nginx", "-g", "daemon off;")
//	…
//	defer server.Stop()
//	if err := rig.Pin(rig.LoadCore); err != nil { … }
//	for range rounds {
//		before, _ := server.CPU()
//		n := load()
//		after, _ := server.CPU()
//		figures.Add((after - before).Seconds() * 1e6 / float64(n))
//	}
package rig
