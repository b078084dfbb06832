// Package router is a receive-only BGP router: the other end of a speaker, for the demo and for tests.
//
// It accepts sessions from configured neighbors (or dials them), keeps the routes that they send, and announces nothing.
// It installs nothing in the kernel and forwards no packet: its table is what there is to look at.
//
// It runs GoBGP in the caller's process, which a hostile neighbor can crash: use it against your own speakers only. GoBGP's
// main goroutine never returns, so one goroutine stays after Run ended.
//
// Callers: internal/demo and tests.
//
//	r, err := router.New(router.Options{
//		ASN: 64496, RouterID: id, Listen: netip.MustParseAddrPort("127.0.1.1:1790"),
//		Neighbors: []router.Neighbor{{Address: speaker, ASN: 64500, Passive: true}},
//	})
//	go r.Run(ctx)
//	<-r.Watch()
//	for _, route := range r.Routes() { … }
package router
