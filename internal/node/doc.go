// Package node builds, runs, reloads and stops one pharos: the one place that
// knows every tier.
//
// It translates the configuration into each tier's own Options, owns the
// decider (the only goroutine that turns reports into verdicts and verdicts
// into the published plan), and keeps the orders that safety depends on. Up:
// probes and gossip first, then the forwarding listeners once this site's
// pools have a verdict, then DNS, then BGP. Down: the reverse. It never decides
// anything itself: rules live in internal/steer and internal/health.
//
// cmd/pharos calls New and Run; internal/demo runs whole processes instead.
//
//	n, err := node.New(node.Options{ConfigFile: "pharos.yaml", Log: log})
//	if err != nil { … }
//	err = n.Run(ctx)
package node
