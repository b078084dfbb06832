package lab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The two ends of every link. They are link-local and the same on each link,
// so that whatever addresses the operator uses are free.
var (
	coreEnd   = [2]netip.Prefix{netip.MustParsePrefix("169.254.1.1/32"), netip.MustParsePrefix("fe80::1/64")}
	memberEnd = [2]netip.Prefix{netip.MustParsePrefix("169.254.1.2/32"), netip.MustParsePrefix("fe80::2/64")}
	anywhere  = [2]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
)

// uplink is the member's end of its link.
const uplink = "up"

// A wire configures one namespace's interfaces and routes.
type wire struct{ handle *netlink.Handle }

func (ns *namespace) wire() (*wire, error) {
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: netlink: %w", ns.name, err)
	}
	return &wire{h}, nil
}

func (w *wire) close() { w.handle.Close() }

// up finds an interface, gives it addresses and starts it.
func (w *wire) up(name string, addrs ...netip.Prefix) error {
	link, err := w.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	for _, p := range addrs {
		if err := w.address(link, p); err != nil {
			return fmt.Errorf("interface %s: address %s: %w", name, p, err)
		}
	}
	if err := w.handle.LinkSetUp(link); err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return nil
}

func (w *wire) address(link netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if p.Addr().IsLinkLocalUnicast() {
		a.Scope = int(netlink.SCOPE_LINK)
	}
	return w.handle.AddrAdd(link, a)
}

// route sends dst over an interface to the end of the link on the other side.
// from is the source address for what starts here; invalid = the kernel's choice.
func (w *wire) route(dst netip.Prefix, name string, ends [2]netip.Prefix, from netip.Addr) error {
	link, err := w.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("route %s: interface %s: %w", dst, name, err)
	}
	r := &netlink.Route{
		LinkIndex: link.Attrs().Index, Dst: ipNet(dst), Gw: ends[family(dst.Addr())].Addr().AsSlice(),
		Flags: int(netlink.FLAG_ONLINK),
	}
	if from.IsValid() {
		r.Src = from.AsSlice()
	}
	if err := w.handle.RouteReplace(r); err != nil {
		return fmt.Errorf("route %s over %s: %w", dst, name, err)
	}
	return nil
}

// connect lays the link between the core and a member and routes the member's
// own addresses.
func connect(core *wire, ns *namespace, m *Member) error {
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: uplink, PeerNamespace: netlink.NsFd(ns.file.Fd())}
	pair.Name = m.Link
	if err := core.handle.LinkAdd(pair); err != nil {
		return fmt.Errorf("link of %s: %w", m.Name, err)
	}
	w, err := ns.wire()
	if err != nil {
		return err
	}
	defer w.close()
	if err := core.up(m.Link, coreEnd[:]...); err != nil {
		return err
	}
	addrs := memberEnd[:]
	for _, a := range m.Own {
		addrs = append(addrs[:len(addrs):len(addrs)], netip.PrefixFrom(a, a.BitLen()))
	}
	for _, a := range m.Shared {
		addrs = append(addrs, netip.PrefixFrom(a, a.BitLen()))
	}
	if err := w.up("lo"); err != nil {
		return err
	}
	if err := w.up(uplink, addrs...); err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	for i, all := range anywhere {
		if err := w.route(all, uplink, coreEnd, m.first(i)); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	for _, a := range m.Own {
		if err := core.route(netip.PrefixFrom(a, a.BitLen()), m.Link, memberEnd, netip.Addr{}); err != nil {
			return err
		}
	}
	return nil
}

// first is the member's first own address of a family (0 = IPv4, 1 = IPv6).
func (m *Member) first(of int) netip.Addr {
	for _, a := range m.Own {
		if family(a) == of {
			return a
		}
	}
	return netip.Addr{}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
