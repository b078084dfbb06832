package lab

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// cable lays the links of the routers: one from each to every node of its site and
// one to the transit, so that BGP neighbors are as near as their configuration says
// and traffic goes where routes point. What the transit has a route to, the core
// leaves to it.
func (n *network) cable() error {
	for _, r := range n.layout.Routers {
		if n.layout.Members[r.Member].Role == RoleTransit {
			continue // the routers lay its links
		}
		for _, s := range r.Sessions {
			if err := n.patch(r, s); err != nil {
				return fmt.Errorf("link of %s and %s: %w", r.Name, s.Name, err)
			}
		}
	}
	for _, s := range n.layout.Shared {
		if !s.Routed {
			continue
		}
		for _, m := range n.layout.Members {
			if m.Role != RoleTransit {
				continue
			}
			if err := n.wires.route(netip.PrefixFrom(s.Addr, s.Addr.BitLen()), m.Link, memberEnd, netip.Addr{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// patch lays one link.
func (n *network) patch(r RouterPlan, s SessionPlan) error {
	near, far := n.spaces[r.Member], n.spaces[s.Member]
	w, err := near.wire()
	if err != nil {
		return err
	}
	defer w.close()
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: s.Far, PeerNamespace: netlink.NsFd(far.file.Fd())}
	pair.Name = s.Link
	if err := w.handle.LinkAdd(pair); err != nil {
		return err
	}
	v, err := far.wire()
	if err != nil {
		return err
	}
	defer v.close()
	if err := w.pointToPoint(s.Link, s.Local, s.Remote, s.Local6, s.Remote6); err != nil {
		return err
	}
	return v.pointToPoint(s.Far, s.Remote, s.Local, s.Remote6, s.Local6)
}

// pointToPoint gives an interface the addresses of both its ends, in pairs, and
// starts it. A pair of which one is invalid is left out.
func (w *wire) pointToPoint(name string, pairs ...netip.Addr) error {
	link, err := w.handle.LinkByName(name)
	if err != nil {
		return err
	}
	for ; len(pairs) > 1; pairs = pairs[2:] {
		own, other := pairs[0], pairs[1]
		if !own.IsValid() || !other.IsValid() {
			continue
		}
		a := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(own, own.BitLen())), Peer: ipNet(netip.PrefixFrom(other, other.BitLen()))}
		if own.Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := w.handle.AddrAdd(link, a); err != nil {
			return fmt.Errorf("address %s to %s: %w", own, other, err)
		}
	}
	return w.handle.LinkSetUp(link)
}
