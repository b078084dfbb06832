// Package bed lays real routers into network namespaces for tests: BIRD and FRR as Debian ships them, links between
// them, and rules that drop what a test wants lost. Everything it makes ends with the test.
//
// It is for tests alone, of any package, and no part of the binary. It needs root, iproute2, nftables and the router's own
// package; without them a test is skipped, except with CI=true, when it fails.
//
//	b := bed.New(t)
//	us, them := b.Namespace("us"), b.Namespace("them")
//	b.Link(us, "10.9.0.1/24", them, "10.9.0.2/24")
//	r := them.FRR("router bgp 64496\n…")
//	us.Do(func() error { … open sockets … })
//	r.Vtysh("show bgp summary json")
package bed
