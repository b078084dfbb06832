// Package vip puts a node's service addresses on an interface and takes them off again, by netlink.
//
// A Manager is level-triggered: it is told which addresses should be there, binds what is missing, and looks again when
// the kernel tells of a change, and every few seconds. What somebody else removes comes back; until then Missing says so,
// and nothing that needs the address is announced. An address that is no longer wanted stays for the linger time, because
// it is never unbound in the step that withdraws it: traffic is still on its way.
//
// Which addresses are ours is written to a file, on disk before the kernel is asked, so that a restart after a crash goes
// on where the crash was: it keeps what is still wanted and unbinds the rest. Addresses that were there before and are not
// in the file are somebody else's: they count as present and are never removed.
//
// It decides nothing, announces nothing and knows no configuration. internal/node calls it, before the listeners open.
// Linux, CAP_NET_ADMIN.
//
//	m, err := vip.New(vip.Options{Interface: "lo", File: "/var/lib/pharos/vips", Linger: 10 * time.Second})
//	err = m.Set([]netip.Addr{anycast}) // bound when it returns
//	go m.Run(ctx)
//	…
//	m.Release() // at the very end of a stop
package vip
