// Package health turns what many observers report about many targets into one
// verdict for each target. It is the arithmetic of "is it up?", nothing else.
//
// The words: a [Target] is a backend or a VIP. Every node fills one [Report]
// about all targets, two bits each, indexed by a [Layout]. A [Ledger] keeps
// the newest report of each observer; [Ledger.Judge] makes from it and from
// the previous [View] a new View with a [Verdict] for each target. The rules of
// judgement are the comment of Judge. Which sites have a say on a target is its
// [Vantage]. What a judgement has to know of the ones before is in the View, so
// the same reports after the same View give the same View.
//
// What it never does: it starts no goroutine, reads no clock, does no I/O and
// draws no random number. Times come in as arguments and are only ever
// compared with other times of the same node, so a wrong wall clock changes no
// verdict. Silence is never evidence: an observer that is not heard abstains.
// It does not decide what follows from a verdict; package steer does.
//
// Who calls it: the node's decider owns the ledger and calls Judge; package
// probe finds the statuses that the own report carries; package cluster
// carries reports as bytes; package steer reads views.
//
//	layout := health.NewLayout(targets)
//	ledger := health.NewLedger(health.Fleet{Sites: map[string]string{"fra1": "fra", "iad1": "iad"}}, layout)
//
//	own := health.NewReport("fra1", layout)   // what this node's probes found
//	own.Epoch, own.Seq = 7, 1
//	own.Set(0, health.StatusUp)
//	ledger.Merge(own, 0, now)
//
//	peer, err := health.ParseReport(packet)   // what another node sent
//	if err == nil {
//		ledger.Merge(peer, age, now)
//	}
//
//	view := ledger.Judge(previous, health.Moment{Now: now})
//	fmt.Println(view.Of(layout.Targets[0]).Status) // up
package health
