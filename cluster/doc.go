// Package cluster carries health reports between nodes.
//
// A [Node] holds the newest report of every observer and gives its own to all
// others: every second in one encrypted datagram to each, at once and by gossip
// when it says something else, and in the tables that two nodes exchange every
// 15 seconds and when one joins. Other nodes are found with
// hashicorp/memberlist, which no other package imports.
//
// What it guarantees: for each observer the reports delivered only get newer;
// none gets younger on its way, since each carries its age and no node reads
// another's clock; a node that joins or comes back is up to date within seconds,
// and a partition heals by itself however long it lasted; whatever arrives, its
// memory stays bounded, with a counter for all that it drops.
//
// What it never does: it makes no report of its own but the farewell of this
// node, so silence downs nobody; it does not judge, nor does it know which
// observers are in the fleet (health.Ledger does both); it does not make the
// epoch durable (the node does, before it publishes). Membership is for finding
// others and for display; a member's death is noticed far too late to steer by.
//
// Whoever has a key is trusted to speak for anybody: there is no signature per
// observer, and recorded datagrams are recognised as old only while a newer
// report of the same observer is held. The port belongs behind a firewall that
// lets the other nodes in.
//
// The node (internal/node) makes it, publishes what the probes say, and hands
// what is delivered to its decider:
//
//	n, err := cluster.New(cluster.Options{
//		Name: "fra1", Label: "prod", Bind: netip.MustParseAddrPort("198.51.100.11:7946"),
//		Keys: [][]byte{key}, Seeds: others, Epoch: epoch,
//		Deliver: func(r *health.Report, age time.Duration) { … },
//	})
//	if err != nil { … }
//	defer n.Close()
//	go n.Run(ctx)
//	n.Publish(report) // after every round of probes
package cluster
