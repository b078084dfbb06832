// Package probe looks at targets: it runs health checks on a schedule and says
// what each target's status is, as this node sees it.
//
// A [Check] says how to look at one target and how often:
//
//	TCP          a connection is accepted
//	TLS          a handshake with a certificate that is valid for the name, and for MinValid more
//	HTTP, HTTPS  versions 1, 2 and 3: status, text, regular expression and JSON in the body
//	DNS          a question over UDP or TCP: RCODE and records
//	UDP          a datagram and what comes back
//	GRPC         grpc.health.v1.Health/Check says SERVING
//	ICMP         an echo request
//	Exec, File   a command, a file that something else writes
//	Passive      nothing: the outcomes of traffic
//	All, Any, AtLeast  other checks combined
//
// A [Runner] runs many: each on its own jittered interval, a bounded number at
// a time, every probe over a connection of its own. Rise and Fall keep one odd
// result from changing a status; after a result that contradicts the status
// the next probe comes after Recheck instead of Every, so that the matter is
// settled soon. Otherwise the work is constant, whatever fails.
//
// The first finding: a success makes a target up at once; failures make it down
// only when Fall of them came in a row, at the pace of Recheck. Until then it
// is unknown, which is no vote. A node is thus ready about a second after its
// start, and a node that starts in the middle of a hiccup downs nothing.
//
// A probe that fails for want of something local (file descriptors, ports, a
// source address, the right to send ICMP) says nothing about the target, nor does
// one that ends long after its deadline, because this process was frozen or
// starved. It is inconclusive: it counts neither way, and Fall of them in a row
// make the target unknown.
//
// What it never does: it judges no target (package health does, from the
// reports of many nodes), follows no redirect, uses no proxy, keeps no
// connection, and reads at most 64 KiB of headers and 64 KiB of a body.
//
// Who calls it: the node, which fills its own report from [Runner.States]
// whenever [Runner.Changed] wakes it.
//
//	runner, err := probe.New(probe.Options{Checks: checks, Log: log})
//	if err != nil {
//		return err
//	}
//	go runner.Run(ctx)
//	for {
//		select {
//		case <-runner.Changed():
//			states = runner.States(states[:0])
//			for _, s := range states {
//				if i, ok := layout.Index(s.Target); ok {
//					report.Set(i, s.Status)
//				}
//			}
//		case <-ctx.Done():
//			return nil
//		}
//	}
package probe
