package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
)

// A network is the lab's namespaces and links: a star, with the core in the
// middle, which routes and filters.
type network struct {
	layout *Layout
	core   *namespace
	wires  *wire
	spaces []*namespace // like Layout.Members

	mu     sync.Mutex          // guards the rest, and changes of routes
	guests map[netip.Addr]bool // client addresses added later
	via    map[netip.Addr]int  // shared address → member it is routed to
}

// newNetwork builds it all, or nothing.
func newNetwork(l *Layout) (n *network, err error) {
	n = &network{layout: l, guests: map[netip.Addr]bool{}, via: map[netip.Addr]int{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
			n = nil
		}
	}()
	if n.core, err = newNamespace(l.Namespace(coreName), true); err != nil {
		return n, err
	}
	if n.wires, err = n.core.wire(); err != nil {
		return n, err
	}
	if err = n.wires.up("lo"); err != nil {
		return n, err
	}
	for i := range l.Members {
		m := &l.Members[i]
		ns, err := newNamespace(l.Namespace(m.Name), m.Role == RoleRouter || m.Role == RoleTransit)
		if err != nil {
			return n, err
		}
		n.spaces = append(n.spaces, ns)
		if err := connect(n.wires, ns, m); err != nil {
			return n, err
		}
	}
	if err := n.cable(); err != nil {
		return n, err
	}
	return n, n.reroute(func(int) bool { return true })
}

// reroute sends each shared address to the first of its members that lives,
// as the routers of a site do that notice a dead neighbor. An address of which
// no member lives stays where it was.
func (n *network) reroute(lives func(member int) bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, s := range n.layout.Shared {
		if s.Routed {
			continue // by whom BGP says
		}
		for _, m := range s.Members {
			if !lives(m) {
				continue
			}
			if at, ok := n.via[s.Addr]; !ok || at != m {
				err := n.wires.route(netip.PrefixFrom(s.Addr, s.Addr.BitLen()), n.layout.Members[m].Link, memberEnd, netip.Addr{})
				if err == nil {
					n.via[s.Addr] = m
				}
				errs = append(errs, err)
			}
			break
		}
	}
	return errors.Join(errs...)
}

// maxGuests bounds the addresses that a client can be given while the lab runs.
const maxGuests = 1000

// client returns the client's namespace, with from among its addresses.
func (n *network) client(from netip.Addr) (*namespace, error) {
	at := len(n.layout.Members) - 1 // NewLayout puts it last
	m := &n.layout.Members[at]
	n.mu.Lock()
	defer n.mu.Unlock()
	if !from.IsValid() || n.guests[from] {
		return n.spaces[at], nil
	}
	for _, other := range n.layout.Members {
		for _, a := range other.Own {
			if a == from && other.Role != RoleClient {
				return nil, fmt.Errorf("client address %s: it is %s's", from, other.Name)
			}
			if a == from {
				return n.spaces[at], nil
			}
		}
	}
	if from.IsLoopback() || from.IsMulticast() || from.IsUnspecified() || from.Zone() != "" || from.IsLinkLocalUnicast() {
		return nil, fmt.Errorf("client address %s: no address that is routed", from)
	}
	if len(n.guests) >= maxGuests {
		return nil, fmt.Errorf("client address %s: the client has %d addresses already", from, maxGuests)
	}
	w, err := n.spaces[at].wire()
	if err != nil {
		return nil, err
	}
	defer w.close()
	own := netip.PrefixFrom(from, from.BitLen())
	if err := w.up(uplink, own); err != nil {
		return nil, err
	}
	if err := n.wires.route(own, m.Link, memberEnd, netip.Addr{}); err != nil {
		return nil, err
	}
	n.guests[from] = true
	return n.spaces[at], nil
}

// close removes every namespace; twice is fine.
func (n *network) close() error {
	if n.wires != nil {
		n.wires.close()
		n.wires = nil
	}
	var errs []error
	for _, ns := range append(n.spaces, n.core) {
		if ns != nil {
			ns.close()
			errs = append(errs, removeNamespace(ns.name))
		}
	}
	n.spaces, n.core = nil, nil
	return errors.Join(errs...)
}

// leftoverNamespaces are the names of a lab's namespaces that still exist.
func leftoverNamespaces(id string) ([]string, error) {
	entries, err := os.ReadDir(namespaceFolder)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "ph-"+id+"-") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
