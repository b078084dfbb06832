// Package engine wraps the embedded GoBGP server: the one place that knows its defaults and its traps.
//
// An Engine is either a sender (Options.Receive false: it accepts nothing from anybody and exports only what Announce
// put in its table) or a receiver (Receive true: it keeps what neighbors send and exports nothing). Both speak IPv4 and
// IPv6 unicast with graceful restart off unless a Neighbor asks for it, listen only on the addresses given, and dial again soon after a
// session is lost instead of after GoBGP's fixed five idle seconds.
//
// It never reads configuration, never decides what is announced, and never writes to the kernel's routing table.
// A peer can crash it: GoBGP 3.37 dereferences nil when an unknown message type arrives. So the speaker runs its engine
// in a child process; only the test and demo router runs one in its own process.
//
// GoBGP's Serve never returns, so one goroutine per Engine outlives Stop; there is one Engine per process life.
//
// Callers: package bgp (the speaker's child) and package bgp/router.
//
//	e, err := engine.Start(engine.Options{ASN: 64500, RouterID: id, Port: -1, Log: log})
//	err = e.Add(engine.Neighbor{Address: router, Local: self, ASN: 64496, Hold: 9 * time.Second})
//	err = e.Announce(engine.Path{Prefix: prefix, NextHop: self})
//	go e.Run(ctx) // keeps sessions dialling
package engine
