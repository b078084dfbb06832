package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Check says why this process cannot bind VIPs on an interface, nil if it can. It changes nothing.
func Check(iface string) error {
	if _, err := net.InterfaceByName(iface); err != nil {
		return fmt.Errorf("VIPs on interface %s: %w", iface, err)
	}
	if !capable() {
		return fmt.Errorf("VIPs on interface %s: %w", iface, ErrPrivilege)
	}
	return nil
}

// capable reads the effective capabilities of this process.
func capable() bool {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return true // the kernel will say
	}
	for line := range strings.Lines(string(text)) {
		if mask, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err != nil || caps&(1<<unix.CAP_NET_ADMIN) != 0
		}
	}
	return true
}

// rtnetlink is the kernel behind the Manager.
type rtnetlink struct {
	handle *netlink.Handle
	iface  string
}

func openKernel(iface string) (kernel, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return rtnetlink{h, iface}, nil
}

func (k rtnetlink) close() { k.handle.Close() }

// errNoInterface is the one failure to list addresses that says that there are none.
var errNoInterface = errors.New("no such interface")

// listWhole lists the kernel's addresses; a dump that changes ran into is begun anew, a few times.
func listWhole(k kernel) (have map[netip.Addr]bool, err error) {
	const tries = 5
	for range tries {
		if have, err = k.list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return have, err
}

// link finds the interface anew each time: it may have been made anew.
func (k rtnetlink) link() (netlink.Link, error) {
	link, err := k.handle.LinkByName(k.iface)
	if _, absent := errors.AsType[netlink.LinkNotFoundError](err); absent || errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("interface %s: %w (%w)", k.iface, errNoInterface, err)
	}
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", k.iface, err)
	}
	return link, nil
}

func (k rtnetlink) list() (map[netip.Addr]bool, error) {
	link, err := k.link()
	if err != nil {
		return nil, err
	}
	addrs, err := k.handle.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", k.iface, err)
	}
	out := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		addr, ok := netip.AddrFromSlice(a.IP)
		if ok && a.Flags&unix.IFA_F_DADFAILED == 0 {
			out[addr.Unmap()] = true
		}
	}
	return out, nil
}

func (k rtnetlink) add(a netip.Addr) error {
	link, err := k.link()
	if err != nil {
		return err
	}
	err = k.handle.AddrAdd(link, hostAddr(a))
	switch {
	case errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w (%w)", ErrPrivilege, err)
	}
	return err
}

func (k rtnetlink) remove(a netip.Addr) error {
	link, err := k.link()
	if err != nil {
		return err
	}
	if err = k.handle.AddrDel(link, hostAddr(a)); errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return err
}

// hostAddr is a /32 or /128. Duplicate address detection is off: an anycast address has duplicates, and a VIP must be
// usable at once.
func hostAddr(a netip.Addr) *netlink.Addr {
	out := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
	if a.Is6() {
		out.Flags = unix.IFA_F_NODAD
	}
	return out
}

func (k rtnetlink) watch(changed chan<- struct{}) (<-chan struct{}, func(), error) {
	news, done := make(chan netlink.AddrUpdate), make(chan struct{})
	if err := netlink.AddrSubscribe(news, done); err != nil {
		return nil, nil, fmt.Errorf("watch addresses: %w", err)
	}
	ended := make(chan struct{})
	go func() { // ends with news: netlink closes it after an error, or after done
		defer close(ended)
		for range news {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	stop := sync.OnceFunc(func() {
		close(done)
		<-ended
	})
	return ended, stop, nil
}
