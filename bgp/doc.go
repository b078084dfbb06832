// Package bgp is the BGP tier: it keeps the routes that this node should announce in step with what its routers hear.
//
// A Speaker supervises one child process that holds nothing but BGP sessions. The parent hands it the whole desired
// state (configuration, peers, routes) whenever something changed and every 30 s, and renews a lease in between. The
// child reconciles: what is desired and not installed is announced, what is installed and not desired is withdrawn,
// each route and each peer on its own. So nobody has to remember events, and one bad peer never holds up another.
//
// The child exists because a peer can crash the BGP library with one message: then the sessions are gone and come back
// with a new child, while DNS and forwarding in the parent never notice. The lease covers the other direction: when
// the parent is hung (no renewal for Config.Lease) or dead (the pipe closes), the child withdraws everything, and
// announces again only after the parent handed it the state anew. A withdrawal is thus what happens by default.
//
// The package accepts no route from anybody, exports only the routes it was given, keeps graceful restart off unless
// Config.Restart says otherwise (with it a crash does not withdraw), and touches neither the kernel's routing table nor the VIPs' interfaces. It decides
// nothing: which prefix is announced, and why, is the steering plan's business. Passwords travel to the child through a
// pipe and appear in no log, status or error.
//
// internal/node calls it; the child is the same binary, re-executed with a verb that calls ChildMain:
//
//	s, err := bgp.New(bgp.Options{
//		Child:   []string{"/proc/self/exe", "bgp-speaker"},
//		Config:  bgp.Config{ASN: 64500, LocalAddress: self, Lease: 3 * time.Second},
//		Peers:   []bgp.Peer{{Address: router, ASN: 64496}},
//		Desired: func() []bgp.Route { return routesOf(board.Load()) },
//		Wake:    board.Watch(),
//		Log:     log,
//	})
//	if err != nil { … }
//	err = s.Run(ctx) // withdraws and says goodbye when ctx ends
//
// and in main, for the verb:
//
//	err := bgp.ChildMain(ctx, os.Stdin, os.Stdout, os.Stderr)
package bgp
