// Package cluster carries health reports and overrides between nodes.
//
// A [Node] holds the newest report of every observer and gives its own to all
// others: every second (small fleets: more often) in one encrypted datagram to each, at once and by gossip
// when it says something else, and in the states that two nodes exchange now and
// then (every 15 seconds, less often in fleets of more than 32) and when one
// joins. Other nodes are found with hashicorp/memberlist, which no other package
// imports.
//
// Override registers go the same ways: one that was written here is told to
// everybody at once, a changed one is passed on by gossip, every state carries
// all of them, and a member whose reports keep saying another digest than ours
// is sent the whole set, by a few of those who agree first and by all of them if
// it lasts. Merging them and keeping them is the node's business: what differs
// is delivered, and what the node then publishes is what is told.
//
// What it guarantees: for each observer the reports delivered only get newer;
// none gets younger on its way, since each carries its age and no node reads
// another's clock; a node that joins or comes back is up to date within seconds,
// and a partition heals by itself however long it lasted; whatever arrives, its
// memory stays bounded, with a counter for all that it drops. A storm of changes
// costs what calm does in a fleet of 100, and less than that in a smaller one:
// after a calm four changes go out at once, after that one for each 11 ms and
// member, 300 ms to 1 s apart.
//
// Nodes of this version and of the one before it hear each other: each says in
// its membership record which wire version it understands, and is written to in
// that one. While a node of the older one is present, gossip and states are in
// the older one and carry no overrides; nodes of the newer one still tell each
// other theirs.
//
// What it never does: it makes no report of its own but the farewell of this
// node, so silence downs nobody; it does not judge, nor does it know which
// observers are in the fleet (health.Ledger does both); it does not make the
// epoch durable (the node does, before it publishes). Membership is for finding
// others and for display; a member's death is noticed far too late to steer by.
//
// Whoever has a gossip key can be a member, and speak for every observer and
// writer whose public key is not given: with [Options.PublicKeys] reports and
// overrides are taken only with the signature of the node that they say they are
// from, which stays with them from node to node; an override also with that of a
// node that holds it, so that it outlives its writer. What is not signed is their age
// (a node may pass a report on as older or, to who has not heard it, as younger
// than it is), the membership record, and questions and answers. Recorded
// messages are recognised as old only while a newer one of the same observer or
// scope is held; overrides are held for ever. The port belongs behind a firewall
// that lets the other nodes in.
//
// The node (internal/node) makes it, publishes what the probes say, and hands
// what is delivered to its decider:
//
//	n, err := cluster.New(cluster.Options{
//		Name: "fra1", Label: "prod", Bind: netip.MustParseAddrPort("198.51.100.11:7946"),
//		Keys: [][]byte{key}, Seeds: others, Epoch: epoch,
//		Deliver: func(r *health.Report, age time.Duration) { … },
//		DeliverOverrides: func(all []health.Override) { … },
//	})
//	if err != nil { … }
//	defer n.Close()
//	n.PublishOverrides(overrides.All(), overrides.Digest()) // what the disk kept
//	go n.Run(ctx)
//	n.Publish(report) // after every round of probes
package cluster
